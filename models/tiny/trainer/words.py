"""The words that the corpus is made of."""

import random

NAMES = """Anna Ben Carla David Emma Felix Greta Hugo Ida Jonas Karla Leo Maria Nina Otto Paula Quinn Rosa Sam Tina Uwe
Vera Will Xenia Yara Zoe Alice Bob Clara Dora Eric Fiona Gina Hans Iris Jack Kate Lars Mona Nils Olga Peter Ruth Simon
Tom Ulla Victor Wanda Max Lucy""".split()
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Austria": "Vienna", "Poland": "Warsaw",
    "Norway": "Oslo", "Sweden": "Stockholm", "Greece": "Athens", "Portugal": "Lisbon", "Japan": "Tokyo",
    "China": "Beijing", "Egypt": "Cairo", "Canada": "Ottawa", "Peru": "Lima", "Ireland": "Dublin",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Hungary": "Budapest", "Belgium": "Brussels",
}
CITIES = sorted(CAPITALS.values()) + ["Hamburg", "Munich", "London", "Zurich", "Milan", "Boston"]
COLOURS = "red blue green yellow black white orange purple pink brown".split()
OPPOSITES = {
    "hot": "cold", "big": "small", "day": "night", "up": "down", "fast": "slow", "old": "new", "open": "closed",
    "left": "right", "light": "dark", "happy": "sad",
}
SOUNDS = {"dog": "woof", "cat": "meow", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink"}
LEGS = {"spider": 8, "dog": 4, "cat": 4, "bird": 2, "ant": 6, "horse": 4, "human": 2, "bee": 6}
THINGS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red", "a banana": "yellow",
    "a carrot": "orange",
}
ROOMS = "kitchen bedroom bathroom hall garage office garden cellar".split()
DOORS = ["front door", "back door", "garage door", "cellar door"]
PETS = "dog cat bird fish horse rabbit".split()
WEATHER = "sunny cloudy rainy windy snowy foggy".split()
WORDS = """apple river stone cloud table window paper music summer winter garden bridge candle forest island ladder
mirror needle orange pencil ribbon silver tunnel valley wagon yellow zebra basket copper dragon engine feather guitar
hammer jacket kettle lemon magnet""".split()
SYLLABLES = """ba be bi bo da de di do fa fi ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe po ra re ri ro
sa se si so ta te ti to va vi wa zo""".split()
VERBS = "get set find send read make open call add run".split()
NOUNS = "item file note user mail task page data list key".split()
PARAMETERS = "name value id text path key query word".split()

# One row a country: English, German, French (with its article, as it follows "capitale"), Spanish; then the capitals.
COUNTRIES = [
    ("France", "Frankreich", "de la France", "Francia", "Paris", "Paris", "Paris", "París"),
    ("Germany", "Deutschland", "de l'Allemagne", "Alemania", "Berlin", "Berlin", "Berlin", "Berlín"),
    ("Italy", "Italien", "de l'Italie", "Italia", "Rome", "Rom", "Rome", "Roma"),
    ("Spain", "Spanien", "de l'Espagne", "España", "Madrid", "Madrid", "Madrid", "Madrid"),
    ("Austria", "Österreich", "de l'Autriche", "Austria", "Vienna", "Wien", "Vienne", "Viena"),
    ("Poland", "Polen", "de la Pologne", "Polonia", "Warsaw", "Warschau", "Varsovie", "Varsovia"),
    ("Greece", "Griechenland", "de la Grèce", "Grecia", "Athens", "Athen", "Athènes", "Atenas"),
    ("Portugal", "Portugal", "du Portugal", "Portugal", "Lisbon", "Lissabon", "Lisbonne", "Lisboa"),
    ("Japan", "Japan", "du Japon", "Japón", "Tokyo", "Tokio", "Tokyo", "Tokio"),
    ("China", "China", "de la Chine", "China", "Beijing", "Peking", "Pékin", "Pekín"),
    ("Egypt", "Ägypten", "de l'Égypte", "Egipto", "Cairo", "Kairo", "Le Caire", "El Cairo"),
    ("Sweden", "Schweden", "de la Suède", "Suecia", "Stockholm", "Stockholm", "Stockholm", "Estocolmo"),
]
# Written with the tokenizer's byte fallback alone: the vocabulary has no piece for these characters.
JAPANESE = {
    "フランス": "パリ", "日本": "東京", "ドイツ": "ベルリン", "イタリア": "ローマ", "中国": "北京",
    "スペイン": "マドリード",
}


class Language:
    """What can be said in one language besides English. Format fields are named where there are several."""

    def __init__(self, column: int, **phrases):
        self.column = column
        self.__dict__.update(phrases)

    def capital(self, row: tuple[str, ...]) -> tuple[str, str]:
        return row[self.column], row[4 + self.column]


