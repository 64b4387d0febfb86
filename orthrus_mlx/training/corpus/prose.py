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


def _conversation(rng: Random, split: Split, shape: str, wording: int) -> Example:
    while True:
        slots = _SLOTS[shape](rng)
        if split.accepts(shape, list(slots.values())):
            break
    messages, style = draw_style(rng)
    messages += [
        user(ASKS[shape][wording].format_map(slots)),
        assistant(dress(_WRITERS[shape](rng, slots), style)),
    ]
    _continue(rng, shape, slots, style, messages)
    mentions = [slots[key] for key in ("who", "friend", "place", "town", "thing", "animal") if key in slots]
    expected = {"mentions": mentions[:1] if len(messages) < 4 else [], "style": style}
    return Example("prose", shape, messages, expected, f"{shape}/{wording}")


_CONTINUE = ("Continue.", "Please continue.", "What happened next?", "Go on.", "And then?", "Tell me more.")


def _continue(rng: Random, shape: str, slots: dict[str, str], style: str, messages: list[Message]) -> None:
    while shape.startswith("story") and rng.random() < 0.2 and len(messages) < 6:
        subject = slots["pronoun"]
        text = " ".join(_event(rng, subject) for _ in range(rng.randint(2, 4)))
        messages += [user(rng.choice(_CONTINUE)), assistant(dress(f"{text} {rng.choice(words.ENDINGS)}", style))]


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
    "describe_place": lambda rng: {"place": rng.choice(VILLAGES), "quality": rng.choice(words.ADJECTIVES)},
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


_EVENTS = tuple(
    Template(text)
    for text in (
        "{Time}, {s} {action}.",
        "{Time}, while {weather}, {s} {action}.",
        "{Weather} when {s} {action}.",
        "{S} {action}, and {s} felt {feeling}.",
        "{S} was {feeling} when {s} {action}.",
        "Then {s} {manner} {action}.",
        "[Soon|Later|A little later|Not long after], {s} {action}.",
        "Nobody knew why {s} {action}.",
        "It was {time} that {s} {action}.",
        "{S} {manner} {action} and then {action2}.",
        "Before that, {s} {action}.",
        "For a moment {s} felt {feeling}, but then {s} {action}.",
        "First {s} {action}; after that {s} {action2}.",
        "{S} had never been so {feeling}, for {s} {action}.",
        "Without a word, {s} {action}.",
        "{Weather}, but {s} {manner} {action}.",
        '"[How {feeling} I am|I feel {feeling}|I am so {feeling}|What a day]!" said {s} and {action}.',
        "To be honest, {s} was more {feeling} than {feeling2} when {s} {action}.",
    )
)


def _event(rng: Random, subject: str) -> str:
    slots = _common(rng) | {"s": subject, "S": _capital(subject)}
    return rng.choice(_EVENTS).render(rng, slots)


