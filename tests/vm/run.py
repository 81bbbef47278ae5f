#!/usr/bin/env python3
"""Boots whole machines with gemmad installed in them, and judges what each one promises.

    run.py --programs DIR [--packaged DIR] [--machine NAME ...] [--keep]

A machine is a distribution's root file system made with mmdebstrap, booted by qemu with the distribution's own kernel and
systemd. Nothing is copied into the root: the Debian package in two versions, models and `promises.py` come as a tar file that
is the machine's second disk. Inside, `promises.py` installs the package as an administrator would and keeps the promises one
by one; each is a line of JSON on the second serial port. Here they are held against the list of those that
were to come, so a machine that dies half way fails the rest.

Exit status: 0 all promises were kept, 1 some were not, 77 no machine can be made here (the reason is printed).
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gemmad" / "vm"
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
import promises  # noqa: E402  (the same file runs inside)

SKIPPED = 77
# The version of the package that the machine is upgraded to; its programs are the same.
NEWER = "999"
# A boot that says nothing for so long is dead: seconds.
SILENCE = 600
# One boot altogether: seconds.
BOOT_TIME = 1200

PACKAGES = [
    "systemd", "systemd-sysv", "libpam-systemd", "udev", "kmod", "procps", "linux-image-cloud-amd64",
    "dbus", "dbus-broker", "dbus-user-session", "polkitd",
    # What the package depends on: the machine has no network to fetch it from.
    "libgomp1", "libstdc++6",
    # What the script inside needs.
    "python3", "curl",
]
# Services of the distribution that cost a minute of emulation and that no promise is about.
NOT_STARTED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
               "fstrim.timer", "systemd-tmpfiles-clean.timer", "systemd-networkd-wait-online.service", "getty@tty1.service"]


class Machine:
    """What is booted: a distribution's release, and one boot after the other, each with its memory; kernel options, and a CPU."""

    def __init__(self, release, boots, options="", cpu="max"):
        self.release, self.boots, self.options, self.cpu = release, boots, options, cpu


MACHINES = {
    # The second boot has the memory of the smallest board, and the other message bus.
    "debian-12": Machine("bookworm", [("first", 2048), ("second", 512)]),
    "debian-13": Machine("trixie", [("first", 2048), ("second", 512)]),
    # Memory that runs out on a machine with more of it.
    "debian-12-memory": Machine("bookworm", [("memory", 2048)]),
    # A CPU without AVX, for which a package with kernels for each kind of CPU has some.
    "debian-12-old-cpu": Machine("bookworm", [("old", 2048)], cpu="Nehalem"),
    # A kernel without Landlock: seccomp alone confines the worker.
    "debian-12-without-landlock": Machine("bookworm", [("first", 2048)], "lsm=lockdown,yama,apparmor"),
}


def skip(reason):
    print(f"skipped: {reason}", flush=True)
    if listed := os.environ.get("GEMMAD_SKIPPED"):
        with open(listed, "a") as lines:
            lines.write(f"  whole machines (make vm-test): {reason}\n")
    sys.exit(SKIPPED)


