"""Ollama's package: pip install ollama httpx && python ollama_chat.py [SOCKET]"""

import sys

import httpx
import ollama

socket = sys.argv[1] if len(sys.argv) > 1 else "/run/gemmad/api.sock"
client = ollama.Client(host="http://localhost", transport=httpx.HTTPTransport(uds=socket), timeout=600)
options = {"temperature": 0}
question = [{"role": "user", "content": "What is the capital of France?"}]

print(client.chat("auto", question, options=options).message.content)
for chunk in client.chat("auto", question, options=options, stream=True):
    print(chunk.message.content, end="", flush=True)
print()


def set_light(room: str, state: str) -> str:
    """Turn a light on or off

    Args:
      room: Name of the room
      state: on or off
    """
    return f"{room} {state}"


messages = [{"role": "user", "content": "Turn on the light in the kitchen."}]
answer = client.chat("auto", messages, tools=[set_light], options=options).message
messages.append(answer)
for call in answer.tool_calls or []:
    print(call.function.name, set_light(**call.function.arguments))
    messages.append({"role": "tool", "tool_name": call.function.name, "content": '{"ok": true}'})
print(client.chat("auto", messages, tools=[set_light], options=options).message.content)
