"""The prose family: short stories, descriptions and letters from a grammar with real entropy."""

from __future__ import annotations

import re
from functools import cache
from random import Random
from typing import Any

from orthrus_mlx.training.corpus import prose_words as words
from orthrus_mlx.training.corpus.core import Example, Message, Split, Template, Verdict, assistant, user
from orthrus_mlx.training.corpus.styles import draw_style, dress, undress
from orthrus_mlx.training.corpus.words import (
    ANIMALS,
    FEMALE_NAMES,
    FIRST_NAMES,
    MALE_NAMES,
    TOWNS,
    VILLAGES,
    article,
)

ASKS = {
    "story_person": (
        "Write a short story about {who}, {a_role}.",
        "Tell me a story about {a_role} called {who}.",
        "Please write a little story with {who}, who is {a_role}.",
        "I would like a short story about {a_role} named {who}.",
        "Make up a story about {who} the {role}.",
        "Can you tell a story about {who}, {a_role}?",
        "Write a few sentences of a story. The hero is {who}, {a_role}.",
        "A short story, please. It should be about {a_role} whose name is {who}.",
        "Invent a short tale about {who}, {a_role}.",
        "Tell a tale in which {who}, {a_role}, finds something.",
    ),
    "story_animal": (
        "Write a short story about {a_animal} called {who}.",
        "Tell me a story about {who} the {animal}.",
        "Please make up a story about {a_animal} named {who}.",
        "Can you write a little tale about {a_animal}? Its name is {who}.",
        "I want a story for children about {who}, {a_animal}.",
        "A bedtime story about {who} the {animal}, please.",
        "Write a fable with {a_animal} named {who}.",
        "Tell a short tale of {who}, {a_animal}.",
    ),
    "describe_thing": (
        "Describe {a_thing}.",
        "Write a short description of {a_thing}.",
        "Please describe {a_thing} in a few sentences.",
        "How would you describe {a_thing}?",
        "Write a few sentences about {a_thing}.",
        "Give me a description of {a_thing}.",
        "Paint {a_thing} with words.",
        "Tell me what {a_thing} looks like.",
    ),
    "describe_place": (
        "Describe the village of {place}.",
        "Write a short description of a place called {place}.",
        "What does {place} look like?",
        "Please describe the town of {place} in a few sentences.",
        "Write about an imaginary village named {place}.",
        "Tell me about a place called {place}.",
        "Imagine a village called {place} and describe it.",
        "Give me a description of {place}, a village in the hills.",
    ),
    "letter": (
        "Write a short letter from {who} to {friend} about {topic}.",
        "Please write a letter to {friend} from {who}. The subject is {topic}.",
        "Write a letter in which {who} tells {friend} about {topic}.",
        "Help {who} write to {friend} about {topic}.",
        "I need a letter to {friend} about {topic}. Sign it {who}.",
        "Draft a friendly letter about {topic}, from {who} to {friend}.",
        "{who} wants to write to {friend} about {topic}. Write the letter.",
        "Can you write a letter about {topic} to {friend} and sign it {who}?",
    ),
    "scene": (
        "Describe a morning in {town}.",
        "Write a short scene set in {town}.",
        "Write a few sentences about a day in {town}.",
        "Describe an evening in {town}, please.",
        "Set a little scene in {town}.",
        "Tell me about an imaginary walk through {town}.",
        "Paint a small picture of life in {town}.",
        "Write a quiet scene that takes place in {town}.",
    ),
}
_weights = (3, 2, 2, 1.5, 2, 1.5)

_TOPICS = (
    "a journey by train", "a new house", "a lost dog", "the garden", "a strange dream", "the old school", "a wedding",
    "a birthday party", "the first snow", "a good book", "the holidays", "a visit to the sea", "the harvest",
    "a broken clock", "a new neighbour", "a walk in the hills", "the village festival", "an old photograph",
    "a concert", "a storm", "the market", "a long winter", "a cooking lesson", "a boat trip", "the new baby",
)  # fmt: skip


def generate(rng: Random, split: Split, shape: str | None = None) -> Example:
    """One prose conversation; `shape` is a key of ASKS."""
    wordings: list[int] = []
    while not wordings:
        chosen = shape or rng.choices(list(ASKS), _weights)[0]
        wordings = split.wordings(f"prose/{chosen}", len(ASKS[chosen]))
    return _conversation(rng, split, chosen, rng.choice(wordings))


# Slots of the answers only: what the question does not say cannot be what is held out of it.
_UNSAID = ("pronoun", "mood", "when")