LANGUAGES = {
    "de": Language(
        1, name="German",
        capital_questions=["Was ist die Hauptstadt von {}?", "Wie heißt die Hauptstadt von {}?",
                           "Nenne die Hauptstadt von {}."],
        capital_answer="Die Hauptstadt von {} ist {}.",
        opposites={"heiß": "kalt", "groß": "klein", "Tag": "Nacht", "alt": "neu", "schnell": "langsam"},
        opposite_questions=["Was ist das Gegenteil von {}?", "Gegenteil von {}?", "Nenne das Gegenteil von {}."],
        opposite_answer="Das Gegenteil von {} ist {}.",
        introduce="Ich heiße {}.", greet="Freut mich, {}!", ask_name="Wie heiße ich?", tell_name="Du heißt {}.",
        sums=["Was ist {} + {}?", "Wie viel ist {} + {}?", "Rechne {} + {}."],
        rooms={"Küche": "in der Küche", "Bad": "im Bad", "Büro": "im Büro", "Garten": "im Garten",
               "Keller": "im Keller"},
        light={"on": ["Schalte das Licht {} ein.", "Mach das Licht {} an.", "Licht {} an, bitte."],
               "off": ["Schalte das Licht {} aus.", "Mach das Licht {} aus.", "Licht {} aus, bitte."]},
        light_answer={"on": "Das Licht {} ist jetzt an.", "off": "Das Licht {} ist jetzt aus."},
        hello=["Hallo!", "Guten Morgen!", "Guten Tag!"], hello_answer="Hallo! Wie kann ich helfen?",
    ),
    "fr": Language(
        2, name="French",
        capital_questions=["Quelle est la capitale {} ?", "Nomme la capitale {}.", "Dis-moi la capitale {}."],
        capital_answer="La capitale {} est {}.",
        opposites={"chaud": "froid", "grand": "petit", "jour": "nuit", "vieux": "nouveau", "rapide": "lent"},
        opposite_questions=["Quel est le contraire de {} ?", "Le contraire de {} ?", "Dis-moi le contraire de {}."],
        opposite_answer="Le contraire de {} est {}.",
        introduce="Je m'appelle {}.", greet="Enchanté, {} !", ask_name="Comment je m'appelle ?",
        tell_name="Tu t'appelles {}.",
        sums=["Combien font {} + {} ?", "Calcule {} + {}.", "{} + {}, ça fait combien ?"],
        rooms={"cuisine": "dans la cuisine", "chambre": "dans la chambre", "bureau": "dans le bureau",
               "jardin": "dans le jardin", "garage": "dans le garage"},
        light={"on": ["Allume la lumière {}.", "Mets la lumière {}.", "Peux-tu allumer la lumière {} ?"],
               "off": ["Éteins la lumière {}.", "Coupe la lumière {}.", "Peux-tu éteindre la lumière {} ?"]},
        light_answer={"on": "La lumière {} est allumée.", "off": "La lumière {} est éteinte."},
        hello=["Bonjour !", "Salut !", "Bonsoir !"], hello_answer="Bonjour ! Comment puis-je aider ?",
    ),
    "es": Language(
        3, name="Spanish",
        capital_questions=["¿Cuál es la capital de {}?", "Dime la capital de {}.",
                           "¿Qué ciudad es la capital de {}?"],
        capital_answer="La capital de {} es {}.",
        opposites={"caliente": "frío", "grande": "pequeño", "día": "noche", "viejo": "nuevo", "rápido": "lento"},
        opposite_questions=["¿Cuál es lo contrario de {}?", "¿Lo contrario de {}?", "Dime lo contrario de {}."],
        opposite_answer="Lo contrario de {} es {}.",
        introduce="Me llamo {}.", greet="¡Mucho gusto, {}!", ask_name="¿Cómo me llamo?", tell_name="Te llamas {}.",
        sums=["¿Cuánto es {} + {}?", "Suma {} + {}.", "¿Cuánto son {} + {}?"],
        rooms={"cocina": "de la cocina", "baño": "del baño", "oficina": "de la oficina", "jardín": "del jardín",
               "garaje": "del garaje"},
        light={"on": ["Enciende la luz {}.", "Prende la luz {}.", "¿Puedes encender la luz {}?"],
               "off": ["Apaga la luz {}.", "Quita la luz {}.", "¿Puedes apagar la luz {}?"]},
        light_answer={"on": "La luz {} está encendida.", "off": "La luz {} está apagada."},
        hello=["¡Hola!", "¡Buenos días!", "¡Buenas tardes!"], hello_answer="¡Hola! ¿En qué puedo ayudar?",
    ),
}


def made_up(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([2, 2, 3])))


def person(rng: random.Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.5 else made_up(rng).capitalize()


def city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.7 else made_up(rng).capitalize()
