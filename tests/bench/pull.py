"""Measures `gemmactl pull` beside curl: a large file through the loopback, with and without TLS.

    pull.py --gemmad PROGRAM [--gib 4] [--runs 3] [--connections 1 4] [--limit MIB]

Prints, for each number of connections, the seconds that curl takes to download the file (without hashing it) and that the daemon
takes (hashed, synced and published), their ratio, and the most memory that one worker, all of them and the daemon had of their own
meanwhile. They take turns. --limit: what the server sends over each connection, in MiB a second.
"""

import argparse
import http.server
import json
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TINY = PROJECT / "models/tiny/tiny-e2b-q8_0.gguf"
COMMIT = "c0ffee" + "0" * 34
# Nobody says what it hashes to: hashing it here would take as long as what is measured.
REPOSITORY = "bench/models"


def server(path, certificate, limit):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            size = path.stat().st_size
            if self.path.startswith("/api/"):
                return self.whole(json.dumps({"sha": COMMIT, "siblings": [{"rfilename": path.name, "size": size}]}).encode())
            start, end = 0, size
            if asked := self.headers.get("Range"):
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last) + 1, size)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            began, first = time.monotonic(), start
            with open(path, "rb") as file:
                if limit:
                    file.seek(start)
                    while start < end:
                        piece = file.read(min(end - start, 64 << 10))
                        self.wfile.write(piece)
                        start += len(piece)
                        time.sleep(max(0, began + (start - first) / (limit * (1 << 20)) - time.monotonic()))
                elif certificate:
                    file.seek(start)
                    left = end - start
                    while left:
                        piece = file.read(min(left, 1 << 20))
                        self.wfile.write(piece)
                        left -= len(piece)
                else:
                    while start < end:
                        start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

        def whole(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    made = Server(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made.server_address[1]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Connections end in the middle when another one has taken over what they were for."""


def own_memory(pid):
    """Bytes that only this process has."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def children(pid):
    try:
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        return [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


class Daemon:
    def __init__(self, program, folder, hub, trusted, connections):
        folder = folder / f"daemon-{connections}"
        folder.mkdir(exist_ok=True)
        self.models, self.socket = folder / "models", folder / "api.sock"
        config = folder / "gemmad.toml"
        config.write_text(f"""[server]\nsocket = "{self.socket}"\ndbus = "none"\n[models]\ndirectories = ["{self.models}"]\n
[pull]\nhub = "{hub}"\nproxy = "none"\nredirect-to = ["127.0.0.0/8"]\nconnections = {connections}\n[memory]\ncache-directory = "{folder}/cache"\n""")
        env = {**os.environ, "SSL_CERT_FILE": str(trusted)}
        self.process = subprocess.Popen([program, "--config", config], env=env)
        while not self.socket.exists():
            time.sleep(0.01)

    def pull(self, name):
        """Seconds, and bytes of memory at most: of the daemon, of one worker, and of all."""
        shutil.rmtree(self.models, ignore_errors=True)
        most, done = [0, 0, 0], threading.Event()

        def watch():
            while not done.wait(0.02):
                most[0] = max(most[0], own_memory(self.process.pid))
                workers = [*map(own_memory, children(self.process.pid))]
                most[1] = max([most[1], *workers])
                most[2] = max(most[2], sum(workers))

        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.monotonic()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            body = json.dumps({"model": f"{REPOSITORY}:{name}"})
            connection.sendall(f"POST /v1/models/pull HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        seconds = time.monotonic() - begin
        done.set()
        watcher.join()
        assert b'"state":"done"' in answer, answer
        return seconds, *most


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gemmad", required=True)
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--limit", type=float, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        folder = pathlib.Path(folder)
        large = folder / "large-e2b.gguf"
        shutil.copy(TINY, large)
        # Behind the last tensor a file may have what it likes.
        os.truncate(large, int(args.gib * (1 << 30)))
        pair, trusted = folder / "pair.pem", folder / "trusted.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench",
                        "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", pair, "-out", trusted],
                       check=True, capture_output=True)
        pair.write_bytes(pair.read_bytes() + trusted.read_bytes())
        print("| | connections | curl | gemmad | ratio | daemon | a worker | all workers |\n|---|---|---|---|---|---|---|---|")
        for name, certificate in [("http", None), ("https", pair)]:
            hub = f"{name}://localhost:{server(large, certificate, args.limit)}"
            daemons = {count: Daemon(args.gemmad, folder, hub, trusted, count) for count in args.connections}
            curl, own = [], {count: [] for count in args.connections}
            for _ in range(args.runs):
                begin = time.monotonic()
                subprocess.run(["curl", "--silent", "--fail", "--cacert", trusted, "-o", folder / "curl.out", f"{hub}/x"], check=True)
                # The daemon's file is on the disk when it says so; curl's shall be, too.
                with open(folder / "curl.out", "rb") as file:
                    os.fsync(file.fileno())
                curl.append(time.monotonic() - begin)
                os.unlink(folder / "curl.out")
                for count, daemon in daemons.items():
                    own[count].append(daemon.pull(large.name))
                    shutil.rmtree(daemon.models)
            a = statistics.median(curl)
            for count, daemon in daemons.items():
                daemon.process.kill()
                daemon.process.wait()
                daemon.socket.unlink()
                b = statistics.median(run[0] for run in own[count])
                memory = " | ".join(f"{max(run[kind] for run in own[count]) >> 20} MiB" for kind in (1, 2, 3))
                print(f"| {name} | {count} | {a:.1f} s | {b:.1f} s | {a / b:.2f} | {memory} |", flush=True)


main()
