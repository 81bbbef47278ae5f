"""Conversations as the model reads them."""

from functools import cache

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .corpus import Calls, Sample
from .paths import TEMPLATE


@cache
def template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    return environment.from_string(TEMPLATE.read_text())


def prompt(sample: Sample, small_variant: bool) -> str:
    """Everything up to where the model goes on, with `<bos>`. E2B and E4B are small variants."""
    return template().render(messages=sample.messages, tools=sample.tools, enable_thinking=sample.think,
                             small_variant=small_variant, add_generation_prompt=True, bos_token="<bos>")


def completion(sample: Sample) -> str:
    """What the model should write after `prompt`, with the token that ends it."""
    thought = f"{sample.thought}\n<channel|>" if sample.think else ""
    if sample.think and sample.messages[-1]["role"] != "tool":
        # After a function's result the template has opened the channel itself.
        thought = "<|channel>thought\n" + thought
    if isinstance(sample.answer, str):
        return thought + sample.answer + "<turn|>"
    return thought + calls(sample.answer) + "<|tool_response>"


def calls(made: Calls) -> str:
    return "".join(f"<|tool_call>call:{name}{argument(arguments)}<tool_call|>" for name, arguments in made)


def argument(value: object) -> str:
    """A value in Gemma's notation of calls."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{argument(value[key])}" for key in sorted(value, key=str.lower)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(argument, value)) + "]"
    return str(value)
