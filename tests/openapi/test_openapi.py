"""What /openapi.json says holds.

Schemathesis makes requests of the description, and some that it forbids. Whatever it sends, the daemon must not fail, and
what it answers must be as described.
"""

import os
import socket
import socketserver
import subprocess
import sys
import threading

SOCKET = os.environ["GEMMAD_SOCKET"]
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
SECONDS = 45


class Bridge(socketserver.BaseRequestHandler):
    """Schemathesis speaks TCP only."""

    def handle(self):
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(SOCKET)
            threading.Thread(target=self.pour, args=(daemon, self.request), daemon=True).start()
            self.pour(self.request, daemon)

    @staticmethod
    def pour(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of them has hung up


class Bridges(socketserver.ThreadingTCPServer):
    daemon_threads = True


def test_no_request_finds_a_hole(tmp_path):
    with Bridges(("127.0.0.1", 0), Bridge) as bridges:
        threading.Thread(target=bridges.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{bridges.server_address[1]}"
        run = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{base}/openapi.json", "--url", base,
                "--checks", ",".join(CHECKS), "--max-time", str(SECONDS), "--max-examples", "20",
                "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
                "--request-timeout", "30", "--warnings", "off", "--seed", "1", "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        bridges.shutdown()
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Operations:" in run.stdout and "No issues found" in run.stdout, run.stdout
