"""A server for the tests of `gemmactl pull`: a hub with TLS, a host that it moves files to, and all that servers do wrong.

    hub.py FOLDER CERTIFICATE

Serves every *.gguf of FOLDER in the repository tiny/models on a free port of `localhost`, moved to 127.0.0.1 as hubs do, and plainly
under /files/. CERTIFICATE is a PEM file with its key in it; `-`: without TLS. Prints its port. What it does wrong is set by `POST /behave` with
JSON, and `GET /seen` tells what it was asked for.

    refuse: [status, times, retry_after]   answers the next requests for bytes so
    cut: bytes                             breaks each connection off after so many
    slow: [bytes, seconds]                 sends so many bytes and then nothing for so long, once
    flip: position                         sends another byte there
    short: bytes                           claims to have fewer
    no_ranges: true                        knows no ranges
    gated: token                           wants a token
    pace: seconds                          rests so long between pieces of 64 KiB
    etag: text                             what it calls the state of its files
    etags: true                            calls it differently each time
    most: connections                      sends over so many at the same time, and answers others with 429
    whole: true                            sends the whole file, whatever part of it is wanted, but for its beginning
    other: bytes                           sends what is so much further on than what is wanted
"""

import functools
import hashlib
import http.server
import json
import pathlib
import ssl
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

FOLDER, CERTIFICATE = pathlib.Path(sys.argv[1]), sys.argv[2]
SCHEME = "http" if CERTIFICATE == "-" else "https"
COMMIT = "c0ffee" + "0" * 34
PIECE = 64 << 10
behaviour, seen, lock, sending = {}, [], threading.Lock(), set()


@functools.cache
def digest_of_state(path, _size, _time):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(path):
    state = path.stat()
    return digest_of_state(path, state.st_size, state.st_mtime_ns)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with lock:
            behaviour.clear()
            behaviour.update(json.loads(body))
            seen.clear()
        self.whole(b"{}")

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path == "/seen":
            with lock:
                return self.whole(json.dumps(seen).encode())
        with lock:
            host = self.headers.get("Host", "").split(":")[0]
            asked = {"beside": len(sending), "path": path, "host": host, "range": self.headers.get("Range"), "token": self.headers.get("Authorization")}
            seen.append(asked)
        gated = behaviour.get("gated")
        if gated and not path.startswith("/cdn/") and self.headers.get("Authorization") != "Bearer " + gated:
            return self.status(401)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.listing("/".join(parts[2:4]))
        if parts[:2] == ["tiny", "models"] and parts[2:4] == ["resolve", COMMIT]:
            return self.moved(FOLDER / parts[4])
        if parts[0] in ("cdn", "files") and len(parts) == 2 and (FOLDER / parts[1]).is_file():
            try:
                return self.send(FOLDER / parts[1])
            finally:
                with lock:
                    sending.discard(self)
        self.status(404)

    def listing(self, repository):
        files = {"tiny/models": sorted(FOLDER.glob("*.gguf")), "tiny/nothing": []}.get(repository)
        if files is None:
            return self.status(404)
        siblings = [{"rfilename": "README.md", "size": 5}]
        for path in files:
            size = path.stat().st_size
            siblings.append({"rfilename": path.name, "size": size, "lfs": {"sha256": digest(path), "size": size, "pointerSize": 134}})
        self.whole(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def moved(self, path):
        if not path.is_file():
            return self.status(404)
        self.send_response(302)
        self.send_header("Location", f"{SCHEME}://127.0.0.1:{server.server_address[1]}/cdn/{path.name}?signed={time.time()}")
        self.send_header("X-Linked-ETag", f'"{digest(path)}"')
        self.send_header("X-Linked-Size", str(path.stat().st_size))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, path):
        with lock:
            status, times, after = behaviour.get("refuse", [0, 0, None])
            if times:
                behaviour["refuse"] = [status, times - 1, after]
            slow = behaviour.get("slow")
        beginning = (self.headers.get("Range") or "").startswith("bytes=0-65535")
        if times and not beginning:
            return self.status(status, after)
        with lock:
            is_one_too_many = not beginning and len(sending) >= behaviour.get("most", 1000)
            if not is_one_too_many and not beginning:
                sending.add(self)
        if is_one_too_many:
            return self.status(429)
        total = path.stat().st_size - behaviour.get("short", 0)
        start, end = 0, total
        asked = self.headers.get("Range")
        etag = '"%s"' % (time.time() if "etags" in behaviour else behaviour.get("etag", "one"))
        condition = self.headers.get("If-Range")
        is_whole = "no_ranges" in behaviour or ("whole" in behaviour and not beginning)
        if asked and not is_whole and ("etags" in behaviour or condition in (None, etag)):
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1, total)
            if start and "other" in behaviour:
                start = min(start + behaviour["other"], total - 1)
            if start >= total:
                return self.status(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        with open(path, "rb") as file:
            file.seek(start)
            data = bytearray(file.read(end - start))
        if start <= behaviour.get("flip", -1) < end:
            data[behaviour["flip"] - start] ^= 1
        sent = 0
        for at in range(0, end - start, PIECE):
            piece = data[at : at + PIECE]
            if not beginning and "cut" in behaviour and sent + len(piece) > behaviour["cut"]:
                self.wfile.write(piece[: behaviour["cut"] - sent])
                self.wfile.flush()
                # Without a word, as when a cable is pulled.
                self.connection.unwrap = lambda: None
                self.close_connection = True
                return
            if slow and not beginning and sent >= slow[0]:
                with lock:
                    behaviour.pop("slow", None)
                time.sleep(slow[1])
                self.close_connection = True
                return
            self.wfile.write(piece)
            sent += len(piece)
            time.sleep(behaviour.get("pace", 0))

    def status(self, status, after=None):
        self.send_response(status)
        if after is not None:
            self.send_header("Retry-After", str(after))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def whole(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass

    def get_request(self):
        connection, address = super().get_request()
        if SCHEME == "http":
            return connection, address
        # The handshake is done by the thread that reads.
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if SCHEME == "https":
    context.load_cert_chain(CERTIFICATE)
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
