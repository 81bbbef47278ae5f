#!/bin/sh
# cross/backends/build.sh NAME DIRECTORY: builds ggml's backend NAME (vulkan, openvino, rpc, blas) as a module, of the sources
# that gemmad is built of, and puts it into DIRECTORY. Further arguments are cmake's. A module of other sources is refused
# when it is loaded, or worse: its structures may be others.
set -eu
name=$1 directory=$2
shift 2
case $name in *[!a-z0-9]*|'') echo "$0: $name is not the name of a backend" >&2; exit 64 ;; esac
case $directory in /*) ;; *) directory=$PWD/$directory ;; esac
cd "$(dirname "$0")/../.."
manifest=$(cargo metadata --locked --format-version 1 |
    grep -o '"manifest_path":"[^"]*/llama-cpp-sys-2-[^"/]*/Cargo.toml"' | cut -d'"' -f4)
sources=${manifest%/Cargo.toml}/llama.cpp
# Kept: what was built is not built again.
build=${CARGO_TARGET_DIR:-target}/backends/$name
option=GGML_$(echo "$name" | tr a-z A-Z)
# ggml-base has to be a shared library, which the worker has loaded already: the module refers to it by name alone. What else
# the module needs is looked for in a directory beside it that has the backend's name, and then where the system looks.
cmake -S "$sources" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=\$ORIGIN/$name" \
    -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CPU=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF \
    "-D$option=ON" "$@"
cmake --build "$build" --target "ggml-$name" --parallel "$(nproc)"
mkdir -p "$directory"
# Nobody but its owner may write what is to be loaded.
install -m 755 -s "$build/bin/libggml-$name.so" "$directory/"
