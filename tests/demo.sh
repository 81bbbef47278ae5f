#!/usr/bin/env bash
# A daemon in a private directory, which fetches the tiny model of this repository from a hub of its own, and a few questions to it.
set -euo pipefail
bin=$1
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'kill "${daemon:-}" "${hub:-}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

mkdir "$dir/models" "$dir/hub"
# In the place of Hugging Face.
cp "$here"/models/tiny/tiny-e2b-*.gguf "$dir/hub"
mkfifo "$dir/port"
python3 "$here/tests/hub.py" "$dir/hub" - > "$dir/port" &
hub=$!
read -r port < "$dir/port"

cat > "$dir/gemmad.toml" <<TOML
[server]
socket = "$dir/api.sock"
[models]
directories = ["$dir/models"]
[memory]
cache-directory = "$dir/cache"
[pull]
hub = "http://127.0.0.1:$port"
proxy = "none"
[inference]
context = 2048
[log]
level = "warn"
TOML

export GEMMAD_SOCKET="$dir/api.sock"
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
run() { say "$@"; "$@"; }

say gemmad --config "$dir/gemmad.toml" "&"
"$bin/gemmad" --config "$dir/gemmad.toml" &
daemon=$!
for _ in $(seq 100); do [ -S "$GEMMAD_SOCKET" ] && break; sleep 0.05; done
PATH="$bin:$PATH"

run gemmactl pull --yes tiny/models:tiny-e2b-q8_0.gguf
run gemmactl models
run gemmactl ask --temperature 0 "What is the capital of France?"
run gemmactl ask --temperature 0 --think --show-thoughts "What is 27 + 48?"
cat > "$dir/person.json" <<'JSON'
{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
  "required": ["name", "age", "city"]}
JSON
cat > "$dir/tools.json" <<'JSON'
[{"name": "set_light", "description": "Turn a light on or off", "parameters": {"type": "object", "properties": {
  "room": {"type": "string", "description": "Name of the room"}, "state": {"type": "string", "enum": ["on", "off"]}},
  "required": ["room", "state"]}}]
JSON
run gemmactl ask --temperature 0 --schema "$dir/person.json" "Write as JSON: Anna is 27 years old and lives in Rome."
run gemmactl ask --temperature 0 --tools "$dir/tools.json" "Turn on the light in the kitchen."
cd "$here"
run gemmactl ask --temperature 0 --image tests/data/pictures/red-circle.png "What is in the picture?"
run gemmactl status
run gemmactl memory

cat <<HINT

That was a model of 1.9 million parameters, made for tests: it knows little more than what was asked here.
For real answers install gemmad (sudo make install), and fetch a Gemma 4 that fits this machine:
  sudo gemmactl pull
HINT
