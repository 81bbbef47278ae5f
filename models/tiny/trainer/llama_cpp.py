"""llama.cpp's converter, its gguf package and the real vocabulary, from a source package of known content."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

from .paths import WORK

PACKAGE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"


def source() -> Path:
    """The root of llama.cpp's tree, fetched once; its `gguf` package can be imported afterwards."""
    root = WORK / "llama_cpp_python-0.3.36/vendor/llama.cpp"
    if not root.is_dir():
        fetch()
    package = str(root / "gguf-py")
    if package not in sys.path:
        sys.path.insert(0, package)
    return root


def fetch() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    archive = WORK / "llama_cpp_python-0.3.36.tar.gz"
    if not archive.exists():
        # Only the archive: pip would build its metadata, which runs llama.cpp's CMake.
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                        "--no-build-isolation", "--dest", str(WORK), PACKAGE], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive} has the SHA-256 {digest}, not {SHA256}: remove it and try again")
    with tarfile.open(archive) as packed:
        packed.extractall(WORK, filter="data")
