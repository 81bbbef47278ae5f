#!/usr/bin/env python3
"""Writes docs/third-party-licences.txt: what is built into gemmad's programs and is not gemmad's own.

    third-party-licences.py [--check]

The crates are those that `cargo metadata` names for Linux on x86-64 (those of the other platforms are among them),
without what only builds or tests gemmad; their licences are read from their sources, which must be there (`cargo fetch`). What a crate brings of other
origin is listed in NATIVE. With --check nothing is written; exit status 1 says that the file is out of date.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LIST = PROJECT / "docs/third-party-licences.txt"
HEAD = """\
What is built into gemmad's programs and is not gemmad's own, with its licences. `make licences` writes this file.

A crate that may be used under Apache-2.0, among others, is used under it; the text is in the file LICENSE. The texts
of all other licences, and notices, follow the list.

"""
# Sources in other languages that are compiled into the programs: the crate they come with, their name, their licence, and
# the file that has its text, below the crate's folder (None: the sources put it into the public domain).
NATIVE = [
    ("llama-cpp-sys-2", "llama.cpp, with ggml and mtmd", "MIT", "llama.cpp/LICENSE"),
    ("llama-cpp-sys-2", "miniaudio (in mtmd)", "Unlicense OR MIT-0", None),
    ("llama-cpp-sys-2", "stb_image (in mtmd)", "MIT OR Unlicense", None),
]
TEXTS = re.compile(r"(licen[cs]e|copying|copyright|unlicense)", re.IGNORECASE)
NOTICE = re.compile(r"notice", re.IGNORECASE)


def packages():
    """What is linked into the programs, by name and version."""
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--offline", "--format-version=1",
               "--filter-platform=x86_64-unknown-linux-gnu"]
    graph = json.loads(subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout)
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    of = {package["id"]: package for package in graph["packages"]}
    is_macro = lambda id: all("proc-macro" in target["kind"] or "custom-build" in target["kind"]
                              for target in of[id]["targets"] if target["kind"] not in (["test"], ["bench"], ["example"]))
    found, ahead = set(), [graph["resolve"]["root"]]
    while ahead:
        for dependency in nodes[ahead.pop()]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            # A macro runs while gemmad is compiled, and is not in it.
            if is_linked and dependency["pkg"] not in found and not is_macro(dependency["pkg"]):
                found.add(dependency["pkg"])
                ahead.append(dependency["pkg"])
    return sorted((of[id] for id in found), key=lambda package: (package["name"], package["version"]))


def is_apache(expression):
    """Whether Apache-2.0 is one of the licences to choose from."""
    return any(part.strip(" ()") == "Apache-2.0" for part in re.split(r" OR |/", expression)) and " AND " not in expression


def files(folder, pattern):
    there = [path for path in folder.iterdir() if path.is_file() and pattern.search(path.name)]
    for inside in ("LICENSES", "licenses"):
        if (folder / inside).is_dir() and pattern is TEXTS:
            there += [path for path in (folder / inside).iterdir() if path.is_file()]
    return sorted(there)


def collect():
    lines, texts = [], {}

    def text(path, user):
        words = path.read_text(errors="replace").replace("\r\n", "\n").strip("\n")
        words = "\n".join(line.rstrip() for line in words.split("\n"))
        users = texts.setdefault(" ".join(words.split()), (words, []))[1]
        if user not in users:
            users.append(user)

    for package in packages():
        name, folder = f"{package['name']} {package['version']}", Path(package["manifest_path"]).parent
        expression = package["license"] or "see its text"
        lines.append((name, expression, package["repository"] or package["homepage"] or ""))
        if not is_apache(expression):
            for path in files(folder, TEXTS):
                text(path, name)
        for path in files(folder, NOTICE):
            text(path, name)
        for crate, native, licence, file in NATIVE:
            if crate == package["name"]:
                lines.append((f"  {native}", licence, ""))
                if file:
                    text(folder / file, native)
    width, wide = (max(len(line[column]) for line in lines) for column in (0, 1))
    listed = "".join(f"{name:{width}}  {licence:{wide}}  {home}".rstrip() + "\n" for name, licence, home in lines)
    rule = "-" * 100
    blocks = [f"\n{rule}\n{', '.join(users)}:\n\n{words}\n" for words, users in texts.values()]
    return HEAD + listed + "".join(blocks)


def main():
    text = collect()
    if "--check" in sys.argv[1:]:
        if not LIST.exists() or LIST.read_text() != text:
            sys.exit(f"{LIST.relative_to(PROJECT)} is out of date; run `make licences`")
    else:
        LIST.write_text(text)


main()
