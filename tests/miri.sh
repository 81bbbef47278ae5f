#!/bin/sh
# Runs those tests of the library under Miri that need nothing which Miri does not have: miri.sh DIRECTORY, for the build.
# Miri interprets the program and finds undefined behaviour of `unsafe` code, but knows few system calls: no sockets with
# descriptors, no inotify, seals, control groups, no other process; and no code in other languages, as llama.cpp is.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
directory=$1
tree=$directory/tree
cargo +nightly miri --version >/dev/null 2>&1 || {
  echo 'Miri is missing: rustup toolchain install nightly -c miri -c rust-src --profile minimal' >&2
  exit 1
}
# The library does not use llama.cpp, but its package names it: in a copy an empty crate stands in for it.
rm -rf "$tree"
mkdir -p "$tree"
cp -r "$root/Cargo.toml" "$root/Cargo.lock" "$root/src" "$root/tests" "$root/systemd" "$root/docs" "$root/README.md" "$tree"
ln -s "$root/models" "$tree/models"
printf '\n[patch.crates-io]\nllama-cpp-sys-2 = { path = "tests/fuzz/no-llama" }\n' >> "$tree/Cargo.toml"
cd "$tree"
# Random tests are not as many as without it.
export PROPTEST_CASES=4 CARGO_TARGET_DIR="$directory/build" MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-permissive-provenance'
unset RUSTFLAGS
# Parts of the names of tests, and of those that would take hours here.
only='sys::proc_maps sys::mounts::tests::what sys::residency::tests::places ipc::frame store::gguf::tensor_tests gemma::utf8 engine::state engine::queue'
cargo +nightly miri test --lib -- $only --skip random --skip the_tiny --skip a_large --skip world