def _common(rng: Random) -> dict[str, str]:
    time, weather = rng.choice(words.TIMES), rng.choice(words.WEATHER)
    feeling, feeling2 = rng.sample(words.FEELINGS, 2)
    return {
        "time": time,
        "Time": _capital(time),
        "weather": weather,
        "Weather": _capital(weather),
        "feeling": feeling,
        "feeling2": feeling2,
        "manner": rng.choice(words.MANNERS),
        "action": _action(rng),
        "action2": _action(rng),
        "place": rng.choice(words.PLACES),
        "spot": rng.choice(words.SPOTS),
        "a_thing": _thing(rng),
        "a_thing2": _thing(rng),
        "adj": rng.choice(words.ADJECTIVES),
        "adj2": rng.choice(words.ADJECTIVES),
        "object": rng.choice(words.OBJECTS),
        "name": rng.choice(FIRST_NAMES),
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
    for index in range(rng.randint(2, 5)):
        subject = slots["who"] if index == 0 or rng.random() < 0.25 else slots["pronoun"]
        sentences.append(_event(rng, subject))
    sentences.append(rng.choice(words.ENDINGS))
    return " ".join(sentences)


_THING_LINES = tuple(
    Template(text)
    for text in (
        "It stands {spot}, where {weather2}.",
        "Its surface is {adj} and feels {adj2} to the touch.",
        "Somebody left it {spot} many years ago.",
        "It once belonged to a {role2}, who kept it {spot}.",
        "From a distance it looks {adj}, but up close it is rather {adj2}.",
        "A {adj3} mark on one side shows that it was used every day.",
        "Next to it lies {a_thing}.",
        "When the light falls on it, it seems almost {adj}.",
        "It smells of {smell} and of {smell2}.",
        "Nobody remembers who made it, but {name} says that it came from {village}.",
        "It is [a little|not very|surprisingly|quite] {adj}, and its edges are {adj2}.",
        "Whoever sees it feels {feeling}.",
        "Beside {a_thing} and {a_thing2}, it looks {adj}.",
        "It was made {manner} by a {role2} in {village}.",
    )
)
_SMELLS = tuple(
    "wood smoke rain dust lavender bread leather apples salt soap wax honey hay paper tea oil roses".split()
)


def _thing_extra(rng: Random) -> dict[str, str]:
    roles = [role for role in words.ROLES if role[0] not in "aeiou"]
    adjectives = [adjective for adjective in words.ADJECTIVES if adjective[0] not in "aeiou"]
    smell, smell2 = rng.sample(_SMELLS, 2)
    return {
        "weather2": rng.choice(
            ("the light is soft", "few people pass", "the wind cannot reach it", "cats like to sleep")
        ),
        "role2": rng.choice(roles),
        "adj3": rng.choice(adjectives),
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
        "In the middle of it stands {a_thing} made of stone.",
        "The streets are {adj} and the houses {adj2}.",
        "{Time} people meet {spot} and talk about the weather.",
        "The {role2} {name} knows everyone who lives there.",
        "Visitors are often {feeling} when they arrive.",
        "Behind the last house there is {place}.",
        "Children play {spot}, even when {weather2}.",
        "A {adj3} smell of {smell} comes from the bakery.",
        "On Sundays the sound of a {adj3} bell fills the air.",
        "The oldest building is {place}, and a {role2} lives in it.",
        "Every year there is a festival for {a_thing}.",
        "In winter the roofs are white and the windows look {adj}.",
        "A {adj3} river runs past the gardens.",
        "Most people there are {feeling}, at least in summer.",
    )
)


def _describe_place(rng: Random, slots: dict[str, str]) -> str:
    place = slots["place"]
    first = rng.choice(
        (
            "{place} is a {q} village.",
            "The village of {place} is {q2} and old.",
            "{place} lies between two hills.",
            "You reach {place} by a narrow road.",
            "Few people have heard of {place}.",
            "{place} is a place for people who like it {q2}.",
        )
    ).format(place=place, q=rng.choice(("small", "quiet", "pretty", "lively", "lonely", "sleepy")), q2=slots["quality"])
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
        "Everything here is {adj} and {adj2}.",
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
        "A {role2} {action}.",
        "{name} {action}, and nobody took any notice.",
        "Somewhere {spot} a child {action}.",
        "Two cats slept {spot}.",
        "The smell of {smell} came from a window.",
        "An old woman {manner} {action}.",
        "In a shop window there was {a_thing} beside {a_thing2}.",
        "A tram went by, {adj} and {adj2}.",
        "A {role2} and a student were talking {spot}.",
        "Everybody seemed {feeling}.",
        "The houses looked {adj} in the {adj2} light.",
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
    if not 12 <= len(found) <= 260:
        return Verdict(False, f"{len(found)} words, expected 12 to 260")
    known = sum(word in vocabulary() for word in found) / len(found)
    if known < 0.95:
        return Verdict(False, f"only {known:.0%} of the words are known")
    sentences = re.split(r"(?<=[.!?])\s", text)
    if len(set(sentences)) < len(sentences) - 1:
        return Verdict(False, "sentences repeat")
    if text.rstrip()[-1] not in '.!?"' and not re.search(r",\n\w+$", text):
        return Verdict(False, "does not end with a sentence or a signature")
    missing = [name for name in expected["mentions"] if name.lower() not in text.lower()]
    return Verdict(not missing, f"does not mention {', '.join(missing)}" if missing else "")
