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
# The program, where there is a Python that it runs on.
AIDER = os.environ.get("GEMMAD_AIDER")
HERE = pathlib.Path(__file__).parent
KITCHEN = "Turn on the light in the kitchen."
PROMPT = "You operate a home."
LIGHT = "The light in the kitchen is now on."
CPU = "arm64" if platform.machine() == "aarch64" else "x64"
# One that runs for the first time unpacks itself.
PATIENCE = 300


class Daemon(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


# How texts begin that agents add folders, dates and advice to, which lead the tiny model astray.
LONGER = (PROMPT, "You are an agent in the Continue CLI.")


def bare(value):
    """A request with our short prompt in their place."""
    if isinstance(value, str):
        return PROMPT if value.startswith(LONGER) else value
    if isinstance(value, list):
        return [bare(item) for item in value]
    return {name: bare(item) for name, item in value.items()} if isinstance(value, dict) else value


class Bridge(http.server.BaseHTTPRequestHandler):
    """Agents speak TCP only, and do not say at which temperature."""

    def do_POST(self):
        body = bare(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
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
    return lines(log.read_text()) if log.exists() else []


def lines(text):
    """The events among what an agent says."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


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
    kinds = [event.get("item", {}).get("type", event["type"]) for event in lines(done.stdout)]
    assert kinds[-2:] == ["agent_message", "turn.completed"], done.stdout + done.stderr


def test_codex_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    done = codex(tmp_path, base)
    assert "ran out of room in the model's context window" in done.stdout, done.stdout + done.stderr


def claude(folder, base, *options):
    """Claude Code takes the service's address from its environment."""
    binary = MODULES / f"@anthropic-ai/claude-code-linux-{CPU}" / "claude"
    command = [str(binary), "--print", KITCHEN, "--output-format", "stream-json", "--verbose", *options]
    return run(
        command, folder, ANTHROPIC_BASE_URL=base, ANTHROPIC_API_KEY="unused", ANTHROPIC_MODEL="auto", ANTHROPIC_SMALL_FAST_MODEL="auto",
        CLAUDE_CONFIG_DIR=str(folder / "claude"), CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", DISABLE_AUTOUPDATER="1",
        CLAUDE_CODE_MAX_OUTPUT_TOKENS="1000", CLAUDE_CODE_MAX_RETRIES="0",
    )


def result(done):
    """The last line of what it says."""
    said = lines(done.stdout)
    assert said and said[-1]["type"] == "result", done.stdout + done.stderr
    return said[-1]


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


def opencode(folder, base, package="@ai-sdk/openai-compatible", **more):
    """OpenCode reads a configuration where it works, and has packages for the APIs within itself."""
    model = {"name": "Gemma 4", "limit": {"context": 4096, "output": 1000}}
    provider = {"npm": package, "options": {"baseURL": f"{base}/v1", "apiKey": "unused"}, "models": {"auto": model}}
    names = {"model": "gemmad/auto", "small_model": "gemmad/auto"}
    # Otherwise it sums up a prompt that is too long by itself, and tries again and again.
    config = names | {"provider": {"gemmad": provider}, "compaction": {"auto": False}} | more
    (folder / "work").mkdir()
    (folder / "work" / "opencode.json").write_text(json.dumps(config))
    package = "opencode-linux-arm64" if CPU == "arm64" else "opencode-linux-x64-baseline"
    # A title keeps it from asking for one.
    command = [str(MODULES / package / "bin/opencode"), "run", "--format", "json", "--title", "A home", KITCHEN]
    return run(command, folder, OPENCODE_DISABLE_MODELS_FETCH="1", OPENCODE_DISABLE_AUTOUPDATE="1", OPENCODE_DISABLE_LSP_DOWNLOAD="1")


@pytest.mark.parametrize("api", ["openai-compatible", "openai", "anthropic"])
def test_opencode(base, tmp_path, api):
    """By chat, by the Responses and by the Messages API."""
    home = {"type": "local", "command": [sys.executable, str(HERE / "home.py"), str(tmp_path / "calls")]}
    agent = {"mode": "primary", "prompt": PROMPT, "permission": {"*": "deny", "home_*": "allow"}}
    done = opencode(
        tmp_path, base, f"@ai-sdk/{api}", mcp={"home": home}, agent={"home": agent}, default_agent="home",
    )
    assert calls(tmp_path / "calls") == [{"room": "kitchen", "state": "on"}], done.stdout + done.stderr
    kinds = [event["type"] for event in lines(done.stdout)]
    assert kinds == ["step_start", "tool_use", "step_finish", "step_start", "text", "step_finish"], done.stdout + done.stderr


def test_opencode_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    done = opencode(tmp_path, base)
    errors = [event["error"] for event in lines(done.stdout) if event["type"] == "error"]
    assert [error["name"] for error in errors] == ["ContextOverflowError"], done.stdout + done.stderr
    assert "raise [inference] `context`" in errors[0]["data"]["message"], errors


def node(package):
    """The program of a package that the newer Node runs."""
    return [str(MODULES / f"node-linux-{CPU}/bin/node"), str(MODULES / package)]


def pi(folder, base, api, *options):
    """pi keeps its models and its servers of tools in files of a folder."""
    config = folder / "pi"
    config.mkdir()
    # It asks for as many tokens as there is room for, by its own count and less a reserve of 4096.
    model = {"id": "auto", "contextWindow": 16384, "maxTokens": 1000}
    url = base if api == "anthropic-messages" else f"{base}/v1"
    provider = {"baseUrl": url, "api": api, "apiKey": "unused", "models": [model]}
    (config / "models.json").write_text(json.dumps({"providers": {"gemmad": provider}}))
    home = {"command": sys.executable, "args": [str(HERE / "home.py"), str(folder / "calls")], "exposure": "direct"}
    (config / "mcp.json").write_text(json.dumps({"mcpServers": {"home": home}}))
    command = node("@earendil-works/pi-coding-agent/dist/bundle/cli.js") + [
        "--provider", "gemmad", "--model", "auto", "--no-session", "--mode", "json", *options, KITCHEN,
    ]
    return run(command, folder, PI_CODING_AGENT_DIR=str(config), PI_OFFLINE="1", PI_TELEMETRY="0")


def last_message(done):
    messages = [event["message"] for event in lines(done.stdout) if event["type"] == "message_end"]
    assert messages, done.stdout + done.stderr
    return messages[-1]


@pytest.mark.parametrize("api", ["openai-completions", "openai-responses", "anthropic-messages"])
def test_pi(base, tmp_path, api):
    done = pi(tmp_path, base, api, "--system-prompt", PROMPT, "--no-builtin-tools", "--no-extensions", "--extension", "builtin:mcp")
    assert calls(tmp_path / "calls") == [{"room": "kitchen", "state": "on"}], done.stdout + done.stderr
    last = last_message(done)
    # As with Codex, what the tiny model says of it may be wrong.
    assert (last["stopReason"], [part["type"] for part in last["content"]]) == ("stop", ["text"]), last


def test_pi_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    last = last_message(pi(tmp_path, base, "openai-completions", "--append-system-prompt", "Mind the cat. " * 2000))
    assert last["stopReason"] == "error" and "raise [inference] `context`" in last["errorMessage"], last


def test_continue(base, tmp_path):
    """Continue CLI keeps its models and its servers of tools in one file."""
    config = {
        "name": "gemmad", "version": "0.0.1", "schema": "v1",
        "models": [{"name": "Gemma 4", "provider": "openai", "model": "auto", "apiBase": f"{base}/v1", "apiKey": "unused", "roles": ["chat"]}],
        "mcpServers": [{"name": "home", "command": sys.executable, "args": [str(HERE / "home.py"), str(tmp_path / "calls")]}],
    }
    # JSON is YAML.
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = node("@continuedev/cli/dist/cn.js") + ["--config", str(tmp_path / "config.yaml"), "--allow", "set_light"]
    for tool in ["AskQuestion", "Bash", "CheckBackgroundJob", "Checklist", "Edit", "Fetch", "List", "MultiEdit", "Read", "Search", "Skills", "Write"]:
        command += ["--exclude", tool]
    done = run([*command, "--print", KITCHEN], tmp_path, CONTINUE_TELEMETRY_ENABLED="0")
    assert calls(tmp_path / "calls") == [{"room": "kitchen", "state": "on"}], done.stdout + done.stderr
    assert done.returncode == 0 and done.stdout.strip(), done.stdout + done.stderr


def aider(folder, base, *options):
    """aider takes the service's address from its environment. It uses no tools: it reads files out of answers."""
    command = [
        AIDER, "--model", "openai/auto", "--edit-format", "ask", "--no-git", "--map-tokens", "0", "--analytics-disable", "--no-check-update",
        "--no-show-release-notes", "--no-show-model-warnings", "--no-pretty", "--yes-always", *options, "--message", KITCHEN,
    ]
    return run(command, folder, OPENAI_API_BASE=f"{base}/v1", OPENAI_API_KEY="unused", LITELLM_LOCAL_MODEL_COST_MAP="True")


needs_aider = pytest.mark.skipif(not AIDER, reason="aider needs a Python from 3.10 to 3.12")


@needs_aider
@pytest.mark.parametrize("streamed", ["--stream", "--no-stream"])
def test_aider(base, tmp_path, streamed):
    done = aider(tmp_path, base, streamed)
    # Around its own words, the tiny model does not say anything of use.
    assert "Tokens: " in done.stdout and "litellm." not in done.stdout, done.stdout + done.stderr


@needs_aider
def test_aider_is_told_of_a_prompt_that_is_too_long(base, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "long.txt").write_text("Mind the cat.\n" * 2000)
    done = aider(tmp_path, base, "long.txt")
    assert "has hit a token limit" in done.stdout, done.stdout + done.stderr
