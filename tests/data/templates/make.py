#!/usr/bin/env python3
"""Makes cases.json: what transformers renders for each shape of a conversation.

    pip install transformers jinja2
    python tests/data/templates/make.py

The templates are Google's canonical ones of 2026-07-09 (Apache-2.0), 31B.jinja of google/gemma-4-31B-it and
E2B.jinja of google/gemma-4-E2B-it, taken from ollama's model/renderers/testdata (commit 8a0016f82). So the cases
also prove that src/gemma/gemma4.jinja, which is both in one, renders the same. (31B-2026-04-10.jinja is an outdated
one for another test: llama.cpp models/templates/google-gemma-4-31B-it.jinja, commit 3fc65063d.)

A case holds a request as an OpenAI client would send it, `thinking`, `small`, and the expected text.
"""

import copy
import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
TEMPLATES = {small: (HERE / name).read_text() for small, name in [(False, "31B.jinja"), (True, "E2B.jinja")]}


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text=None, calls=None, thought=None):
    message = {"role": "assistant"}
    if text is not None:
        message["content"] = text
    if thought is not None:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{name}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    return message


def result(content, call=None, name=None):
    message = {"role": "tool", "content": content}
    if call:
        message["tool_call_id"] = call
    if name:
        message["name"] = name
    return message


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def tool(name, description, parameters=None):
    function = {"name": name, "description": description}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = tool(
    "get_weather",
    "Tells the weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "The city, e.g. \"Köln\""},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "nullable": True},
        },
        "required": ["city"],
    },
)
CLOCK = tool("get_time", "Tells the time.")
EMPTY = tool("ping", "Answers.", {"type": "object", "properties": {}})
NESTED = tool(
    "book.trip-2",
    "Books a trip:\n- flights\n- hotels",
    {
        "type": "object",
        "properties": {
            "Zeta": {"type": "integer", "description": "Upper case sorts with lower case."},
            "alpha": {"type": "number"},
            "traveller": {
                "type": "object",
                "description": "Who travels",
                "properties": {
                    "name": {"type": "string", "description": "Full name"},
                    "age": {"type": "integer", "nullable": True},
                    "address": {
                        "type": "object",
                        "properties": {"street": {"type": "string"}, "zip": {"type": "string", "enum": ["a", "b"]}},
                        "required": ["street"],
                    },
                },
                "required": ["name", "address"],
            },
            "stops": {"type": "array", "description": "Cities on the way", "items": {"type": "string"}},
            "rooms": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"beds": {"type": "integer", "description": "How many"}, "view": {"type": "boolean"}},
                    "required": ["beds"],
                    "minItems": 1,
                    "default": {"beds": 2, "view": True, "note": None, "share": 0.5},
                },
            },
            "mixed": {"type": "array", "items": {"type": ["string", "null"]}},
            "maybe": {"type": ["string", "null"], "description": "A union"},
            "untyped": {"description": "No type at all"},
            "free": {"type": "object"},
            "flag": {"type": "boolean", "description": ""},
            "empty_items": {"type": "array", "items": {}},
            "description": {"type": "string", "description": "A key that is also a keyword"},
            "type": {"type": "string"},
        },
        "required": ["traveller", "alpha"],
    },
)

ODD = {
    "b": "text with \"quotes\", 'single', \\ and\nnew lines",
    "A": 1,
    "a": 2,
    "c": [1, 2.0, -3.25, 1e20, 1e-7, True, False, None, "x", [], {}],
    "d": {"nested": {"deep": [{"k": "v"}]}, "Ärger": "ß😀"},
    "e": 12345678901234567,
    "f": None,
    "g": "",
    "h": 1.0,
    "i": 100000000000000000.0,
    "j": {"two words": 0, "x:y": 0.1},
}

