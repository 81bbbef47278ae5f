//! ggml's backends for devices beside the CPU: modules in a directory of their own, beside the
//! worker's libraries. What is said of [`super::kernels`] holds for them as well.

use std::ffi::{CStr, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use llama_cpp_sys_2 as sys;

use super::kernels;
use crate::ipc::{
    DEVICE_TEXT, DEVICES_MOST, Device, DeviceBackend, DeviceKind, MODULES_MOST, Modules, is_module,
};

/// Below the directory of the libraries.
const BACKENDS: &str = "backends";

/// The modules that are installed. None is loaded.
pub fn modules() -> Modules {
    let Ok(libraries) = kernels::directory() else {
        return Modules::default();
    };
    modules_in(&libraries.join(BACKENDS))
}

fn modules_in(directory: &Path) -> Modules {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut files: Vec<String> = names.filter(|name| is_module(name)).collect();
    files.sort();
    files.truncate(MODULES_MOST);
    Modules {
        directory: brief(&directory.display().to_string()),
        files,
    }
}

/// Loads a module and says what devices it has. The reason why not continues the file's name.
pub fn load(file: &str) -> Result<DeviceBackend, String> {
    super::report();
    load_from(&kernels::directory()?, file).map_err(|reason| brief(&reason))
}

fn load_from(libraries: &Path, file: &str) -> Result<DeviceBackend, String> {
    if !is_module(file) {
        return Err("is not the name of a module".to_owned());
    }
    kernels::check_owner(libraries)?;
    let directory: PathBuf = libraries.join(BACKENDS);
    let path = directory.join(file);
    let kind = fs::metadata(&path).map_err(|error| format!("cannot be read: {error}"))?;
    if !kind.is_file() {
        return Err("is not used, because it is not a file".to_owned());
    }
    let backend = kernels::load_file(&directory, file)?;
    // SAFETY: ggml has just registered it, and forgets none; device numbers are below the count.
    let (name, devices) = unsafe {
        let count = sys::ggml_backend_reg_dev_count(backend).min(DEVICES_MOST);
        let devices =
            (0..count).filter_map(|at| device(sys::ggml_backend_reg_dev_get(backend, at)));
        (text(sys::ggml_backend_reg_name(backend)), devices.collect())
    };
    Ok(DeviceBackend {
        name: name.unwrap_or_default(),
        devices,
    })
}

/// What a device says of itself; `None` if it stands for others.
///
/// # Safety
///
/// It is one of a backend that is registered.
unsafe fn device(device: sys::ggml_backend_dev_t) -> Option<Device> {
    let mut props = std::mem::MaybeUninit::<sys::ggml_backend_dev_props>::zeroed();
    // SAFETY: the caller's promise. All fields may be zero, and the device fills them in.
    let props = unsafe {
        sys::ggml_backend_dev_get_props(device, props.as_mut_ptr());
        props.assume_init()
    };
    let kind = match props.type_ {
        sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
        sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
        sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        sys::GGML_BACKEND_DEVICE_TYPE_ACCEL => DeviceKind::Accelerator,
        _ => return None,
    };
    let (total, free) = (props.memory_total as u64, props.memory_free as u64);
    // SAFETY: null, or strings of the device's own.
    let [name, description, bus_id] =
        unsafe { [props.name, props.description, props.device_id].map(|told| text(told)) };
    Some(Device {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
        kind,
        memory_total: total,
        memory_free: free.min(total),
        bus_id,
    })
}

/// # Safety
///
/// Null, or a string that ends in NUL.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(brief(&unsafe { CStr::from_ptr(text) }.to_string_lossy()))
}

/// Within one line, and no longer than the channel has room for.
fn brief(text: &str) -> String {
    let end = text.floor_char_boundary(DEVICE_TEXT);
    text[..end].trim().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of libraries with one module: ggml's kernels, which are a module as well.
    fn libraries() -> tempfile::TempDir {
        let libraries = tempfile::tempdir().unwrap();
        let backends = libraries.path().join(BACKENDS);
        fs::create_dir(&backends).unwrap();
        let kernels = kernels::directory().unwrap().join("libggml-cpu-x64.so");
        fs::copy(kernels, backends.join("libggml-cpu-x64.so")).unwrap();
        libraries
    }

    #[test]
    fn a_module_says_what_it_has_and_others_are_refused_with_the_reason() {
        let _alone = super::super::alone();
        let libraries = libraries();
        let backends = libraries.path().join(BACKENDS);
        fs::write(backends.join("libggml-text.so"), "no library").unwrap();
        fs::create_dir(backends.join("libggml-folder.so")).unwrap();
        fs::write(backends.join("readme.txt"), "").unwrap();
        let found = modules_in(&backends);
        assert_eq!(
            found.files,
            ["libggml-cpu-x64.so", "libggml-folder.so", "libggml-text.so"]
        );
        let load = |file| load_from(libraries.path(), file);
        let backend = load("libggml-cpu-x64.so").unwrap();
        assert_eq!(backend.name, "CPU");
        assert_eq!(backend.devices.len(), 1);
        assert_eq!(backend.devices[0].kind, DeviceKind::Cpu);
        assert!(backend.devices[0].memory_total > 0);
        for (file, reason) in [
            ("libggml-text.so", "cannot be loaded: "),
            ("libggml-folder.so", "it is not a file"),
            ("libggml-none.so", "cannot be read: No such file"),
            ("../libggml-base.so", "is not the name of a module"),
        ] {
            let error = load(file).unwrap_err();
            assert!(error.contains(reason), "{file}: {error}");
        }
        // Whoever can write there can put a module there.
        fs::set_permissions(libraries.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = load("libggml-cpu-x64.so").unwrap_err();
        assert!(error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn no_directory_is_no_module() {
        let folder = tempfile::tempdir().unwrap();
        let found = modules_in(&folder.path().join(BACKENDS));
        assert!(found.files.is_empty() && found.directory.ends_with("/backends"));
    }
}