def _conversation(rng: Random, split: Split, shape: str, wording: int) -> Example:
    while True:
        slots = _SLOTS[shape](rng)
        if split.accepts(shape, [value for name, value in slots.items() if name not in _UNSAID]):
            break
    messages, style = draw_style(rng)
    messages += [
        user(ASKS[shape][wording].format_map(slots)),
        assistant(dress(_WRITERS[shape](rng, slots), style)),
    ]
    turns = len(messages)
    short = _continue(rng, shape, slots, style, messages)
    mentions = [slots[key] for key in ("who", "place", "town", "thing") if key in slots]
    expected = {"mentions": mentions if len(messages) == turns else [], "style": style, "short": short}
    return Example("prose", shape, messages, expected, f"{shape}/{wording}")


_CONTINUE = ("Continue.", "Please continue.", "What happened next?", "Go on.", "And then?", "Tell me more.")
_SHORTER = ("Make it shorter.", "Please shorten it.", "Say it in two sentences.", "Give me a shorter version.")


def _continue(rng: Random, shape: str, slots: dict[str, str], style: str, messages: list[Message]) -> bool:
    """Maybe append a continuation or a shorter version; whether the last answer is the shorter version."""
    if shape == "letter" or rng.random() > 0.2:
        return False
    if rng.random() < 0.4:
        text, _ = undress(messages[-1]["content"], style)
        messages += [user(rng.choice(_SHORTER)), assistant(dress(_shorter(text), style))]
        return True
    if shape.startswith("story"):
        text = " ".join(_events(rng, rng.randint(2, 4), slots["pronoun"], slots["pronoun"]))
        messages += [user(rng.choice(_CONTINUE)), assistant(dress(f"{text} {rng.choice(words.ENDINGS)}", style))]
    return False


def _shorter(text: str) -> str:
    """The first and the last sentence."""
    sentences = _sentences(text)
    return f"{sentences[0]} {sentences[-1]}"


def _sentences(text: str) -> list[str]:
    return re.split(r'(?<=[.!?])\s(?=["A-Z])', text)


# Slots of the requests.


def _person_slots(rng: Random) -> dict[str, str]:
    female = rng.random() < 0.5
    role = rng.choice(words.ROLES)
    return {
        "who": rng.choice(FEMALE_NAMES if female else MALE_NAMES),
        "pronoun": "she" if female else "he",
        "role": role,
        "a_role": article(role),
    }


def _animal_slots(rng: Random) -> dict[str, str]:
    female = rng.random() < 0.5
    animal = rng.choice(ANIMALS)
    return {
        "who": rng.choice(FEMALE_NAMES if female else MALE_NAMES),
        "pronoun": "she" if female else "he",
        "animal": animal,
        "a_animal": article(animal),
    }


def _thing_slots(rng: Random) -> dict[str, str]:
    thing = f"{rng.choice(words.ADJECTIVES)} {rng.choice(words.OBJECTS)}"
    return {"thing": thing, "a_thing": article(thing)}


def _letter_slots(rng: Random) -> dict[str, str]:
    who, friend = rng.sample(FIRST_NAMES, 2)
    return {"who": who, "friend": friend, "topic": rng.choice(_TOPICS)}


_SLOTS = {
    "story_person": _person_slots,
    "story_animal": _animal_slots,
    "describe_thing": _thing_slots,
    "describe_place": lambda rng: {"place": rng.choice(VILLAGES), "mood": rng.choice(words.MOODS)},
    "letter": _letter_slots,
    "scene": lambda rng: {"town": rng.choice(TOWNS), "when": rng.choice(words.TIMES)},
}


# Sentences.


def _thing(rng: Random) -> str:
    return article(f"{rng.choice(words.ADJECTIVES)} {rng.choice(words.OBJECTS)}")


def _action(rng: Random) -> str:
    return rng.choice(words.ACTIONS).format(o=_thing(rng), p=rng.choice(words.SPOTS))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


