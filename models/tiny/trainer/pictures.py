"""Pictures with a question and its answer: coloured shapes on a light ground, asked about in four languages.

Every picture is exactly 70 soft tokens of 48 x 48 pixels, the fewest llama.cpp allows and the most that
transformers' `max_soft_tokens=70` allows, so that neither resizes it and both see the same pixels.
"""

import math
import random
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw

SOFT_TOKEN = 48  # pixels: a patch of 16, pooled 3 x 3
GRIDS = ((10, 7), (7, 10), (14, 5), (5, 14))  # soft tokens across and down
KINDS = ("shape", "colour", "count", "two")
LANGUAGES = ("en", "de", "fr", "es")

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 205, 20),
    "black": (20, 20, 20),
    "brown": (125, 75, 35),
    "grey": (130, 130, 130),
    "purple": (145, 45, 175),
}

# (gender, singular, plural)
NOUNS = {
    "en": {s: ("", s, s + ("es" if s == "cross" else "s")) for s in SHAPES},
    "de": {
        "circle": ("m", "Kreis", "Kreise"),
        "square": ("n", "Quadrat", "Quadrate"),
        "triangle": ("n", "Dreieck", "Dreiecke"),
        "cross": ("n", "Kreuz", "Kreuze"),
        "ring": ("m", "Ring", "Ringe"),
    },
    "fr": {
        "circle": ("m", "cercle", "cercles"),
        "square": ("m", "carré", "carrés"),
        "triangle": ("m", "triangle", "triangles"),
        "cross": ("f", "croix", "croix"),
        "ring": ("m", "anneau", "anneaux"),
    },
    "es": {
        "circle": ("m", "círculo", "círculos"),
        "square": ("m", "cuadrado", "cuadrados"),
        "triangle": ("m", "triángulo", "triángulos"),
        "cross": ("f", "cruz", "cruces"),
        "ring": ("m", "anillo", "anillos"),
    },
}

# fr and es: masculine, feminine, masculine plural, feminine plural; de: the stem, which takes endings
ADJECTIVES = {
    "de": {
        "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb",
        "black": "schwarz", "brown": "braun", "grey": "grau", "purple": "violett",
    },
    "fr": {
        "red": ("rouge", "rouge", "rouges", "rouges"),
        "green": ("vert", "verte", "verts", "vertes"),
        "blue": ("bleu", "bleue", "bleus", "bleues"),
        "yellow": ("jaune", "jaune", "jaunes", "jaunes"),
        "black": ("noir", "noire", "noirs", "noires"),
        "brown": ("brun", "brune", "bruns", "brunes"),
        "grey": ("gris", "grise", "gris", "grises"),
        "purple": ("violet", "violette", "violets", "violettes"),
    },
    "es": {
        "red": ("rojo", "roja", "rojos", "rojas"),
        "green": ("verde", "verde", "verdes", "verdes"),
        "blue": ("azul", "azul", "azules", "azules"),
        "yellow": ("amarillo", "amarilla", "amarillos", "amarillas"),
        "black": ("negro", "negra", "negros", "negras"),
        "brown": ("marrón", "marrón", "marrones", "marrones"),
        "grey": ("gris", "gris", "grises", "grises"),
        "purple": ("morado", "morada", "morados", "moradas"),
    },
}

NUMBERS = {
    "en": ("one", "two", "three", "four", "five"),
    "de": ("eins", "zwei", "drei", "vier", "fünf"),
    "fr": ("un", "deux", "trois", "quatre", "cinq"),
    "es": ("uno", "dos", "tres", "cuatro", "cinco"),
}

QUESTIONS = {
    "shape": {
        "en": ("What is in the picture?", "What do you see?", "Which shape is this, and in what colour?",
               "Describe the picture."),
        "de": ("Was ist auf dem Bild?", "Was siehst du?", "Welche Form ist das, und in welcher Farbe?",
               "Beschreibe das Bild."),
        "fr": ("Qu'y a-t-il sur l'image ?", "Que vois-tu ?", "Quelle est cette forme, et de quelle couleur ?",
               "Décris l'image."),
        "es": ("¿Qué hay en la imagen?", "¿Qué ves?", "¿Qué forma es, y de qué color?", "Describe la imagen."),
    },
    "colour": {  # {} takes the noun with its article
        "en": ("What colour is {}?", "Which colour does {} have?", "Tell me the colour of {}."),
        "de": ("Welche Farbe hat {}?", "Was für eine Farbe hat {}?", "Sag mir, welche Farbe {} hat."),
        "fr": ("De quelle couleur est {} ?", "Quelle couleur a {} ?", "Dis-moi de quelle couleur est {}."),
        "es": ("¿De qué color es {}?", "¿Qué color tiene {}?", "Dime de qué color es {}."),
    },
    "count": {
        "en": ("How many shapes are there?", "Count the shapes.", "How many shapes are in the picture?"),
        "de": ("Wie viele Formen sind es?", "Zähle die Formen.", "Wie viele Formen sind auf dem Bild?"),
        "fr": ("Combien de formes y a-t-il ?", "Compte les formes.", "Combien de formes vois-tu ?"),
        "es": ("¿Cuántas formas hay?", "Cuenta las formas.", "¿Cuántas formas ves?"),
    },
    "two": {
        "en": ("What is on the left and what is on the right?", "Name both shapes from left to right.",
               "Which two shapes are these, from left to right?"),
        "de": ("Was ist links und was ist rechts?", "Nenne beide Formen von links nach rechts.",
               "Welche zwei Formen sind das, von links nach rechts?"),
        "fr": ("Qu'y a-t-il à gauche et à droite ?", "Nomme les deux formes de gauche à droite.",
               "Quelles sont ces deux formes, de gauche à droite ?"),
        "es": ("¿Qué hay a la izquierda y a la derecha?", "Nombra las dos formas de izquierda a derecha.",
               "¿Qué dos formas son, de izquierda a derecha?"),
    },
}


