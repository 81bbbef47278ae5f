"""What programs that are too large to run here ask for, in their own words: one turn with a function, streamed."""

import json

KITCHEN = "Turn on the light in the kitchen."
ON = {"room": "kitchen", "state": "on"}


def schema(properties, required=(), **more):
    return {"type": "object", "properties": properties, "required": list(required)} | more


def text(**more):
    return {"type": "string"} | more


LIGHT = schema(
    {"room": text(description="Name of the room"), "state": text(enum=["on", "off"], description="on or off")}, ["room", "state"],
)


# Home Assistant: the Responses API. Its schemas are written by voluptuous-openapi, in the dialect of OpenAPI 3.0.

INTENTS = {
    "HassTurnOn": schema({
        "name": text(), "area": text(), "domain": {"type": "array", "items": text()},
        "device_class": {"type": "array", "items": text(enum=["awning", "blind", "curtain"])},
    }),
    "HassLightSet": schema({"temperature": {"type": "integer", "minimum": 0}, "brightness": {"type": "integer", "minimum": 0, "maximum": 100}}),
    "HassClimateSetTemperature": schema({"temperature": {"type": "number"}, "area": text()}, ["temperature"]),
    "GetLiveContext": schema({}),
    "todo_get_items": schema({"status": text(enum=["needs_action", "all"], default="all")}),
    "script": schema({
        "any": {"anyOf": [text(), {"type": "integer"}], "nullable": True}, "some": text(nullable=True), "name": text(minLength=1, maxLength=20),
        "object": {"type": "object", "additionalProperties": True}, "numbers": {"type": "object", "additionalProperties": {"type": "integer"}},
        "match": {"pattern": "^a+$", "type": "string"},
    }, ["any"]),
}


def home_assistant(client, messages, tools, **more):
    """What comes of one request: the items, and what was left out."""
    answer = client.responses.with_raw_response.create(
        model="auto", input=messages, max_output_tokens=900, top_p=1.0, temperature=0, user="01JABC", store=False, stream=True,
        tools=[{"type": "function", "name": name, "parameters": parameters, "description": "Turn a light on or off", "strict": False}
               for name, parameters in tools.items()] + more.pop("hosted", []),
        **more,
    )
    assert "x-gemmad-schema-relaxed" not in answer.headers
    items = [event.item for event in answer.parse() if event.type == "response.output_item.done"]
    return items, answer.headers.get("x-gemmad-ignored")


def test_home_assistant(client):
    messages = [
        {"type": "message", "role": "developer", "content": "You operate a home."},
        {"type": "message", "role": "user", "content": KITCHEN},
    ]
    hosted = [
        {"type": "web_search_preview", "search_context_size": "medium",
         "user_location": {"type": "approximate", "city": "", "region": "", "country": "", "timezone": ""}},
        {"type": "code_interpreter", "container": {"type": "auto"}},
    ]
    more = {
        "hosted": hosted, "reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "medium"}, "service_tier": "auto",
        "include": ["reasoning.encrypted_content", "code_interpreter_call.outputs"],
    }
    items, ignored = home_assistant(client, messages, {"set_light": LIGHT}, **more)
    assert ignored == "tools[1] web_search_preview, tools[2] code_interpreter"
    thought, call = items
    assert (thought.type, json.loads(call.arguments)) == ("reasoning", ON)
    messages += [
        {"type": "reasoning", "id": thought.id, "summary": [], "encrypted_content": thought.encrypted_content},
        {"type": "function_call", "name": call.name, "arguments": call.arguments, "call_id": call.call_id},
        {"type": "function_call_output", "call_id": call.call_id, "output": '{"success": true}'},
    ]
    items, _ = home_assistant(client, messages, {"set_light": LIGHT}, **more)
    assert items[-1].content[0].text == "The light in the kitchen is now on."


def test_the_schemas_of_home_assistant(client):
    messages = [{"type": "message", "role": "user", "content": KITCHEN}]
    items, ignored = home_assistant(client, messages, {"set_light": LIGHT} | INTENTS)
    assert items and ignored is None
    # The structure of a task: a word of the request stands inside the schema.
    person = schema(
        {"name": text(), "age": {"type": ["integer", "null"]}, "city": text()}, ["name", "age", "city"], strict=True, additionalProperties=False,
    )
    answer = client.responses.create(
        model="auto", temperature=0, input="Write as JSON: Anna is 27 years old and lives in Rome.",
        text={"format": {"type": "json_schema", "name": "a_person", "schema": person}},
    )
    assert json.loads(answer.output_text) == {"name": "Anna", "age": 27, "city": "Rome"}


