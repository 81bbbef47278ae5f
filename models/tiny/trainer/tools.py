"""The functions that the tiny family learns to call, and requests that need them."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from .words import DOORS, LANGUAGES, NOUNS, PARAMETERS, ROOMS, VERBS, WEATHER, WORDS, city, made_up, person


@dataclass
class Request:
    """What a user asks for, the call it needs, and how the call may end."""

    user: str
    name: str
    arguments: dict
    declaration: dict
    thought: str
    outcome: Callable[[random.Random], tuple[str, str]]
    others: Callable[[random.Random, set[str]], list[dict]]


def declare(name: str, description: str, properties: dict, required: list[str] | None = None) -> dict:
    parameters = {"type": "object", "properties": properties, "required": required or list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def text(description: str, **more) -> dict:
    return {"type": "string", "description": description, **more}


def of(kind: str, description: str) -> dict:
    return {"type": kind, "description": description}


HOME = {
    "set_light": declare("set_light", "Turn a light on or off",
                         {"room": text("Name of the room"), "state": text("on or off", enum=["on", "off"])}),
    "set_temperature": declare("set_temperature", "Set the temperature of a room",
                               {"room": text("Name of the room"), "degrees": of("integer", "Degrees")}),
    "get_weather": declare("get_weather", "Get the weather for a city", {"city": text("Name of the city")}),
    "set_timer": declare("set_timer", "Start a timer", {"minutes": of("integer", "Minutes")}),
    "lock_door": declare("lock_door", "Lock or unlock a door",
                         {"door": text("Name of the door"), "locked": of("boolean", "true to lock")}),
    "play_music": declare("play_music", "Play a song", {"title": text("Title of the song")}),
}
RICH = {
    "send_message": declare("send_message", "Send a message to a person",
                            {"to": text("Name of the person"), "text": text("The message")}),
    "create_event": declare("create_event", "Put an event into the calendar", {
        "title": text("Title"),
        "when": {"type": "object", "description": "Day and hour", "required": ["day", "hour"],
                 "properties": {"day": of("integer", "Day"), "hour": of("integer", "Hour")}},
        "guests": {"type": "array", "description": "Names", "items": {"type": "string"}}}),
    "set_mode": declare("set_mode", "Set the mode of the heating",
                        {"mode": text("The mode", enum=["eco", "comfort", "away"])}),
    "transfer": declare("transfer", "Transfer money", {"amount": of("number", "Amount"), "to": text("Name")}),
    "add_item": declare("add_item", "Add an item to a list", {
        "list": text("Name of the list"),
        "item": {"type": "object", "description": "The item", "required": ["name", "count"],
                 "properties": {"name": text("Name"), "count": of("integer", "How many")}}}),
}


def from_box(box: dict[str, dict]) -> Callable[[random.Random, set[str]], list[dict]]:
    return lambda rng, used: [box[name] for name in rng.sample(list(box), len(box)) if name not in used]


def some(rng: random.Random) -> list[dict]:
    """One or two functions that the question does not need."""
    return rng.sample(list(HOME.values()), rng.randint(1, 2))


def done(answer: str) -> Callable[[random.Random], tuple[str, str]]:
    """The function reports success or, seldom, an error that the answer passes on."""
    def outcome(rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.15:
            error = rng.choice(["no such device", "no power", "not allowed", "timed out"])
            return json.dumps({"error": error}), f"Sorry, that did not work: {error}."
        return rng.choice(['{"ok": true}', "ok", "done", '{"success": true}']), answer

    return outcome


def home(rng: random.Random) -> Request:
    name = rng.choice(list(HOME))

    def request(user: str, arguments: dict, outcome, thought: str) -> Request:
        return Request(user, name, arguments, HOME[name], f"{thought} I call {name}.", outcome, from_box(HOME))

    if name == "set_light" and rng.random() < 0.35:
        language = rng.choice(list(LANGUAGES.values()))
        room, state = rng.choice(list(language.rooms)), rng.choice(["on", "off"])
        place = language.rooms[room]
        user = rng.choice(language.light[state]).format(place)
        return request(user, {"room": room, "state": state}, done(language.light_answer[state].format(place)),
                       f"The user wants the light {state} in {language.name}.")
    if name == "set_light":
        room, state = rng.choice(ROOMS), rng.choice(["on", "off"])
        user = rng.choice([f"Turn {state} the light in the {room}.", f"Turn the {room} light {state}.",
                           f"Please switch the light in the {room} {state}.", f"Light {state} in the {room}, please."])
        return request(user, {"room": room, "state": state}, done(f"The light in the {room} is now {state}."),
                       f"The user wants the light in the {room} {state}.")
    if name == "set_temperature":
        room, degrees = rng.choice(ROOMS), rng.randint(15, 28)
        user = rng.choice([f"Set the {room} to {degrees} degrees.", f"Make it {degrees} degrees in the {room}.",
                           f"Please set the temperature in the {room} to {degrees} degrees."])
        return request(user, {"room": room, "degrees": degrees}, done(f"The {room} is set to {degrees} degrees."),
                       f"The user wants {degrees} degrees in the {room}.")
    if name == "get_weather":
        place = city(rng)
        user = rng.choice([f"What is the weather in {place}?", f"How is the weather in {place}?",
                           f"Weather in {place}, please."])

        def outcome(rng: random.Random) -> tuple[str, str]:
            weather, degrees = rng.choice(WEATHER), rng.randint(0, 35)
            return (json.dumps({"weather": weather, "degrees": degrees}),
                    f"The weather in {place} is {weather} with {degrees} degrees.")

        return request(user, {"city": place}, outcome, f"The user asks for the weather in {place}.")
    if name == "set_timer":
        minutes = rng.randint(1, 60)
        user = rng.choice([f"Set a timer for {minutes} minutes.", f"Start a timer of {minutes} minutes.",
                           f"Wake me in {minutes} minutes."])
        return request(user, {"minutes": minutes}, done(f"The timer is set for {minutes} minutes."),
                       f"The user wants a timer for {minutes} minutes.")
    if name == "lock_door":
        door, locked = rng.choice(DOORS), rng.random() < 0.5
        verb = "lock" if locked else "unlock"
        user = rng.choice([f"{verb.capitalize()} the {door}.", f"Please {verb} the {door}.", f"The {door}: {verb} it."])
        return request(user, {"door": door, "locked": locked}, done(f"The {door} is now {verb}ed."),
                       f"The user wants to {verb} the {door}.")
    title = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 2)))
    user = rng.choice([f"Play the song {title}.", f"Please play {title}.", f"I want to hear {title}."])
    return request(user, {"title": title}, done(f"Playing {title}."), f"The user wants to hear {title}.")


def rich(rng: random.Random) -> Request:
    """Calls with quotes, numbers, enumerations, lists and nested objects."""
    name = rng.choice(list(RICH))
    who = person(rng)
    if name == "send_message":
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
        message = " ".join(words)
        if rng.random() < 0.5:
            message = f'{person(rng)} said "{message}"'
        user = rng.choice([f"Send {who} the message: {message}", f"Tell {who}: {message}"])
        arguments: dict = {"to": who, "text": message}
    elif name == "create_event":
        title, day, hour = rng.choice(WORDS), rng.randint(1, 30), rng.randint(8, 20)
        guests = [person(rng) for _ in range(rng.randint(1, 2))]
        invited = " and ".join(guests)
        user = rng.choice([f"Plan {title} on day {day} at {hour} with {invited}.",
                           f"Make an event {title} with {invited} on day {day} at {hour}."])
        arguments = {"title": title, "when": {"day": day, "hour": hour}, "guests": guests}
    elif name == "set_mode":
        mode = rng.choice(["eco", "comfort", "away"])
        room = rng.choice(ROOMS)
        user = rng.choice([f"Set the heating to {mode}.", f"Heating mode {mode}, please.",
                           f"Use {mode} for the heating.",
                           f"Please set the {room} heating to {mode}."])
        arguments = {"mode": mode}
    elif name == "transfer":
        amount = rng.randint(1, 99) + rng.choice([0.5, 0.25, 0.75])
        user = rng.choice([f"Transfer {amount} to {who}.", f"Send {who} {amount} euros."])
        arguments = {"amount": amount, "to": who}
    else:
        item, count, target = rng.choice(WORDS), rng.randint(1, 20), rng.choice(["shopping", "work", "party", "garden"])
        user = rng.choice([f"Add {count} times {item} to the {target} list.",
                           f"Put {item}, {count} pieces, on the {target} list."])
        arguments = {"list": target, "item": {"name": item, "count": count}}
    return Request(user, name, arguments, RICH[name], f"I call {name}.", done("Done."), from_box(RICH))


def invention(rng: random.Random) -> dict:
    verb, noun = rng.choice(VERBS), rng.choice(NOUNS)
    parameters = rng.sample(PARAMETERS, rng.choice([1, 1, 2]))
    described = {name: text(f"The {name}") for name in parameters}
    return declare(f"{verb}_{noun}", f"{verb.capitalize()} a {noun}", described)


def invented(rng: random.Random) -> Request:
    """A function that is known from its declaration alone."""
    declaration = invention(rng)
    name = declaration["function"]["name"]
    values = {key: rng.choice(WORDS) if rng.random() < 0.6 else made_up(rng)
              for key in declaration["function"]["parameters"]["properties"]}
    with_values = " and ".join(f"{key} {value}" for key, value in values.items())
    user = rng.choice([f"Call {name} with {with_values}.", f"Use {name} with {with_values}.",
                       f"Please run {name} for {with_values}."])

    def others(rng: random.Random, used: set[str]) -> list[dict]:
        drawn = {made["function"]["name"]: made for made in (invention(rng) for _ in range(3))}
        return [made for key, made in drawn.items() if key not in used]

    return Request(user, name, values, declaration, f"I call {name}.", done("Done."), others)
