//! With the feature `cpu-variants`: puts llama.cpp's libraries beside the programs, at the place that they have when they are
//! installed as well, and tells the linker where that is.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// From the directory of the programs.
const LIBRARIES: &str = "../lib/gemmad";

/// Bytes that a variant has at least: one that was left empty has 15,000, one with kernels more than a million.
const LEAST_VARIANT: u64 = 100_000;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cross/cpu-variants");
    if env::var_os("CARGO_FEATURE_CPU_VARIANTS").is_none() {
        return;
    }
    // llama-cpp-sys-2 says where ggml's variants are; the libraries that it installs lie beside them.
    let variants = PathBuf::from(env::var_os("DEP_LLAMA_BACKENDS_DIR").unwrap());
    // <target>/release/build/<package>/out, or with the target's triple in front of release
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let libraries = out.ancestors().nth(4).unwrap().join("lib/gemmad");
    if let Err(error) = gather(&variants, &libraries) {
        panic!(
            "{} cannot be copied to {}: {error}",
            variants.display(),
            libraries.display()
        );
    }
    println!("cargo:rustc-env=GEMMAD_LIBRARIES={}", libraries.display());
    // The old kind of path, which holds for what the libraries load as well, and before LD_LIBRARY_PATH.
    println!(
        "cargo:rustc-link-arg-bin=gemmad-worker=-Wl,--disable-new-dtags,-rpath,$ORIGIN/{LIBRARIES}"
    );
    // What `worker/llama/mapping.rs` puts in the place of libc's.
    for function in ["mmap", "mmap64", "posix_madvise"] {
        println!("cargo:rustc-link-arg-bin=gemmad-worker=-Wl,--export-dynamic-symbol={function}");
    }
}

/// Copies the libraries that the worker is linked with, and the variants that are packed.
fn gather(variants: &Path, libraries: &Path) -> io::Result<()> {
    match fs::remove_dir_all(libraries) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(libraries)?,
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    for name in fs::read_to_string(format!("cross/cpu-variants/{architecture}.txt"))?.lines() {
        let file = format!("libggml-cpu-{name}.so");
        // llama-cpp-sys-2 is not built anew when cross/cpu-variants/ggml.cmake changes.
        if fs::copy(variants.join(&file), libraries.join(&file))? < LEAST_VARIANT {
            return Err(io::Error::other(format!(
                "{file} has no kernels; run `cargo clean --release -p llama-cpp-sys-2` and build again"
            )));
        }
    }
    // Where libraries are installed depends on the distribution.
    let installed = ["lib", "lib64"].map(|name| variants.with_file_name(name));
    for directory in installed.iter().filter(|directory| directory.is_dir()) {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "so") {
                // Programs ask for `libllama.so.0`, which `libllama.so` refers to.
                let name = fs::read_link(&path)?;
                fs::copy(&path, libraries.join(name))?;
            }
        }
    }
    Ok(())
}
