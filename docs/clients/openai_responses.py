"""The Responses API with the `openai` package: a stream, and a conversation that the daemon keeps.

    pip install openai httpx2
    python openai_responses.py [SOCKET]
"""

import sys

import httpx2
import openai
import pydantic

socket = sys.argv[1] if len(sys.argv) > 1 else "/run/gemmad/api.sock"
client = openai.OpenAI(
    base_url="http://localhost/v1",
    api_key="none",
    http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=socket), timeout=600),
)

with client.responses.stream(model="auto", input="What is the capital of France?", temperature=0) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
print()



class Person(pydantic.BaseModel):
    name: str
    age: int


extract = "Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome."
person = client.responses.parse(model="auto", input=extract, temperature=0, text_format=Person).output_parsed
print(person.name, person.age)

# Nothing is kept unless `store` says so; what is kept is forgotten after an hour, or when it is deleted.
first = client.responses.create(model="auto", input="My name is Anna.", temperature=0, store=True)
second = client.responses.create(model="auto", input="What is my name?", temperature=0, previous_response_id=first.id)
print(second.output_text)
client.responses.delete(first.id)