Look = tuple[str, str]  # colour, shape


@dataclass
class Thing:
    """A shape in a picture; x, y and size in pixels."""

    look: Look
    size: int
    x: int
    y: int


@dataclass
class Picture:
    """A picture (RGB, sides multiples of 48), what is in it, a question, the thought before the answer, the answer."""

    image: Image.Image
    question: str
    answer: str
    thought: str
    kind: str
    things: list[Thing]

    def at(self, across: int, down: int) -> tuple[int, int, int]:
        """What a soft token shows: colour and shape of the thing behind its middle, counted from 1, or zeros; and
        1 if that thing's own middle lies in it."""
        left, top, half = across * SOFT_TOKEN, down * SOFT_TOKEN, SOFT_TOKEN // 2
        for thing in self.things:
            if 0 <= left + half - thing.x < thing.size and 0 <= top + half - thing.y < thing.size:
                colour, shape = thing.look
                middle = thing.x + thing.size // 2, thing.y + thing.size // 2
                holds = (middle[0] // SOFT_TOKEN, middle[1] // SOFT_TOKEN) == (across, down)
                return 1 + list(COLOURS).index(colour), 1 + SHAPES.index(shape), int(holds)
        return 0, 0, 0


def is_held_out(*looks: Look) -> bool:
    """Whether pictures of these looks, in this order, are kept for the test: a fixed tenth of all combinations."""
    return zlib.crc32(repr(looks).encode()) % 10 == 7


def noun_phrase(language: str, look: Look, count: int = 1, start: bool = False) -> str:
    """"a red circle", "ein roter Kreis", "trois carrés bleus": indefinite, nominative, with its number."""
    colour, shape = look
    gender, singular, plural = NOUNS[language][shape]
    noun = singular if count == 1 else plural
    number = NUMBERS[language][count - 1]
    if language == "en":
        words = ("a" if count == 1 else number, colour, noun)
    elif language == "de":
        ending = "e" if count > 1 else {"m": "er", "n": "es"}[gender]
        words = ("ein" if count == 1 else number, ADJECTIVES["de"][colour] + ending, noun)
    else:
        if count == 1:
            number = {"m": "un", "f": {"fr": "une", "es": "una"}[language]}[gender]
        adjective = ADJECTIVES[language][colour][(gender == "f") + 2 * (count > 1)]
        words = (number, noun, adjective)
    phrase = " ".join(words)
    return phrase[0].upper() + phrase[1:] if start else phrase


def definite(language: str, shape: str) -> str:
    """"the circle", "das Quadrat", "la croix"."""
    gender, singular, _ = NOUNS[language][shape]
    article = {
        "en": {"": "the"},
        "de": {"m": "der", "n": "das"},
        "fr": {"m": "le", "f": "la"},
        "es": {"m": "el", "f": "la"},
    }[language][gender]
    return f"{article} {singular}"


def colour_of(language: str, look: Look) -> str:
    """"The circle is red.", with the adjective as a predicate."""
    colour, shape = look
    subject = definite(language, shape)
    if language in ("en", "de"):
        adjective = colour if language == "en" else ADJECTIVES["de"][colour]
    else:
        adjective = ADJECTIVES[language][colour][NOUNS[language][shape][0] == "f"]
    verb = {"en": "is", "de": "ist", "fr": "est", "es": "es"}[language]
    return f"{subject[0].upper()}{subject[1:]} {verb} {adjective}."


def counted(language: str, look: Look, count: int) -> str:
    """"There are three blue squares."."""
    start = {
        "en": "There is" if count == 1 else "There are",
        "de": "Es ist" if count == 1 else "Es sind",
        "fr": "Il y a",
        "es": "Hay",
    }[language]
    number_in_full = noun_phrase(language, look, count)
    if language == "en" and count == 1:
        number_in_full = "one" + number_in_full[1:]
    return f"{start} {number_in_full}."


def stamp(shape: str, size: int, turn: float) -> Image.Image:
    """The antialiased mask (mode L) of a shape `size` pixels wide, turned by `turn` degrees."""
    big = 4 * size
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
    elif shape == "ring":
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
        rim = big // 5
        draw.ellipse((rim, rim, big - 1 - rim, big - 1 - rim), fill=0)
    else:
        radius, centre = big / 2, big / 2
        if shape == "square":
            points = [(math.sqrt(0.5), a) for a in (45, 135, 225, 315)]
            points = [(radius * 0.92 / math.sqrt(0.5) * r, a) for r, a in points]
        elif shape == "triangle":
            points = [(radius, a) for a in (270, 30, 150)]
        else:  # cross: twelve corners of two bars
            half, arm = 0.17 * big, 0.47 * big
            xy = [(half, -arm), (half, -half), (arm, -half), (arm, half), (half, half), (half, arm)]
            xy += [(-x, -y) for x, y in xy]
            points = [(math.hypot(x, y), math.degrees(math.atan2(y, x))) for x, y in xy]
        corners = [
            (centre + r * math.cos(math.radians(a + turn)), centre + r * math.sin(math.radians(a + turn)))
            for r, a in points
        ]
        draw.polygon(corners, fill=255)
    return mask.resize((size, size), Image.Resampling.BOX)


def paint(rng: random.Random, image: Image.Image, thing: Thing) -> None:
    """Draws a shape with its upper left corner at x, y, its colour a little off the pure one."""
    colour, shape = thing.look
    shift = rng.randint(-12, 12)  # the same for all channels: lighter or darker, the same hue
    rgb = tuple(max(0, min(255, c + shift + rng.randint(-6, 6))) for c in COLOURS[colour])
    image.paste(rgb, (thing.x, thing.y), stamp(shape, thing.size, rng.uniform(-8, 8)))


def blank(rng: random.Random) -> Image.Image:
    """A light ground of one of the sizes."""
    across, down = rng.choice(GRIDS)
    ground = tuple(rng.randint(228, 255) for _ in range(3))
    return Image.new("RGB", (across * SOFT_TOKEN, down * SOFT_TOKEN), ground)


def places(rng: random.Random, width: int, height: int, count: int) -> list[tuple[int, int, int]]:
    """`count` squares (size, x, y) that keep 20 pixels apart; smaller ones are tried when they do not fit."""
    gap, largest = 20, 130
    while True:
        found: list[tuple[int, int, int]] = []
        for _ in range(60):
            size = rng.randint(72, largest)
            x, y = rng.randint(4, width - size - 4), rng.randint(4, height - size - 4)
            if all(x + size + gap <= a or a + s + gap <= x or y + size + gap <= b or b + s + gap <= y
                   for s, a, b in found):
                found.append((size, x, y))
                if len(found) == count:
                    return found
        largest = max(80, largest - 10)


def look_at_random(rng: random.Random) -> Look:
    return rng.choice(list(COLOURS)), rng.choice(SHAPES)


def sample(rng: random.Random, held_out: bool, language: str = "en") -> Picture:
    """A picture of a random kind, of a combination that is (`held_out`) or is not kept for the test."""
    kind = rng.choice(KINDS)
    while True:
        if kind == "two":
            looks = (look_at_random(rng), look_at_random(rng))
            drawn = looks[0] != looks[1]
        else:
            looks = (look_at_random(rng),) * (rng.randint(1, 5) if kind == "count" else 1)
            drawn = True
        if drawn and is_held_out(*looks) == held_out:
            break
    image = blank(rng)
    width, height = image.size
    look = looks[0]
    question = rng.choice(QUESTIONS[kind][language])
    things = []
    if kind == "two":
        for side, one in enumerate(looks):
            size = rng.randint(80, min(150, width // 2 - 16))
            x = rng.randint(4, width // 2 - size - 8) + side * (width // 2)
            things.append(Thing(one, size, x, rng.randint(4, height - size - 4)))
        left, right = (noun_phrase(language, one) for one in looks)
        conjunction = {"en": "and", "de": "und", "fr": "et", "es": "y"}[language]
        answer = f"{left[0].upper()}{left[1:]} {conjunction} {right}."
        sides = {"en": ("Left", "Right"), "de": ("Links", "Rechts"), "fr": ("À gauche", "À droite"),
                 "es": ("A la izquierda", "A la derecha")}[language]
        colon = " :" if language == "fr" else ":"
        thought = f"{sides[0]}{colon} {left}. {sides[1]}{colon} {right}."
    elif kind == "count":
        for size, x, y in places(rng, width, height, len(looks)):
            things.append(Thing(look, size, x, y))
        answer = counted(language, look, len(looks))
        thought = ", ".join(NUMBERS[language][: len(looks)]) + "."
        thought = thought[0].upper() + thought[1:]
    else:
        size = rng.randint(96, min(width, height) - 60)
        things.append(Thing(look, size, rng.randint(4, width - size - 4), rng.randint(4, height - size - 4)))
        thought = noun_phrase(language, look, start=True) + "."
        answer = colour_of(language, look) if kind == "colour" else thought
        question = question.format(definite(language, look[1]))
    for thing in things:
        paint(rng, image, thing)
    return Picture(image, question, answer, thought, kind, things)
