"""The Messages API with the `anthropic` package.

    pip install anthropic httpx2
    python anthropic_messages.py [SOCKET]
"""

import sys

import anthropic
import httpx2

socket = sys.argv[1] if len(sys.argv) > 1 else "/run/gemmad/api.sock"
client = anthropic.Anthropic(
    base_url="http://localhost",
    api_key="none",
    http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=socket), timeout=600),
)

question = [{"role": "user", "content": "What is the capital of France?"}]
message = client.messages.create(model="auto", max_tokens=200, messages=question, extra_body={"top_k": 1})
print(message.content[0].text)

with client.messages.stream(model="auto", max_tokens=200, messages=question, extra_body={"top_k": 1}) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