# {s} is a name or a pronoun, {p} always the pronoun.
_EVENTS = tuple(
    Template(text)
    for text in (
        "{Time}, {s} {action}.",
        "{Time}, while {weather}, {s} {action}.",
        "{Weather} when {s} {action}.",
        "{S} {action}, and {p} felt {feeling}.",
        "{S} was {feeling} when {p} {action}.",
        "{S} {manner} {action} and then {action2}.",
        "It was {time} that {s} {action}.",
        "{Weather}, but {s} {manner} {action}.",
        "Nobody knew why {s} {action}.",
        "Without a word, {s} {action}.",
        "{S} had never been so {feeling}, for {p} {action}.",
        "First {s} {action}; after that {p} {action2}.",
        "{Time}, {s} {manner} {action}, although {weather}.",
        "With the help of {name}, {s} {action}.",
    )
)
_LATER_EVENTS = tuple(
    Template(text)
    for text in (
        "Then {s} {manner} {action}.",
        "[Soon|Later|A little later|Not long after|The next day|In the evening], {s} {action}.",
        "Before that, {s} {action}.",
        "For a moment {s} felt {feeling}, but then {p} {action}.",
        '"[How {feeling} I am|I feel {feeling}|I am so {feeling}|What a day|Who would have thought it|At last]!" '
        "{s} said, and {p} {action}.",
        "To be honest, {s} was more {feeling} than {feeling2} when {p} {action}.",
        "{Name} the {role} saw it and was {feeling}.",
        '"Have you seen {a_thing}?" asked {name}, but {s} only shook {possessive} head.',
        "After that, {s} {action} together with {name}.",
        "In the end {s} {action}, and {weather}.",
    )
)


def _events(rng: Random, count: int, first: str, pronoun: str) -> list[str]:
    """`count` sentences of different kinds; the subject is named in the first one and now and then again."""
    templates = [rng.choice(_EVENTS), *rng.sample(_EVENTS + _LATER_EVENTS, count)][:count]
    if len(set(templates)) < count:
        return _events(rng, count, first, pronoun)
    sentences = []
    for index, template in enumerate(templates):
        subject = first if index == 0 or rng.random() < 0.25 else pronoun
        own = {"s": subject, "S": _capital(subject), "p": pronoun, "possessive": "her" if pronoun == "she" else "his"}
        sentences.append(template.render(rng, _common(rng) | own))
    return sentences


def _common(rng: Random) -> dict[str, str]:
    time, weather = rng.choice(words.TIMES), rng.choice(words.WEATHER)
    feeling, feeling2 = rng.sample(words.FEELINGS, 2)
    mood, mood2 = rng.sample(words.MOODS, 2)
    return {
        "time": time,
        "Time": _capital(time),
        "weather": weather,
        "Weather": _capital(weather),
        "feeling": feeling,
        "feeling2": feeling2,
        "manner": rng.choice(words.MANNERS),
        "trait": rng.choice(words.TRAITS),
        "action": _action(rng),
        "action2": _action(rng),
        "place": rng.choice(words.PLACES),
        "spot": rng.choice(words.SPOTS),
        "a_thing": _thing(rng),
        "a_thing2": _thing(rng),
        "look": rng.choice(words.LOOKS),
        "touch": rng.choice(words.TOUCHES),
        "mood": mood,
        "mood2": mood2,
        "meeting": rng.choice(words.MEETING_PLACES),
        "landmark": rng.choice(words.LANDMARKS),
        "name": (name := rng.choice(FIRST_NAMES)),
        "Name": name,
        "village": rng.choice(VILLAGES),
        "role": rng.choice(words.ROLES),
    }


_OPENINGS = tuple(
    Template(text)
    for text in (
        "[Once there was|Long ago there was|There once was|In {village} there lived] {x} [called|named] {who}.",
        "{Who}, {x}, lived in {place}.",
        "In {place} lived {x} [called|named|by the name of] {who}.",
        "{Who} was {x} who lived in {place}.",
        "Everyone in {village} knew {who}, {x}.",
        "This is the story of {who}, {x} from {village}.",
    )
)


def _story(rng: Random, slots: dict[str, str]) -> str:
    trait = rng.choice(words.TRAITS)
    x = article(f"{trait} {slots.get('animal') or slots['role']}")
    fill = _common(rng) | {"x": x, "who": slots["who"], "Who": slots["who"]}
    sentences = [rng.choice(_OPENINGS).render(rng, fill)]
    sentences += _events(rng, rng.randint(2, 5), slots["who"], slots["pronoun"])
    sentences.append(rng.choice(words.ENDINGS))
    return " ".join(sentences)


