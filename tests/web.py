"""A web server for the tests: files that are there, and everything else that a server may do.

    web.py FOLDER [CERTIFICATE]
    web.py FOLDER everywhere

serves on a free port of 127.0.0.1 and prints its number; CERTIFICATE is a PEM file with its key in it. `everywhere` is port 80
of all addresses. `/asked` says how many other requests there were.
"""

import http.server
import pathlib
import socket
import ssl
import sys
import time

FOLDER = pathlib.Path(sys.argv[1])
MOVED = {"/moved": "red-circle.png", "/round": "/round", "/inward": "http://10.255.255.1/", "/nowhere": "file:///etc/passwd"}
asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global asked
        if self.path == "/asked":
            return self.whole(str(asked).encode())
        asked += 1
        file = FOLDER / self.path.lstrip("/")
        if self.path in MOVED:
            self.send_response(302)
            self.send_header("Location", MOVED[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/page.html":
            self.whole(b"<p>Hello")
        elif self.path == "/large":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 30))
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        elif self.path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            time.sleep(60)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"\x89PNG")
            self.close_connection = True
        elif self.path == "/garbage":
            self.wfile.write(b"\0\xff\x1b[31m" * 50)
            self.close_connection = True
        elif file.is_file():
            self.whole(file.read_bytes())
        else:
            self.send_error(404)

    def whole(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if sys.argv[2:] == ["everywhere"] else socket.AF_INET


server = Server(("::", 80) if Server.address_family == socket.AF_INET6 else ("127.0.0.1", 0), Handler)
server.daemon_threads = True
server.handle_error = lambda *_: None
if Server.address_family == socket.AF_INET and len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
