"""Chat with the `openai` package: a whole answer, a streamed one, a function.

    pip install openai httpx2
    python openai_chat.py [SOCKET]
"""

import json
import sys

import httpx2
import openai

socket = sys.argv[1] if len(sys.argv) > 1 else "/run/gemmad/api.sock"
client = openai.OpenAI(
    base_url="http://localhost/v1",
    api_key="none",  # the socket knows who calls
    http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=socket), timeout=600),
)

question = [{"role": "user", "content": "What is the capital of France?"}]
answer = client.chat.completions.create(model="auto", messages=question, temperature=0)
print(answer.choices[0].message.content)

for chunk in client.chat.completions.create(model="auto", messages=question, temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

tools = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "description": "Turn a light on or off",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "description": "Name of the room"},
                    "state": {"type": "string", "description": "on or off", "enum": ["on", "off"]},
                },
                "required": ["room", "state"],
            },
        },
    }
]
messages = [{"role": "user", "content": "Turn on the light in the kitchen."}]
message = client.chat.completions.create(model="auto", messages=messages, tools=tools, temperature=0).choices[0].message
messages.append(message.model_dump())
for call in message.tool_calls:
    arguments = json.loads(call.function.arguments)
    print(call.function.name, arguments["room"], arguments["state"])
    messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'})
answer = client.chat.completions.create(model="auto", messages=messages, tools=tools, temperature=0)
print(answer.choices[0].message.content)