# goose: chats. Its schemas are written by schemars.

SHELL = schema(
    {"command": text(), "timeout_secs": {"type": ["integer", "null"], "format": "uint64", "minimum": 0, "default": None}}, ["command"],
    title="ShellParams", **{"$schema": "http://json-schema.org/draft-07/schema#"},
)
EDITOR = schema(
    {
        "command": {"$ref": "#/$defs/Command"}, "diff": {"anyOf": [{"$ref": "#/$defs/Diff"}, {"type": "null"}]},
        "view_range": {"type": ["array", "null"], "items": {"type": "integer", "format": "int64"}, "minItems": 2, "maxItems": 2},
    },
    ["command"],
    **{"$defs": {
        "Command": {"oneOf": [text(const="view", description="Look at a file"), text(const="write")]},
        "Diff": schema({"old": text()}),
    }},
)


def goose(client, messages, tools):
    functions = [
        {"type": "function", "function": {"name": name, "description": "Turn a light on or off"} | ({"parameters": parameters} if parameters else {})}
        for name, parameters in tools.items()
    ]
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=messages, tools=functions, temperature=0.0, max_tokens=900, stream=True, stream_options={"include_usage": True},
    )
    assert "x-gemmad-schema-relaxed" not in answer.headers
    chunks = list(answer.parse())
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0
    return [chunk.choices[0] for chunk in chunks[:-1]]


def test_goose(client):
    messages = [{"role": "system", "content": "You operate a home."}, {"role": "user", "content": KITCHEN}]
    choices = goose(client, messages, {"home__set_light": LIGHT | {"title": "LightParams"}})
    assert choices[-1].finish_reason == "tool_calls"
    calls = [call.function for choice in choices for call in choice.delta.tool_calls or []]
    arguments = "".join(call.arguments or "" for call in calls)
    assert (calls[0].name, json.loads(arguments)) == ("home__set_light", ON)
    call = {"id": "call_1", "type": "function", "function": {"name": calls[0].name, "arguments": arguments}}
    messages += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": '{"ok": true}', "tool_call_id": "call_1"},
    ]
    many = {"home__set_light": LIGHT, "developer__shell": SHELL, "developer__text_editor": EDITOR, "platform__list": None}
    assert goose(client, messages, many)[-1].finish_reason == "stop"


# lm-evaluation-harness: raw completions of tokens, which the server counts in the words of vLLM.

def test_an_evaluation_harness(http):
    info = http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<bos>", "<eos>")

    def encode(text):
        return http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]

    begin = encode(info["bos_token"])
    whole = http.post("/tokenize", json={"prompt": "What is"}).json()
    assert (whole["tokens"], whole["count"]) == (begin + encode("What is"), 3)
    assert http.post("/detokenize", json={"tokens": encode("What is")}).json()["prompt"] == "What is"

    def rated(context, continuation):
        """How likely the continuation is, and whether it is what the model would say."""
        both = encode(context) + encode(continuation)
        body = {"model": "auto", "prompt": [both], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
        [choice] = http.post("/v1/completions", json=body).json()["choices"]
        told = choice["logprobs"]
        assert len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(both) + 1
        own = slice(len(encode(context)), -1)
        likely = zip(told["token_logprobs"][own], told["top_logprobs"][own])
        return sum(told["token_logprobs"][own]), all(value == max(top.values()) for value, top in likely)

    question = "<|turn>user\nWhat is the capital of France?<turn|>\n<|turn>model\n"
    (right, is_greedy), (wrong, _) = (rated(question, f"The capital of France is {city}.") for city in ["Paris", "Rome"])
    assert right > wrong and is_greedy
    body = {"model": "auto", "prompt": [encode(question)], "max_tokens": 40, "temperature": 0, "stop": ["\n", info["eos_token"]], "seed": 1234}
    [choice] = http.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == "The capital of France is Paris."