def base(release):
    """The folder with a release's root file system, kernel and initrd; made when it is not there."""
    script = (HERE / "run-promises.service").read_text()
    named = hashlib.sha256(" ".join([release, script, *PACKAGES, *NOT_STARTED]).encode()).hexdigest()[:12]
    folder = CACHE / f"{release}-{named}"
    if folder.is_dir():
        return folder
    if not shutil.which("mmdebstrap"):
        skip("mmdebstrap is not installed")
    for old in CACHE.glob(f"{release}-*"):
        shutil.rmtree(old)
    CACHE.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(f"making the root file system of {release}", flush=True)
    made = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        hooks = [
            f"upload {HERE}/run-promises.service /etc/systemd/system/run-promises.service",
            'chroot "$1" systemctl enable run-promises.service',
            'chroot "$1" systemctl mask ' + " ".join(NOT_STARTED),
            'echo machine > "$1"/etc/hostname',
            'echo "/dev/vda / ext4 defaults,noatime 0 0" > "$1"/etc/fstab',
        ]
        run_as_root = [] if os.geteuid() == 0 else ["sudo"]
        root = made / "root"
        commands = [
            ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet",
             f"--include={','.join(PACKAGES)}", *[f"--customize-hook={hook}" for hook in hooks], release, root],
            ["cp", "-L", root / "vmlinuz", root / "initrd.img", made],
            ["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, made / "root.img", "3G"],
            ["rm", "-r", root],
            ["chown", "-R", f"{os.geteuid()}:{os.getegid()}", made],
        ]
        for command in commands:
            done = subprocess.run([*run_as_root, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                print(done.stdout, file=sys.stderr)
                skip(f"{command[0]} cannot make {release} here (is its package mirror reached?)")
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    print(f"made in {time.monotonic() - started:.0f} s", flush=True)
    return folder


def packages(programs, folder):
    """The package that is installed, and the one that it is upgraded to."""
    making = [subprocess.Popen([PROJECT / "cross/deb.sh", programs, folder / name, *version], stdout=subprocess.DEVNULL,
                               env={**os.environ, "COMPRESSION": "-Zgzip -z1"})
              for name, version in [("package", []), ("newer", [NEWER])]]
    if any([process.wait() for process in making]):
        raise SystemExit("the package cannot be made")
    # With another sample of the configuration.
    [newer] = (folder / "newer").iterdir()
    subprocess.run(["dpkg-deb", "-R", newer, folder / "unpacked"], check=True)
    with (folder / "unpacked/etc/gemmad/gemmad.toml").open("a") as sample:
        sample.write("# A newer sample.\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", folder / "unpacked", newer], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder / "unpacked")


def product(programs, debs, folder):
    """The second disk: a tar file of the package, of the checkout's files that the promises need, and of the tests."""
    tree = folder / "product"
    for name in ["package", "newer"]:
        shutil.copytree(debs / name, tree / name)
    # Where the tests of their own look for the programs.
    (tree / "build").mkdir()
    for name in ["gemmad", "gemmad-worker", "gemmactl"]:
        (tree / "build" / name).symlink_to(f"/usr/bin/{name}")
    for name in ["tests/hub.py", "models/tiny", "tests/data/pictures", "tests/data/sounds"]:
        source, copy = PROJECT / name, tree / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    shutil.copy(HERE / "promises.py", tree)
    # Tests of their own, for which the checkout and the programs must be where they were compiled.
    (tree / "tests").mkdir()
    for name in ["pressure", "packed"]:
        built = [file for file in (programs / "deps").glob(f"{name}-*") if not file.suffix and os.access(file, os.X_OK)]
        if not built:
            raise SystemExit(f"the test {name} is not built; `make vm-test` does that")
        subprocess.run(["strip", "--strip-debug", "-o", tree / "tests" / name, max(built, key=lambda file: file.stat().st_mtime)], check=True)
    (tree / "tests/paths.json").write_text(json.dumps({str(PROJECT): "source", str(programs.resolve()): "build"}))
    disk = folder / "product.tar"
    subprocess.run(["tar", "-cf", disk, "--owner=0", "--group=0", "-C", tree, "."], check=True)
    return disk


def boot(machine, name, memory, root, disk, files, folder, only):
    """One boot. Returns what the script inside said."""
    reports, console = folder / f"{name}.reports", folder / f"{name}.console"
    reports.touch()
    options = f"root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 promises={name} promises.only={only} {machine.options}"
    # `thread=multi`: a host thread for each virtual CPU. The CPU `max`: all that the emulator can do, which is x86-64-v3.
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", machine.cpu, "-smp", "2", "-m", str(memory),
               "-nodefaults", "-nographic", "-no-reboot", "-nic", "none",
               "-kernel", files / "vmlinuz", "-initrd", files / "initrd.img", "-append", options,
               "-drive", f"file={root},if=virtio,format=raw,cache=unsafe", "-drive", f"file={disk},if=virtio,format=raw,readonly=on",
               "-serial", f"file:{console}", "-serial", f"file:{reports}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaints = []
    threading.Thread(target=lambda: complaints.extend(process.stderr), daemon=True).start()
    found, started, heard = [], time.monotonic(), time.monotonic()
    with reports.open(errors="replace") as lines:
        text = ""
        while True:
            ended = process.poll() is not None
            new = lines.read()
            if new:
                heard, text = time.monotonic(), text + new
                *whole, text = text.split("\n")
                for line in filter(str.strip, whole):
                    try:
                        found.append(json.loads(line))
                    except ValueError:
                        print(f"  ({line.strip()})", flush=True)
                        continue
                    show(found[-1])
            elif ended:
                break
            if time.monotonic() - heard > SILENCE or time.monotonic() - started > BOOT_TIME:
                print(f"FAIL  the machine says nothing any more ({name} boot); its console ends in", flush=True)
                process.kill()
                for line in console.read_text(errors="replace").splitlines()[-15:]:
                    print(f"      | {line}", flush=True)
            if not new:
                time.sleep(0.2)
    for line in complaints:
        print(f"      qemu: {line.decode(errors='replace').rstrip()}", flush=True)
    print(f"      {name} boot: {time.monotonic() - started:.0f} s from power-on to power-off", flush=True)
    return found


def show(report):
    print(f"{'ok  ' if report['kept'] else 'FAIL'}  {report['promise']} ({report['seconds']:.1f} s)", flush=True)
    if not report["kept"]:
        for line in report["detail"].splitlines():
            print(f"      | {line}", flush=True)


def judge(name, programs, debs, keep, only):
    """Boots a machine as often as it is to be. Returns how many promises were kept and how many were not."""
    machine = MACHINES[name]
    files = base(machine.release)
    kept = broken = 0
    folder = Path(tempfile.mkdtemp(prefix="gemmad-vm-"))
    try:
        disk, root = product(programs, debs, folder), folder / "root.img"
        # With holes, so it takes what is in use; the machine makes its file system as large as the disk.
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", files / "root.img", root], check=True)
        os.truncate(root, 6 << 30)
        for which, memory in machine.boots[:1] if only else machine.boots:
            print(f"--- {name}, {which} boot, {memory} MB", flush=True)
            found = boot(machine, which, memory, root, disk, files, folder, only)
            said = {report["promise"]: report["kept"] for report in found}
            expected = [promises.title(function) for _, function, _ in promises.of(which, only)]
            for promise in expected:
                if promise not in said:
                    print(f"FAIL  {promise} (the machine never came to it)", flush=True)
            good = sum(said.get(promise, False) for promise in expected)
            kept, broken = kept + good, broken + len(expected) - good
            if len(said) < len(expected):
                break
    finally:
        if keep or broken:
            print(f"the consoles are in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return kept, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="the folder with gemmad, gemmad-worker and gemmactl, and the tests")
    parser.add_argument("--packaged", type=Path, help="the folder with the programs of the package, if others: those of `make packages`")
    parser.add_argument("--machine", action="append", choices=[*MACHINES, "all"], help="debian-12 if none is named")
    parser.add_argument("--only", default="", metavar="WORD", help="only promises with this word in their titles, in each machine's first boot")
    parser.add_argument("--keep", action="store_true", help="keep the disks and the consoles")
    args = parser.parse_args()
    if platform.machine() != "x86_64":
        skip("the machines are for programs of x86-64")
    for tool in ["qemu-system-x86_64", "mke2fs", "strip", "dh", "dpkg-deb"]:
        if not (shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")):
            skip(f"{tool} is not installed")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    names = list(MACHINES) if "all" in (args.machine or []) else args.machine or ["debian-12"]
    packaged = args.packaged or args.programs
    variants = list((packaged / "../lib/gemmad").glob("libggml-cpu-*.so"))
    print(f"the package has {len(variants) or 'no'} variants of the kernels: {packaged}", flush=True)
    if not variants and any(MACHINES[name].cpu != "max" for name in names):
        names = [name for name in names if MACHINES[name].cpu == "max"]
        print("without them it runs on no older CPU, so those machines are left out; see `make packages`", flush=True)
        if not names:
            sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="gemmad-debs-") as made:
        packages(packaged, debs := Path(made))
        totals = [judge(name, args.programs, debs, args.keep, args.only) for name in names]
    kept, broken = sum(kept for kept, _ in totals), sum(broken for _, broken in totals)
    print(f"machines: {kept} passed, {broken} failed", flush=True)
    sys.exit(1 if broken or not kept else 0)


if __name__ == "__main__":
    main()
