"""Coding agents, as they are, against a running daemon: one turn with a tool, streamed.

The tiny model knows how to turn on a light, if it is not told too much besides, and is sure of it at temperature 0 only,
which the bridge asks for. So each agent gets a short prompt, and a house by the Model Context Protocol (home.py). The
prompts that agents come with are longer than the tiny model's context: then they must understand what they are told.
"""

import http.client
import http.server
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import threading

import pytest

SOCKET = os.environ["GEMMAD_SOCKET"]
MODULES = pathlib.Path(os.environ["GEMMAD_AGENTS"])
HERE = pathlib.Path(__file__).parent
KITCHEN = "Turn on the light in the kitchen."
PROMPT = "You operate a home."
LIGHT = "The light in the kitchen is now on."
# One that runs for the first time unpacks itself.
PATIENCE = 300


class Daemon(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


class Bridge(http.server.BaseHTTPRequestHandler):
    """Agents speak TCP only, and do not say at which temperature."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        daemon = Daemon("localhost")
        daemon.request("POST", self.path, json.dumps(body | {"temperature": 0}), {"Content-Type": "application/json"})
        answer = daemon.getresponse()
        self.send_response(answer.status)
        for name in ["content-type", "request-id", "retry-after", "x-gemmad-ignored"]:
            if value := answer.getheader(name):
                self.send_header(name, value)
        self.end_headers()
        while piece := answer.read1(65536):
            self.wfile.write(piece)

    def log_message(self, *_):
        pass


class Bridges(http.server.ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def base():
    with Bridges(("127.0.0.1", 0), Bridge) as bridges:
        threading.Thread(target=bridges.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{bridges.server_address[1]}"
        bridges.shutdown()


def run(command, folder, **environment):
    """Runs an agent in a home and a folder of its own."""
    home, work = folder / "home", folder / "work"
    home.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    inherited = {name: os.environ[name] for name in ["PATH", "LANG"] if name in os.environ}
    return subprocess.run(
        command, cwd=work, env=inherited | {"HOME": str(home)} | environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE,
    )


def calls(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


CODEX = """
model = "auto"
model_provider = "gemmad"
web_search = "disabled"
approval_policy = "never"
sandbox_mode = "danger-full-access"
{more}
[model_providers.gemmad]
name = "gemmad"
base_url = "{base}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""

SHORT = """
model_instructions_file = "{folder}/prompt.md"
include_environment_context = false
include_permissions_instructions = false
include_apps_instructions = false
[agents]
enabled = false
[features]
goals = false
shell_tool = false
unified_exec = false
[skills]
include_instructions = false
bundled = {{ enabled = false }}
[mcp_servers.home]
command = "{python}"
args = ["{home}", "{folder}/calls"]
default_tools_approval_mode = "approve"
"""


def codex(folder, base, more=""):
    """Codex CLI keeps its configuration in a file."""
    config = folder / "codex"
    config.mkdir()
    (config / "config.toml").write_text(CODEX.format(base=base, more=more))
    command = ["node", str(MODULES / "@openai/codex/bin/codex.js"), "exec", "--json", "--skip-git-repo-check", KITCHEN]
    return run(command, folder, CODEX_HOME=str(config))


def test_codex(base, tmp_path):
    (tmp_path / "prompt.md").write_text(PROMPT)
    done = codex(tmp_path, base, SHORT.format(folder=tmp_path, python=sys.executable, home=HERE / "home.py"))
    assert calls(tmp_path / "calls") == [{"room": "kitchen", "state": "on"}], done.stdout + done.stderr
    # With so many tools around it, the tiny model may say in another language what it did.
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    kinds = [event.get("item", {}).get("type", event["type"]) for event in said]
    assert kinds[-2:] == ["agent_message", "turn.completed"], done.stdout + done.stderr


def test_codex_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    done = codex(tmp_path, base)
    assert "ran out of room in the model's context window" in done.stdout, done.stdout + done.stderr


def claude(folder, base, *options):
    """Claude Code takes the service's address from its environment."""
    binary = MODULES / f"@anthropic-ai/claude-code-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}" / "claude"
    command = [str(binary), "--print", KITCHEN, "--output-format", "stream-json", "--verbose", *options]
    return run(
        command, folder, ANTHROPIC_BASE_URL=base, ANTHROPIC_API_KEY="unused", ANTHROPIC_MODEL="auto", ANTHROPIC_SMALL_FAST_MODEL="auto",
        CLAUDE_CONFIG_DIR=str(folder / "claude"), CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", DISABLE_AUTOUPDATER="1",
        CLAUDE_CODE_MAX_OUTPUT_TOKENS="1000", CLAUDE_CODE_MAX_RETRIES="0",
    )


def result(done):
    """The last line of what it says."""
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines and lines[-1]["type"] == "result", done.stdout + done.stderr
    return lines[-1]


def test_claude_code(base, tmp_path):
    home = {"command": sys.executable, "args": [str(HERE / "home.py"), str(tmp_path / "calls")]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"home": home}}))
    done = claude(
        tmp_path, base, "--bare", "--tools", "", "--system-prompt", PROMPT, "--strict-mcp-config",
        "--mcp-config", str(tmp_path / "mcp.json"), "--allowedTools", "mcp__home__set_light",
    )
    assert calls(tmp_path / "calls") == [{"room": "kitchen", "state": "on"}], done.stdout + done.stderr
    last = result(done)
    assert not last["is_error"] and last["result"].startswith(LIGHT), last


def test_claude_code_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    last = result(claude(tmp_path, base, "--max-turns", "1"))
    assert (last["is_error"], last["terminal_reason"]) == (True, "prompt_too_long"), last
    assert "limit 4096" in last["result"], last
