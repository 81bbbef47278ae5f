//! ggml's kernels, where they are libraries of their own (the feature `cpu-variants`): one for each
//! kind of CPU, of which the worker loads the best that this one runs. Loading maps code, so it
//! comes before confinement.
//!
//! ggml could choose by itself. It would look where the environment says and in the working
//! directory, load every variant to ask it, and not ask whether the kernel saves the registers.
//!
//! Variants with AMX are not among them: ggml keeps what it packs for AMX in memory of its own,
//! which cannot be evicted, and the permission to use it is a system call of its own. Nor are those
//! with SME, which no kernel uses but those of KleidiAI, a library that is fetched while compiling.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use llama_cpp_sys_2 as sys;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the feature `cpu-variants` is for x86-64 and Arm; build gemmad without it");

/// From the directory of the worker's program.
#[cfg(not(test))]
const LIBRARIES: &str = "../lib/gemmad";

/// Bits of a mode by which others than the owner may write.
const WRITABLE: u32 = 0o022;

struct Variant {
    name: &'static str,
    /// Whether CPU and kernel have all features that it needs.
    runs_here: fn() -> bool,
}

/// The best variant first. What each is compiled for is in `ggml/src/CMakeLists.txt`.
macro_rules! variants {
    ($is_detected:ident: $($name:literal needs [$($feature:tt)*])*) => {
        static VARIANTS: &[Variant] = &[$(Variant {
            name: $name,
            runs_here: || true $(&& std::arch::$is_detected!($feature))*,
        }),*];
    };
}

#[cfg(target_arch = "x86_64")]
variants! { is_x86_feature_detected:
    "zen4" needs ["avx512f" "avx512cd" "avx512vl" "avx512dq" "avx512bw" "avx512vbmi" "avx512vnni" "avx512bf16"
        "avx2" "bmi2" "fma" "f16c"]
    "icelake" needs ["avx512f" "avx512cd" "avx512vl" "avx512dq" "avx512bw" "avx512vbmi" "avx512vnni"
        "avx2" "bmi2" "fma" "f16c"]
    "skylakex" needs ["avx512f" "avx512cd" "avx512vl" "avx512dq" "avx512bw" "avx2" "bmi2" "fma" "f16c"]
    "alderlake" needs ["avxvnni" "avx2" "bmi2" "fma" "f16c"]
    "haswell" needs ["avx2" "bmi2" "fma" "f16c"]
    "sandybridge" needs ["avx" "sse4.2"]
    "sse42" needs ["sse4.2"]
    "x64" needs []
}

// With what the compiler may use in the version of the architecture.
#[cfg(target_arch = "aarch64")]
variants! { is_aarch64_feature_detected:
    "armv8.6_2" needs ["sve2" "sve" "i8mm" "bf16" "dotprod" "fp16" "lse" "rdm" "fcma" "rcpc"]
    "armv8.6_1" needs ["sve" "i8mm" "bf16" "dotprod" "fp16" "lse" "rdm" "fcma" "rcpc"]
    "armv8.2_2" needs ["dotprod" "fp16" "lse" "rdm"]
    "armv8.0_1" needs []
}

/// Loads the best variant and returns its name. Once in a process, before any model.
pub fn load() -> Result<&'static str, String> {
    super::report();
    load_from(&directory()?)
}

fn load_from(directory: &Path) -> Result<&'static str, String> {
    let mut failed = vec![];
    for variant in VARIANTS.iter().filter(|variant| (variant.runs_here)()) {
        let file = format!("libggml-cpu-{}.so", variant.name);
        match load_file(directory, &file) {
            Ok(_) => {
                // A worse one than there should be.
                for failure in failed {
                    eprintln!("{}: {failure}", directory.display());
                }
                return Ok(variant.name);
            }
            Err(why) => failed.push(format!("{file} {why}")),
        }
    }
    Err(format!(
        "no library of {} can compute on this CPU: {}; install gemmad again",
        directory.display(),
        failed.join("; ")
    ))
}

/// Loads a library with a backend of ggml's, which is then registered. Why it cannot be used follows its name.
pub(super) fn load_file(directory: &Path, file: &str) -> Result<sys::ggml_backend_reg_t, String> {
    let path = directory.join(file);
    for path in [directory, &path] {
        check_owner(path)?;
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "has a NUL in its path")?;
    // SAFETY: a string that ends in NUL. What the library does when it is loaded is the code of
    // whoever installed this program: `check_owner` has seen to that.
    let loaded = unsafe { sys::ggml_backend_load(name.as_ptr()) };
    if loaded.is_null() {
        let why = super::log::take_reason();
        return Err(why.map_or("cannot be loaded".to_owned(), |why| {
            format!("cannot be loaded: {why}")
        }));
    }
    Ok(loaded)
}

/// Code is loaded only if nobody could have written it but root and the owner of this program.
pub(super) fn check_owner(path: &Path) -> Result<(), String> {
    let owner =
        |path: &Path| fs::metadata(path).map_err(|error| format!("cannot be read: {error}"));
    let found = owner(path)?;
    if found.uid() != 0 && found.uid() != owner(Path::new("/proc/self/exe"))?.uid() {
        return Err(format!(
            "is not used, because {} belongs to user {}: neither to root nor to the owner of gemmad-worker",
            path.display(),
            found.uid()
        ));
    }
    if found.mode() & WRITABLE != 0 {
        return Err(format!(
            "is not used, because others than its owner may write to {0}: `chmod go-w {0}`",
            path.display()
        ));
    }
    Ok(())
}

/// Where the libraries are. Tests are built elsewhere than the program.
pub(super) fn directory() -> Result<PathBuf, String> {
    #[cfg(test)]
    return Ok(PathBuf::from(env!("GEMMAD_LIBRARIES")));
    #[cfg(not(test))]
    {
        let program = std::env::current_exe()
            .map_err(|error| format!("gemmad-worker does not find itself: {error}"))?;
        let directory = program.with_file_name(LIBRARIES);
        // Its name in messages.
        Ok(directory.canonicalize().unwrap_or(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_packed_is_what_is_looked_for() {
        #[cfg(target_arch = "x86_64")]
        let packed = include_str!("../../../cross/cpu-variants/x86_64.txt");
        #[cfg(target_arch = "aarch64")]
        let packed = include_str!("../../../cross/cpu-variants/aarch64.txt");
        let packed: Vec<&str> = packed.lines().rev().collect();
        let known: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
        assert_eq!(packed, known);
    }

    #[test]
    fn libraries_are_missed_by_name_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = load_from(directory.path()).unwrap_err();
        let path = directory.path().display().to_string();
        assert!(
            error.contains(&path)
                && error.contains("cannot be read: No such file")
                && error.ends_with("; install gemmad again"),
            "{error}"
        );
    }

    #[test]
    fn what_others_may_write_is_no_library() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libggml-cpu-x64.so");
        fs::write(&file, "no library").unwrap();
        let try_it = || load_file(directory.path(), "libggml-cpu-x64.so").unwrap_err();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&file, 0o664);
        assert!(try_it().contains("chmod go-w"), "{}", try_it());
        mode(&file, 0o644);
        mode(directory.path(), 0o777);
        assert!(try_it().contains("chmod go-w"), "{}", try_it());
        mode(directory.path(), 0o755);
        // Now it is looked into.
        assert!(try_it().starts_with("cannot be loaded"), "{}", try_it());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(31_001), None).unwrap();
            assert!(try_it().contains("belongs to user 31001"), "{}", try_it());
        }
    }
}