CASES = [
    ("single user", [user("Hi")], {}),
    ("system and user", [system("Be brief."), user("Hi")], {}),
    ("developer", [{"role": "developer", "content": "Be brief."}, user("Hi")], {}),
    ("system parts are joined", [system("One.\nTwo."), user("Hi")], {"parts": {0: ["One.", "Two."]}}),
    ("several turns", [user("Hi"), assistant("Hello!"), user("How are you?"), assistant("Fine."), user("Good.")], {}),
    ("system in the middle", [user("Hi"), assistant("Hello!"), system("Now be rude."), user("Hi again")], {}),
    ("two system messages", [system("One."), system("Two."), user("Hi")], {}),
    ("user parts", [user(parts("Look at this:", "  and this  ", "done"))], {}),
    ("one user part", [user(parts(" one "))], {}),
    ("assistant parts", [user("Hi"), assistant(parts("Hello", " there")), user("Bye")], {}),
    ("white space to trim", [system("  \n sys \n"), user("\n\n  Hi \t\n"), assistant("  Hello \n"), user(" x ")], {}),
    ("inner white space stays", [user("a\n\n\n  b\t\tc   d")], {}),
    ("unicode", [user("Grüße, 世界! 😀 👩‍👩‍👧 \u202eRTL\u202c ‘quotes’ \u00a0nbsp\u00a0"), assistant("„Ja“"), user("é vs e\u0301")], {}),
    ("quotes and braces", [user("{{ bos_token }} {% if x %} {# c #} \"a\" 'b' \\n <b>&amp;</b>")], {}),
    ("thought in history is dropped", [user("Hi"), assistant("Hello!", thought="A greeting."), user("Bye")], {}),
    (
        "thought in old content is dropped",
        [user("Hi"), assistant("<|channel>thought\nA greeting.\n<channel|>Hello!"), user("Bye")],
        {},
    ),
    ("consecutive assistant messages", [user("Hi"), assistant("One."), assistant("Two."), user("Go on")], {}),
    ("consecutive user messages", [user("One."), user("Two.")], {}),
    ("ends with assistant", [user("Hi"), assistant("Hello!")], {}),
    ("one tool", [user("Weather?")], {"tools": [WEATHER]}),
    ("system and tools", [system("Help."), user("Weather?")], {"tools": [WEATHER, CLOCK]}),
    ("tool without parameters", [user("Time?")], {"tools": [CLOCK]}),
    ("tool with empty parameters", [user("Ping?")], {"tools": [EMPTY]}),
    ("nested parameters", [user("Book.")], {"tools": [NESTED, WEATHER, CLOCK, EMPTY]}),
    ("a call is pending", [user("Weather?"), assistant(calls=[("get_weather", {"city": "Köln"})])], {"tools": [WEATHER]}),
    (
        "result by id",
        [user("Weather?"), assistant(calls=[("get_weather", {"city": "Köln"})]), result("12 °C", "call_get_weather_0")],
        {"tools": [WEATHER]},
    ),
    (
        "result by name",
        [user("Weather?"), assistant("", [("get_weather", {"city": "Köln"})]), result("12 °C", name="get_weather")],
        {"tools": [WEATHER]},
    ),
    (
        "result of JSON text",
        [user("Weather?"), assistant(calls=[("get_weather", {})]), result('{"temp": 12, "sky": "grey"}', "call_get_weather_0")],
        {"tools": [WEATHER]},
    ),
    (
        "result in parts",
        [user("Weather?"), assistant(calls=[("get_weather", {})]), result(parts("12 °C", ", grey"), "call_get_weather_0")],
        {"tools": [WEATHER]},
    ),
    (
        "empty result",
        [user("Weather?"), assistant(calls=[("get_weather", {})]), result("", "call_get_weather_0")],
        {"tools": [WEATHER]},
    ),
    (
        "several calls and results, out of order",
        [
            user("Weather and time?"),
            assistant(calls=[("get_weather", {"city": "Bonn", "unit": "celsius"}), ("get_time", {})]),
            result("noon", "call_get_time_1"),
            result("sunny", "call_get_weather_0"),
        ],
        {"tools": [WEATHER, CLOCK]},
    ),
    (
        "answered call and next question",
        [
            user("Weather?"),
            assistant(calls=[("get_weather", {"city": "Köln"})]),
            result("12 °C", "call_get_weather_0"),
            assistant("It is 12 °C."),
            user("Thanks"),
        ],
        {"tools": [WEATHER]},
    ),
    (
        "thought kept inside a tool loop",
        [
            user("Weather?"),
            assistant("", [("get_weather", {"city": "Köln"})], "I need the weather."),
            result("12 °C", "call_get_weather_0"),
            assistant(None, [("get_time", {})], "Now the time.\nYes."),
            result("noon", "call_get_time_0"),
        ],
        {"tools": [WEATHER, CLOCK]},
    ),
    (
        "thought of an old tool loop",
        [
            user("Weather?"),
            assistant("", [("get_weather", {"city": "Köln"})], "I need the weather."),
            result("12 °C", "call_get_weather_0"),
            assistant("12 °C.", thought="Easy."),
            user("And now?"),
        ],
        {"tools": [WEATHER]},
    ),
    (
        "text beside a call",
        [user("Weather?"), assistant("Let me see. ", [("get_weather", {"city": "Köln"})]), result("12 °C", "call_get_weather_0")],
        {"tools": [WEATHER]},
    ),
    ("text beside a pending call", [user("Weather?"), assistant("Let me see.", [("get_weather", {"city": "Köln"})])], {}),
    ("odd arguments", [user("Go."), assistant(calls=[("f", ODD)]), result("ok", "call_f_0")], {}),
    ("call without tools", [user("Go."), assistant(calls=[("f", {})]), result("ok", "call_f_0"), user("And?")], {}),
]


def main():
    out = []
    for name, messages, options in CASES:
        for thinking in (False, True):
            for small in (False, True):
                reference = copy.deepcopy(messages)
                tools = options.get("tools")
                [text], _ = render_jinja_template(
                    [reference],
                    tools=tools,
                    chat_template=TEMPLATES[small],
                    add_generation_prompt=True,
                    enable_thinking=thinking,
                    bos_token="<bos>",
                )
                request = copy.deepcopy(messages)
                for index, texts in options.get("parts", {}).items():
                    request[index]["content"] = parts(*texts)
                out.append(
                    {"name": name, "thinking": thinking, "small": small, "messages": request, "tools": tools or [], "expected": text}
                )
    with open(HERE / "cases.json", "w", encoding="utf-8") as file:
        json.dump(out, file, ensure_ascii=False, indent=1)
        file.write("\n")
    print(len(out), "cases")


if __name__ == "__main__":
    main()
