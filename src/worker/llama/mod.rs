//! llama.cpp as the worker needs it: one model, one context, a batch, samplers. The only place that
//! names it.
//!
//! Every handle has one owner. A [`Model`] is leaked when it is loaded and lives as long as the
//! process, so nothing can outlive it. [`Context`], [`Batch`], [`Sampler`] and [`Projector`] stay
//! on the thread that made them (the raw pointers in them see to that); only [`Model`], which never
//! changes, may be shared between threads.

#[cfg(feature = "cpu-variants")]
mod backends;
mod batch;
mod clusters;
mod context;
mod drafter;
mod experts;
#[cfg(feature = "cpu-variants")]
mod kernels;
mod kv_memory;
mod log;
mod mapping;
mod marker_vocabulary;
mod model;
pub mod packing;
mod projector;
mod sampler;
#[cfg(test)]
pub mod vocabulary;

pub use batch::{Batch, Rows};
pub use clusters::ClusterFile;
pub use context::{Context, ContextPlan, DecodeError, Extent};
pub use drafter::{DraftStart, DrafterModel, Guess};
pub use experts::{ExpertWatch, Experts, Watcher};
pub use kv_memory::is_lazy;
pub use log::report;
pub use model::Model;
pub use projector::Projector;
pub use sampler::{Allowed, Candidates, Sampler};

/// Sees to it that ggml can compute, before the process is confined. The name of the variant that was
/// loaded, if the kernels are not built in.
pub fn load_kernels() -> Result<Option<&'static str>, String> {
    #[cfg(feature = "cpu-variants")]
    return kernels::load().map(Some);
    #[cfg(not(feature = "cpu-variants"))]
    Ok(None)
}

/// The installed modules with backends for devices. `None`: this program loads none.
pub fn backend_modules() -> Option<Modules> {
    #[cfg(feature = "cpu-variants")]
    return Some(backends::modules());
    #[cfg(not(feature = "cpu-variants"))]
    None
}

/// Loads one of them, and with it code of a driver. Why not continues the file's name.
pub fn load_backend(file: &str) -> Result<DeviceBackend, String> {
    #[cfg(feature = "cpu-variants")]
    return backends::load(file);
    #[cfg(not(feature = "cpu-variants"))]
    Err(format!("({file}) cannot be loaded by this program"))
}

unsafe extern "C" {
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// Gives memory that the loading has freed back to the system: by itself glibc keeps it for later.
pub fn trim() {
    // SAFETY: glibc's own function, safe to call at any time from any thread.
    unsafe { malloc_trim(0) };
}

pub use crate::gemma::vocabulary::Token;
use crate::ipc::{DeviceBackend, Modules};

/// For tests that load something: in a worker one thread alone does that, and llama.cpp counts on
/// it.
#[cfg(test)]
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::LazyLock<std::sync::Mutex<()>> = std::sync::LazyLock::new(|| {
        report();
        load_kernels().unwrap();
        std::sync::Mutex::new(())
    });
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
