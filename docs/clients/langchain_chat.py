"""LangChain's ChatOpenAI over the socket.

    pip install langchain-openai httpx
    python langchain_chat.py [SOCKET]
"""

import sys

import pydantic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

try:
    import httpx2 as httpx  # what newer releases of openai speak HTTP with
except ImportError:
    import httpx

socket = sys.argv[1] if len(sys.argv) > 1 else "/run/gemmad/api.sock"
model = ChatOpenAI(
    base_url="http://localhost/v1",
    api_key="none",
    model="auto",
    temperature=0,
    http_client=httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=600),
)

print(model.invoke("What is the capital of France?").content)
for chunk in model.stream("What is the capital of France?"):
    print(chunk.content, end="", flush=True)
print()


@tool
def set_light(room: str, state: str) -> str:
    """Turn a light on or off"""
    return f"{room} {state}"


for call in model.bind_tools([set_light]).invoke("Turn on the light in the kitchen.").tool_calls:
    print(call["name"], set_light.invoke(call["args"]))


class Person(pydantic.BaseModel):
    """Somebody of whom the text tells"""

    name: str
    age: int


person = model.with_structured_output(Person).invoke("Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.")
print(person.name, person.age)