_THING_LINES = tuple(
    Template(text)
    for text in (
        "It stands {spot}, where {weather2}.",
        "Its surface is {look} and feels {touch} to the touch.",
        "Somebody left it {spot} many years ago.",
        "It once belonged to {a_role}, who kept it {spot}.",
        "From a distance it looks {look}, but up close it is rather {touch}.",
        "A {shape} mark on one side shows that it was used every day.",
        "Next to it lies {a_thing}.",
        "When the light falls on it, it seems almost {look}.",
        "It smells of {smell} and of {smell2}.",
        "Nobody remembers who made it, but {name} says that it came from {village}.",
        "It is [a little|not very|surprisingly|quite] {look}, and its edges are {touch}.",
        "Whoever sees it feels {feeling}.",
        "Beside {a_thing} and {a_thing2}, it looks {look}.",
        "It was {manner} made by {a_role} in {village}.",
        "{Time}, {name} found it {spot}.",
        "It would not fetch much money, yet {name} would never sell it.",
    )
)
_SMELLS = tuple(
    "wood smoke rain dust lavender bread leather apples salt soap wax honey hay paper tea oil roses".split()
)


def _thing_extra(rng: Random) -> dict[str, str]:
    smell, smell2 = rng.sample(_SMELLS, 2)
    return {
        "weather2": rng.choice(
            (
                "the light is soft",
                "few people pass",
                "the wind cannot reach it",
                "cats like to sleep",
                "it is always dry",
            )
        ),
        "shape": rng.choice(("round", "dark", "pale", "deep", "small", "long", "curved", "square", "thin", "white")),
        "a_role": (a_role := article(rng.choice(words.ROLES))),
        "A_role": _capital(a_role),
        "shape2": rng.choice(("small", "wide", "slow", "quick", "clear", "cold", "shallow", "noisy", "narrow")),
        "light": rng.choice(("soft", "grey", "golden", "early", "last", "pale", "warm", "cold", "white", "red")),
        "weather3": rng.choice(("it rains", "it is cold", "the wind blows", "it is late", "snow falls", "it is hot")),
        "Landmark": _capital(rng.choice(words.LANDMARKS)),
        "smell": smell,
        "smell2": smell2,
    }


def _describe_thing(rng: Random, slots: dict[str, str]) -> str:
    first = rng.choice(
        (
            "The {thing} is not easy to forget.",
            "At first sight the {thing} seems quite ordinary.",
            "Nobody would expect much of {a}.",
            "The {thing} has a story of its own.",
            "There is something special about the {thing}.",
            "Imagine {a} in front of you.",
        )
    ).format(thing=slots["thing"], a=slots["a_thing"])
    lines = rng.sample(_THING_LINES, rng.randint(3, 5))
    return " ".join([first, *(line.render(rng, _common(rng) | _thing_extra(rng)) for line in lines)])


_PLACE_LINES = tuple(
    Template(text)
    for text in (
        "In the middle of it stands {landmark}.",
        "The streets are {mood} and the houses {mood2}.",
        "{Time}, people meet {meeting} and talk about the weather.",
        "{name}, {a_role}, knows everyone who lives there.",
        "Visitors are often {feeling} when they leave.",
        "Behind the last house there is {place}.",
        "Children play {meeting}, even when {weather3}.",
        "The smell of {smell} and {smell2} comes from the open doors.",
        "On Sundays the sound of a {mood} bell fills the air.",
        "A traveller can stay in {place}.",
        "Every year there is a festival, and everyone brings {a_thing}.",
        "In winter the roofs are white and the windows look {mood}.",
        "A {shape2} river runs past the gardens.",
        "Most people there are {trait}, at least in summer.",
        "{Landmark} reminds people of {name}, {a_role}.",
    )
)


def _describe_place(rng: Random, slots: dict[str, str]) -> str:
    place = slots["place"]
    first = rng.choice(
        (
            "{place} is a {q} village.",
            "The village of {place} is old and {q2}.",
            "{place} lies between two hills.",
            "You reach {place} by a narrow road.",
            "Few people have heard of {place}.",
            "{place} is a place for people who like it {q2}.",
        )
    ).format(place=place, q=rng.choice(("small", "quiet", "pretty", "lively", "lonely", "sleepy")), q2=slots["mood"])
    lines = rng.sample(_PLACE_LINES, rng.randint(3, 5))
    extra = [line.render(rng, _common(rng) | _thing_extra(rng)) for line in lines]
    return " ".join([first, *extra])


_LETTER_LINES = tuple(
    Template(text)
    for text in (
        "{Time}, I {action}.",
        "You will not believe it, but I {action}.",
        "{Weather}, and I felt {feeling}.",
        "My neighbour {name} {action} last week.",
        "I was {feeling} at first, but now I am {feeling2}.",
        "Do you remember how we {action}?",
        "{name} asked about you and {action}.",
        "While {weather}, I {action}.",
        "I have kept {a_thing} for you.",
        "Perhaps we can meet in {village} soon.",
        "Everything here is {mood} and {mood2}.",
        "On Friday we met {meeting}, {name} and I.",
        "Please bring {a_thing} when you come.",
    )
)


