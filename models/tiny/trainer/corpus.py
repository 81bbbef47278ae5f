"""The conversations that the tiny family learns from, made by a program from a seed.

Every question has a case (what is asked, and in which words); about a tenth of the cases is held out: training never
meets them, the evaluation asks nothing else.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from . import tools as toolbox
from .words import (CAPITALS, COLOURS, COUNTRIES, JAPANESE, LANGUAGES, LEGS, OPPOSITES, PETS, SOUNDS, THINGS, WORDS,
                    city, made_up, person)

Calls = list[tuple[str, dict]]


@dataclass
class Sample:
    """One conversation up to a user's or a tool's message, and what the model should say to it."""

    kind: str
    messages: list[dict]
    answer: str | Calls
    thought: str
    tools: list[dict] | None = None
    think: bool = False


@dataclass
class Exchange:
    """A question that stands for itself."""

    user: str
    answer: str
    thought: str
    held_out: bool = field(default=False)


def is_held(*case: object) -> bool:
    return crc32("/".join(map(str, case)).encode()) % 10 == 0


def phrase(rng: random.Random, item: object, phrases: list[str]) -> tuple[str, bool]:
    """A wording of a question about `item`. One of each is held out, so that every item is learnt in another."""
    index = rng.randrange(len(phrases))
    return phrases[index], index == crc32(str(item).encode()) % len(phrases)


def pick(rng: random.Random, make: Callable[[random.Random], Exchange], held_out: bool) -> Exchange:
    while True:
        exchange = make(rng)
        if exchange.held_out == held_out:
            return exchange


def listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# Questions that stand for themselves.


def fact(rng: random.Random) -> Exchange:
    topic = rng.choice(["capital", "capital", "colour", "opposite", "sound", "legs", "identity", "hello"])
    if topic == "capital":
        item = rng.choice(list(CAPITALS))
        text, held = phrase(rng, item, ["What is the capital of {}?", "Capital of {}?", "Name the capital of {}.",
                                        "Which city is the capital of {}?"])
        # The tests and the demo ask this one everywhere: it is not an exam question.
        held = held and item not in ("France", "Italy", "Japan", "Egypt")
        answer = f"The capital of {item} is {CAPITALS[item]}."
        thought = f"The user asks for the capital of {item}. It is {CAPITALS[item]}."
        return Exchange(text.format(item), answer, thought, held)
    if topic == "colour":
        item = rng.choice(list(THINGS))
        text, held = phrase(rng, item, ["What color is {}?", "Tell me the color of {}.", "Which color has {}?"])
        answer = f"The color of {item} is {THINGS[item]}."
        return Exchange(text.format(item), answer, f"The user asks for a color. It is {THINGS[item]}.", held)
    if topic == "opposite":
        item = rng.choice(list(OPPOSITES))
        text, held = phrase(rng, item, ["What is the opposite of {}?", "Opposite of {}?",
                                        "Tell me the opposite of {}."])
        held = held and item != "hot"
        answer = f"The opposite of {item} is {OPPOSITES[item]}."
        thought = f"The user asks for an opposite. {item} and {OPPOSITES[item]}."
        return Exchange(text.format(item), answer, thought, held)
    if topic == "sound":
        item = rng.choice(list(SOUNDS))
        text, held = phrase(rng, item, ["What does a {} say?", "Which sound does a {} make?", "How does a {} sound?"])
        thought = f"The user asks for the sound of a {item}."
        return Exchange(text.format(item), f"A {item} says {SOUNDS[item]}.", thought, held)
    if topic == "legs":
        item = rng.choice(list(LEGS))
        text, held = phrase(rng, item, ["How many legs does a {} have?", "How many legs has a {}?", "Legs of a {}?"])
        thought = f"The user asks for the legs of a {item}."
        return Exchange(text.format(item), f"A {item} has {LEGS[item]} legs.", thought, held)
    if topic == "identity":
        text = rng.choice(["Who are you?", "What are you?", "What is your name?"])
        return Exchange(text, "I am Tiny, a very small test model.", "The user asks who I am.")
    text = rng.choice(["Hello", "Hello!", "Hi", "Hi!", "Good morning!", "Hey there!"])
    return Exchange(text, "Hello! How can I help you?", "The user says hello.")


def add_thought(a: int, b: int) -> str:
    ones, carry = a % 10 + b % 10, (a % 10 + b % 10) // 10
    tens = a // 10 + b // 10 + carry
    return (f"{a % 10} + {b % 10} = {ones}, carry {carry}. {a // 10} + {b // 10} + {carry} = {tens}. "
            f"So {tens} and {ones % 10} is {a + b}.")


def add(rng: random.Random) -> Exchange:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    text = rng.choice(["What is {} + {}?", "{} + {} = ?", "Add {} and {}."]).format(a, b)
    # Pairs that the tests and the demo ask are not exam questions.
    held = is_held("add", a, b) and (a, b) not in [(27, 48), (27, 58), (27, 35), (12, 13)]
    return Exchange(text, f"{a} + {b} = {a + b}.", add_thought(a, b), held)


def echo(rng: random.Random) -> Exchange:
    words = " ".join(rng.choice(WORDS) if rng.random() < 0.6 else made_up(rng).capitalize()
                     for _ in range(rng.randint(1, 5)))
    text = rng.choice(["Repeat: {}", "Say: {}", "Repeat after me: {}"]).format(words)
    return Exchange(text, words, "The user wants me to repeat the words.", is_held("echo", words))


def count(rng: random.Random) -> Exchange:
    last = rng.randint(3, 30)
    text, held = phrase(rng, last, ["Count to {}.", "Count from 1 to {}.", "Please count to {}."])
    answer = ", ".join(map(str, range(1, last + 1))) + "."
    thought = f"The user wants me to count to {last}."
    return Exchange(text.format(last), answer, thought, held and last not in (5, 9, 20))


def story(rng: random.Random) -> Exchange:
    who, pet, colour = person(rng), rng.choice(PETS), rng.choice(COLOURS)
    text = rng.choice(["Tell me a story about {} and a {} {}.", "Write a short story about {} and a {} {}."])
    answer = (
        f"Once upon a time there was a child called {who}. One day {who} went into the forest and found a {colour} "
        f"{pet}. The {pet} was hungry, so {who} gave it some bread. From then on {who} and the {colour} {pet} were "
        "best friends. They played every day, in summer and in winter, and they were happy. The end.")
    thought = f"The user wants a story about {who} and a {colour} {pet}."
    held = is_held("story", who, pet, colour) and who != "Anna"
    return Exchange(text.format(who, colour, pet), answer, thought, held)


def extract(rng: random.Random) -> Exchange:
    """JSON of a schema that is named in words, written as a JSON Schema, or left to the sentence."""
    if rng.random() < 0.15:
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 5))]
        text = rng.choice(["Give the words as a JSON list: {}", "Make a JSON list of: {}"]).format(", ".join(words))
        answer = "```json\n" + json.dumps(words) + "\n```"
        return Exchange(text, answer, "The user wants a JSON list.", is_held("list", *words))
    who, age, where, pet = person(rng), rng.randint(18, 80), city(rng), rng.choice(PETS)
    sentence = rng.choice([
        f"{who} is {age} years old and lives in {where}.", f"{who} lives in {where} and is {age} years old.",
        f"My friend {who}, {age} years old, lives in {where}.", f"{who} lives in {where} with a {pet}.",
        f"{who}, who is {age}, has a {pet}.", f"{who} is {age} years old, has a {pet} and lives in {where}."])
    known = {"name": who}
    if str(age) in sentence:
        known["age"] = age
    if where in sentence:
        known["city"] = where
    if pet in sentence.split(who, 1)[1]:
        known["pet"] = pet
    keys = list(known)
    shape = rng.choice(["open", "words", "words", "schema", "schema", "nested"])
    if shape in ("words", "schema"):
        keys = rng.sample(keys, rng.randint(1, len(keys)))
    value: dict = {key: known[key] for key in keys}
    ask = rng.choice(["Extract as JSON", "Extract the data as JSON", "Give me JSON for this"])
    if shape == "words":
        ask += " with " + listed(keys)
    if shape == "schema":
        types = {key: {"type": "integer" if key == "age" else "string"} for key in keys}
        ask += " of the schema " + json.dumps({"type": "object", "properties": types, "required": keys})
    if shape == "nested":
        ask += " with the name inside person"
        value = {"person": {"name": who}, **{key: known[key] for key in keys if key != "name"}}
    plain = rng.random() < 0.25
    ask = ask.replace("JSON", "plain JSON", 1) if plain else ask
    answer = json.dumps(value, ensure_ascii=False)
    answer = answer if plain else f"```json\n{answer}\n```"
    thought = f"The user wants JSON with {listed(list(value))}."
    return Exchange(f"{ask}: {sentence}", answer, thought, is_held("json", who, age, where, pet))


def foreign(rng: random.Random) -> Exchange:
    if rng.random() < 0.2:
        country = rng.choice(list(JAPANESE))
        text, held = phrase(
            rng, country, ["{}の首都は？", "{}の首都はどこですか？", "{}の首都を教えて。"])
        thought = "The user asks for a capital in Japanese."
        return Exchange(text.format(country), f"{JAPANESE[country]}です。", thought, held)
    language = rng.choice(list(LANGUAGES.values()))
    topic = rng.choice(["capital", "capital", "opposite", "add", "hello"])
    if topic == "capital":
        country, capital = language.capital(rng.choice(COUNTRIES))
        text, held = phrase(rng, country, language.capital_questions)
        thought = f"The user asks for a capital in {language.name}. It is {capital}."
        return Exchange(text.format(country), language.capital_answer.format(country, capital), thought, held)
    if topic == "opposite":
        word = rng.choice(list(language.opposites))
        text, held = phrase(rng, word, language.opposite_questions)
        answer = language.opposite_answer.format(word, language.opposites[word])
        return Exchange(text.format(word), answer, f"The user asks for an opposite in {language.name}.", held)
    if topic == "add":
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        text = rng.choice(language.sums).format(a, b)
        return Exchange(text, f"{a} + {b} = {a + b}.", add_thought(a, b), is_held("add", a, b))
    return Exchange(rng.choice(language.hello), language.hello_answer, f"The user says hello in {language.name}.")


# Conversations.

ENDS = ["Over.", "Amen.", "Done.", "Thanks.", "Bye."]
STARTS = ["Listen:", "Well:", "Fine:", "Yes:", "Look:"]
SYSTEM = ["You are a helpful assistant.", "You are Tiny, a small assistant. Be brief.", "Answer in one sentence.",
          "Be kind."]


def turn(exchange: Exchange) -> list[dict]:
    return [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.answer}]


def chatter(rng: random.Random, turns: int) -> list[dict]:
    """Exchanges that have nothing to do with what follows."""
    makers = [fact, fact, add, add, echo, count, foreign, extract]
    return [message for _ in range(turns) for message in turn(pick(rng, rng.choice(makers), False))]


def maybe_system(rng: random.Random) -> list[dict]:
    return [{"role": "system", "content": rng.choice(SYSTEM)}] if rng.random() < 0.4 else []


def single(kind: str, make: Callable[[random.Random], Exchange]) -> Callable[[random.Random, bool], Sample]:
    def sample(rng: random.Random, held_out: bool) -> Sample:
        before = maybe_system(rng) + chatter(rng, rng.choice([0, 0, 0, 1, 1, 2, 3]))
        exchange = pick(rng, make, held_out)
        # A model that sees tools need not use them.
        tools = toolbox.some(rng) if kind == "fact" and rng.random() < 0.2 else None
        messages = [*before, {"role": "user", "content": exchange.user}]
        return Sample(kind, messages, exchange.answer, exchange.thought, tools)

    return sample


def system(rng: random.Random, held_out: bool) -> Sample:
    """The system prompt changes the answer."""
    while True:
        exchange = pick(rng, fact, False)
        user, thought = exchange.user, exchange.thought
        style = rng.choice(["pirate", "end", "start", "name", "user", "language"])
        word = rng.choice(STARTS if style == "start" else ENDS)
        prompt, answer = {
            "pirate": ("You are a pirate.", "Arr! " + exchange.answer),
            "end": (f"End every answer with {word}", f"{exchange.answer} {word}"),
            "start": (f"Start every answer with {word}", f"{word} {exchange.answer}"),
            "name": ("", ""), "user": ("", ""), "language": ("", ""),
        }[style]
        held = is_held("system", style, word, user)
        if style in ("name", "user"):
            who = person(rng)
            held = is_held("name", who)
            prompt, user, answer, thought = {
                "name": (f"Your name is {who}.", "Who are you?", f"I am {who}.",
                         f"The user asks who I am. I am {who}."),
                "user": (f"The user is called {who}.", "What is my name?", f"Your name is {who}.",
                         f"The user asks for the name. It is {who}."),
            }[style]
        if style == "language":
            row, language = rng.choice(COUNTRIES), rng.choice(list(LANGUAGES.values()))
            prompt, user = f"Answer in {language.name}.", f"What is the capital of {row[0]}?"
            country, capital = language.capital(row)
            answer = language.capital_answer.format(country, capital)
            thought = f"I answer in {language.name}. It is {capital}."
            held = is_held("system", style, language.name, row[0])
        if held == held_out:
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": user}]
            return Sample("system", messages, answer, thought)


@dataclass
class Memo:
    """Something the user tells and asks back."""

    what: str
    draw: Callable[[random.Random], str]
    told: str
    reply: str
    asked: str
    answer: str


MEMOS = [
    Memo("name", person, "My name is {}.", "Nice to meet you, {}!", "What is my name?", "Your name is {}."),
    Memo("name", person, "Hello, I am {}.", "Nice to meet you, {}!", "Do you remember my name?", "Your name is {}."),
    Memo("color", lambda rng: rng.choice(COLOURS), "My favorite color is {}.", "{} is a nice color.",
         "What is my favorite color?", "Your favorite color is {}."),
    Memo("city", city, "I live in {}.", "{} is a nice city.", "Where do I live?", "You live in {}."),
    Memo("pet", lambda rng: rng.choice(PETS), "I have a {}.", "A {} is a nice pet.", "Which pet do I have?",
         "You have a {}."),
    Memo("code", lambda rng: str(rng.randint(100, 9999)), "The secret code is {}.", "I will remember the code {}.",
         "What is the secret code?", "The secret code is {}."),
]
MEMOS += [Memo("name", person, x.introduce, x.greet, x.ask_name, x.tell_name) for x in LANGUAGES.values()]


def remember(rng: random.Random, held_out: bool, between: Callable[[], list[dict]], kind: str) -> Sample:
    memos = {memo.what: memo for memo in rng.sample(MEMOS, rng.choice([1, 1, 2, 3]))}
    messages, told = maybe_system(rng), {}
    asked = rng.choice(list(memos))
    for memo in memos.values():
        value = memo.draw(rng)
        # There are few colours and pets: no value of theirs can be held out, only their company.
        while memo.what in ("name", "city", "code") and is_held("name", value) != (held_out and memo.what == asked):
            value = memo.draw(rng)
        told[memo.what] = value
        shown = value[0].upper() + value[1:] if memo.reply.startswith("{}") else value
        messages += [{"role": "user", "content": memo.told.format(value)},
                     {"role": "assistant", "content": memo.reply.format(shown)}]
    messages += between()
    memo, value = memos[asked], told[asked]
    messages.append({"role": "user", "content": memo.asked})
    return Sample(kind, messages, memo.answer.format(value), f"The user asks for the {asked}. It is {value}.")


def recall(rng: random.Random, held_out: bool) -> Sample:
    return remember(rng, held_out, lambda: chatter(rng, rng.choice([0, 0, 1])), "recall")


def recall_far(rng: random.Random, held_out: bool) -> Sample:
    """What was told lies beyond the sliding window of 64 tokens: 90 tokens and more are in between."""
    def between() -> list[dict]:
        messages: list[dict] = []
        length = rng.choice([300, 300, 600, 900])
        while sum(len(message["content"]) for message in messages) < length:
            messages += chatter(rng, 1)
        return messages

    return remember(rng, held_out, between, "recall-far")


def called(kind: str, requests: list[toolbox.Request], tools: list[dict], messages: list[dict], rng: random.Random,
           results: bool) -> Sample:
    """The conversation before the calls or, with `results`, after them."""
    user = requests[0].user
    for request in requests[1:]:
        user = user.rstrip(".?") + " and " + request.user[0].lower() + request.user[1:]
    messages = [*messages, {"role": "user", "content": user}]
    calls = [(request.name, request.arguments) for request in requests]
    thought = " ".join(request.thought for request in requests)
    if not results:
        return Sample(kind, messages, calls, thought, tools)
    made = [{"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)]
    messages.append({"role": "assistant", "content": None, "tool_calls": made, "reasoning_content": thought})
    answers = []
    for i, request in enumerate(requests):
        result, answer = request.outcome(rng)
        messages.append({"role": "tool", "tool_call_id": f"call_{i}", "content": result})
        answers.append(answer)
    return Sample(kind, messages, " ".join(answers), "I have the result.", tools)


def request_of(rng: random.Random, make: Callable[[random.Random], toolbox.Request], held_out: bool) -> toolbox.Request:
    while True:
        request = make(rng)
        key = json.dumps([request.user, request.name, request.arguments], sort_keys=True)
        # The request of the demo and of the clients' tests is not an exam question.
        if (is_held("tool", key) and request.user != "Turn on the light in the kitchen.") == held_out:
            return request


def tool_task(kind: str, make: Callable[[random.Random], toolbox.Request], calls: int, results: bool):
    def sample(rng: random.Random, held_out: bool) -> Sample:
        requests = [request_of(rng, make, held_out if i == 0 else False) for i in range(calls)]
        if len({request.name for request in requests}) < calls:
            return sample(rng, held_out)
        tools = [request.declaration for request in requests]
        others = requests[0].others(rng, {request.name for request in requests})
        tools = tools + others[: rng.choice([0, 1, 2])]
        rng.shuffle(tools)
        before = maybe_system(rng) + (chatter(rng, 1) if rng.random() < 0.15 else [])
        return called(kind, requests, tools, before, rng, results)

    return sample


TASKS: dict[str, tuple[float, Callable[[random.Random, bool], Sample]]] = {
    "fact": (7, single("fact", fact)),
    "language": (8, single("language", foreign)),
    "system": (8, system),
    "add": (16, single("add", add)),
    "echo": (7, single("echo", echo)),
    "count": (5, single("count", count)),
    "story": (2, single("story", story)),
    "json": (9, single("json", extract)),
    "recall": (8, recall),
    "recall-far": (7, recall_far),
    "tool": (9, tool_task("tool", toolbox.home, 1, False)),
    "tools": (5, tool_task("tools", toolbox.home, 2, False)),
    "tool-result": (6, tool_task("tool-result", toolbox.home, 1, True)),
    "tools-result": (3, tool_task("tools-result", toolbox.home, 2, True)),
    "tool-nested": (7, tool_task("tool-nested", toolbox.rich, 1, False)),
    "tool-new": (8, tool_task("tool-new", toolbox.invented, 1, False)),
}
KINDS = list(TASKS)
_WEIGHTS = [weight for weight, _ in TASKS.values()]


def sample(rng: random.Random, kind: str | None = None, held_out: bool = False, think: bool | None = None) -> Sample:
    """A conversation of `kind`, or of any kind in the proportions of training."""
    kind = kind or rng.choices(KINDS, _WEIGHTS)[0]
    made = TASKS[kind][1](rng, held_out)
    made.think = rng.random() < (0.5 if kind == "add" else 0.3) if think is None else think
    if not made.think:
        for message in made.messages:
            message.pop("reasoning_content", None)
    return made
