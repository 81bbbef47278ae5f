#!/bin/sh
# The API with nothing but curl: sh curl.sh [SOCKET]
set -e
socket=${1:-/run/gemmad/api.sock}
ask() { curl -sS --fail-with-body --unix-socket "$socket" "http://localhost$1" -d "$2"; }

ask /v1/chat/completions '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
echo
ask /v1/responses '{"input": "What is the capital of France?", "temperature": 0}'
echo
# As it comes; -N keeps curl from holding it back.
curl -sSN --fail-with-body --unix-socket "$socket" http://localhost/v1/messages -d \
  '{"max_tokens": 50, "stream": true, "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
curl -sS --fail-with-body --unix-socket "$socket" http://localhost/openapi.json