def _letter(rng: Random, slots: dict[str, str]) -> str:
    first = rng.choice(
        (
            "I want to tell you about {topic}.",
            "Thank you for your last letter, in which you asked about {topic}.",
            "I have been thinking about {topic} all week.",
            "There is news about {topic}.",
            "You asked me about {topic}, so here is my answer.",
            "This letter is about {topic}.",
        )
    ).format_map(slots)
    body = [line.render(rng, _common(rng)) for line in rng.sample(_LETTER_LINES, rng.randint(2, 4))]
    closing = rng.choice(
        ("Please write back soon.", "I hope you are well.", "Give my love to your family.", "See you soon.")
    )
    end = rng.choice(("Yours,", "Best wishes,", "Warm regards,", "Love,", "Your friend,"))
    return f"Dear {slots['friend']},\n\n{' '.join([first, *body, closing])}\n\n{end}\n{slots['who']}"


_SCENE_LINES = tuple(
    Template(text)
    for text in (
        "{Weather}.",
        "{A_role} {action}.",
        "{name} {action}, and nobody took any notice.",
        "A child {action}.",
        "Two cats slept {spot}.",
        "People were standing {meeting}.",
        "Near {landmark} sat {a_role}.",
        "The smell of {smell} came from a window.",
        "An old woman {manner} {action}.",
        "In a shop window there was {a_thing} beside {a_thing2}.",
        "A tram went by, {look} and almost empty.",
        "{A_role} and a student were talking {meeting}.",
        "Everybody seemed {feeling}.",
        "The houses looked {mood} in the {light} light.",
        "{name} was {feeling} and {action}.",
    )
)


def _scene(rng: Random, slots: dict[str, str]) -> str:
    first = rng.choice(
        (
            "It was an ordinary day in {town}.",
            "{town} was slowly waking up.",
            "The streets of {town} were almost empty.",
            "{When}, {town} showed its best side.",
            "The bells of {town} rang {when}.",
            "In {town} the day began as usual.",
        )
    ).format(town=slots["town"], when=slots["when"], When=_capital(slots["when"]))
    lines = rng.sample(_SCENE_LINES, rng.randint(3, 5))
    return " ".join([first, *(line.render(rng, _common(rng) | _thing_extra(rng)) for line in lines)])


_WRITERS = {
    "story_person": _story,
    "story_animal": _story,
    "describe_thing": _describe_thing,
    "describe_place": _describe_place,
    "letter": _letter,
    "scene": _scene,
}


@cache
def vocabulary() -> frozenset[str]:
    """Every lower-case word the grammar can write, gathered from a fixed sample of its own output and its pools."""
    rng = Random(0)
    texts = [" ".join(getattr(words, name)) for name in dir(words) if name.isupper()]
    texts += [" ".join(pool) for pool in (FIRST_NAMES, TOWNS, VILLAGES, ANIMALS, _TOPICS, _SMELLS)]
    texts += [_WRITERS[shape](rng, _SLOTS[shape](rng)) for shape in ASKS for _ in range(400)]
    return frozenset(re.findall(r"[a-z]+", " ".join(texts).lower()))


def check(expected: dict[str, Any], answer: str) -> Verdict:
    """Whether the text can pass for English prose: length, known words, no loops, the asked-for subject."""
    text, verdict = undress(answer, expected["style"])
    if not verdict.ok:
        return verdict
    found = re.findall(r"[a-z]+", text.lower())
    least, most = (5, 60) if expected["short"] else (12, 260)
    if not least <= len(found) <= most:
        return Verdict(False, f"{len(found)} words, expected {least} to {most}")
    known = sum(word in vocabulary() for word in found) / len(found)
    if known < 0.95:
        return Verdict(False, f"only {known:.0%} of the words are known")
    sentences = _sentences(text)
    if len(set(sentences)) < len(sentences) - 1:
        return Verdict(False, "sentences repeat")
    if text.rstrip()[-1] not in '.!?"' and not re.search(r",\n\w+$", text):
        return Verdict(False, "does not end with a sentence or a signature")
    missing = [name for name in expected["mentions"] if name.lower() not in text.lower()]
    return Verdict(not missing, f"does not mention {', '.join(missing)}" if missing else "")
