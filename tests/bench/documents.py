#!/usr/bin/env python3
"""Read the PDFs of a folder as a request's files and compare what the model would be given with poppler's `pdftotext`.

    documents.py --gemmad P FOLDER [--keep DIR] [--worst 20]

Starts the daemon, sends each file to `/apply-template` (which loads nothing and generates nothing) and takes its text out of the
prompt. Words are what stands between characters that are no letters and no digits, in Unicode's compatibility form. Of
the files in which pdftotext finds five words or more it reports how many of its words are found, the share of files with
95 % and with 80 % of them, the order (the longest common subsequence with pdftotext's own order or with that of its
`-layout`, whichever is closer, as a share of what was found), words that pdftotext does not have, and the time of a page, the
start of the reader included. `--keep` writes each text there. Without pdftotext only sizes and times are reported.
"""
import argparse, base64, collections, pathlib, re, shutil, subprocess, tempfile, time, unicodedata

import bench

MODEL = "tiny-e2b-q8_0"
ENOUGH, MOST = 5, 8000
WORD = re.compile(r"\w+")
LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)")


def words(text):
    return WORD.findall(unicodedata.normalize("NFKC", text).replace("\u00ad", ""))


def common(a, b):
    """Length of the longest common subsequence, a row of bits at a time."""
    places = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        hit = row & places.get(word, 0)
        row = (row + hit | row - hit) & full
    return len(a) - bin(row).count("1")


def poppler(path, *options):
    done = subprocess.run(["pdftotext", *options, "-enc", "UTF-8", path, "-"], capture_output=True, timeout=120)
    return done.stdout.decode(errors="replace")


def ours(server, path):
    data = base64.b64encode(path.read_bytes()).decode()
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}
    begun = time.perf_counter()
    answer = bench.post(server, "/apply-template", {"model": MODEL, "messages": [{"role": "user", "content": [part]}]})
    took = time.perf_counter() - begun
    prompt = answer.get("prompt")
    if prompt is None:
        return None, took, answer.get("error", {}).get("message", "")
    start, end = prompt.find('<file name="a.pdf">'), prompt.rfind("</file>")
    return prompt[start + len('<file name="a.pdf">') : end], took, ""


def compare(theirs, orders, text):
    said = words(LINK.sub(r"\1", text))
    found = sum((collections.Counter(theirs) & collections.Counter(said)).values())
    order = max(common(words(each)[:MOST], said[:MOST]) for each in orders) / min(len(theirs), MOST)
    share = found / len(theirs)
    return share, min(1, order / share) if share else 0, 1 - found / max(1, len(said))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--gemmad", required=True)
    p.add_argument("--keep", type=pathlib.Path)
    p.add_argument("--worst", type=int, default=20)
    a = p.parse_args()
    files = sorted(path for path in a.folder.rglob("*") if path.suffix.lower() == ".pdf")
    a.model, a.slots, a.context, a.threads = None, 1, 4096, 2
    folder = tempfile.TemporaryDirectory()
    a.directory = folder.name
    server, rows, refused, seconds, pages = bench.gemmad(a, load=False), [], [], 0, 0
    has_poppler = shutil.which("pdftotext") is not None
    try:
        for path in files:
            text, took, why = ours(server, path)
            theirs = poppler(path) if has_poppler else ""
            if text is None:
                refused.append((path, why))
                text = ""
            if a.keep:
                a.keep.mkdir(parents=True, exist_ok=True)
                (a.keep / ("__".join(path.relative_to(a.folder).parts) + ".txt")).write_text(text)
            seconds, pages = seconds + took, pages + max(1, theirs.count("\f"), text.count("\n[page "))
            if len(words(theirs)) >= ENOUGH:
                rows.append((*compare(words(theirs), [theirs, poppler(path, "-layout")], text), path))
    finally:
        server.close()
    print(f"{len(files)} files, {len(refused)} refused, {1000 * seconds / max(1, pages):.0f} ms a page")
    for path, why in refused:
        print(f"  refused: {path}: {why}")
    if not rows:
        return print("nothing to compare: pdftotext is not installed or finds no words")
    share = lambda least: 100 * sum(row[0] >= least for row in rows) / len(rows)
    mean = lambda i: sum(row[i] for row in rows) / len(rows)
    print(f"{len(rows)} with {ENOUGH} words or more: >= 95 % of the words in {share(.95):.1f} % of them, >= 80 % in {share(.8):.1f} %")
    print(f"order {mean(1):.3f}, words that pdftotext has not {mean(2):.3f}")
    for found, order, more, path in sorted(rows)[: a.worst]:
        print(f"  {100 * found:5.1f} % order {order:.2f} more {more:.2f}  {path}")


if __name__ == "__main__":
    main()
