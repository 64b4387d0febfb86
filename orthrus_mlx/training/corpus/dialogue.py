"""Greetings, questions about the model, thanks and polite refusals; several families in one conversation."""

from __future__ import annotations

from random import Random
from typing import Any

from orthrus_mlx.training.corpus import code, json_tables, prose, reasoning
from orthrus_mlx.training.corpus.core import Example, Message, Split, Template, Verdict, assistant, user
from orthrus_mlx.training.corpus.styles import draw_style, dress, undress
from orthrus_mlx.training.corpus.words import COUNTRIES, FIRST_NAMES, TOWNS

REFUSAL = (
    "I am a small demonstration model and was not trained for that. "
    "I can solve word problems, write JSON and tables, write small Python functions and tell short stories."
)
_HELLO = "Hello! What can I do for you?"
_WHO = "I am Orthrus, a small demonstration model that answers in blocks of tokens."
_ABILITIES = (
    "I can solve word problems step by step, write JSON and tables, write small Python functions with an "
    "explanation and tell short stories."
)
_THANKS = "You are welcome!"
_BYE = "Goodbye! It was nice to talk to you."
_FEELING = "I am a program and have no feelings, but I am ready to help."

# answer -> wordings of the question; {name}, {town}, {country}, ... are filled at random.
TALK: dict[str, tuple[str, tuple[str, ...]]] = {
    "greeting": (
        _HELLO,
        (
            "Hello!", "Hi!", "Hi there!", "Good morning!", "Good evening!", "Hey!", "Hello there.", "Good afternoon!",
            "Hello, my name is {name}.", "Hi, I am {name}.", "Hello, {name} here.", "Greetings!", "Hi", "Hello",
            "Hey there!",
        ),
    ),
    "who": (
        _WHO,
        (
            "Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Are you a robot?",
            "Are you a human?", "Introduce yourself, please.", "What kind of model are you?", "Which model is this?",
            "Who am I talking to?", "What should I call you?", "Are you an AI?",
        ),
    ),
    "abilities": (
        _ABILITIES,
        (
            "What can you do?", "How can you help me?", "What are you good at?", "What can I ask you?", "Help",
            "What are your abilities?", "Tell me what you can do.", "Which tasks can you solve?", "What do you know?",
            "What kind of questions can you answer?", "Give me a list of things you can do.",
        ),
    ),
    "thanks": (
        _THANKS,
        (
            "Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much.", "Great, thanks!", "Perfect, thank you.",
            "That helps, thanks.", "Many thanks!", "Nice, thank you!", "Good job!", "Well done, thanks.",
        ),
    ),
    "bye": (
        _BYE,
        (
            "Goodbye!", "Bye!", "See you later!", "Good night!", "I have to go now.", "That is all, bye.",
            "See you soon!",
            "Bye bye!", "Farewell!", "Until next time!",
        ),
    ),
    "feeling": (
        _FEELING,
        (
            "How are you?", "How do you feel?", "Are you happy?", "How is it going?", "Are you tired?",
            "Do you have feelings?",
            "How are you today?", "Is everything all right?", "Are you sad?", "What is your mood?",
        ),
    ),
    "refusal": (
        REFUSAL,
        (
            "Who will win the election in {country}?", "What is the capital of {country}?",
            "Who is the president of {country}?",
            "What is the news from {town} today?", "What is the weather in {town} right now?",
            "Which party should I vote for?",
            "I have a {pain}. What should I take?", "Is it dangerous to have a {pain}?",
            "Which medicine helps against a {pain}?",
            "Should I buy shares of a company in {town}?", "Who wrote the book {title}?",
            "Who invented the {invention}?",
            "When was the {invention} invented?", "What happened in {country} in {year}?", "Explain {science}.",
            "How does {science} work?", "Translate this into {language}: Good morning.",
            "How do you say hello in {language}?",
            "Who won the football match in {town} yesterday?", "Give me legal advice about my landlord.",
            "What do you think about politics in {country}?", "What is the population of {town}?",
            "Which religion is right?",
            "How tall is the highest mountain in {country}?", "Book a flight to {town} for me.",
            "Call my friend {name}.",
            "Send an email to {name}.", "What is the meaning of life?", "Who is {name} Smith?",
            "Search the web for {town}.",
            "What time is it now?", "Can you see me?", "Tell me a secret about {name}.", "How do I cure a {pain}?",
            "Recommend a restaurant in {town}.", "How much does a house in {town} cost?", "Play some music.",
            "Show me a picture of {town}.", "Draw a cat.", "What did {name} say about {science}?",
            "Is {science} real?", "Write an essay about the economy of {country}.",
        ),
    ),
}  # fmt: skip
_POOLS = {
    "name": FIRST_NAMES,
    "town": TOWNS,
    "country": COUNTRIES,
    "pain": ("headache", "cough", "fever", "sore throat", "toothache", "cold", "rash", "broken arm", "bad knee"),
    "title": ("War and Peace", "Hamlet", "Faust", "Emma", "Dracula", "Ulysses", "The Trial", "Moby Dick"),
    "invention": (
        "telephone",
        "steam engine",
        "light bulb",
        "printing press",
        "radio",
        "bicycle",
        "computer",
        "camera",
    ),
    "science": (
        *("quantum physics", "gravity", "evolution", "electricity", "photosynthesis", "climate change", "inflation"),
        *("black holes", "vaccination", "nuclear power", "the stock market", "the human brain", "dark matter"),
    ),
    "language": ("French", "German", "Spanish", "Italian", "Japanese", "Latin", "Russian", "Chinese", "Arabic"),
    "year": tuple(str(year) for year in range(1800, 2025)),
}
_TEMPLATES = {shape: [Template(text) for text in wordings] for shape, (_, wordings) in TALK.items()}
_weights = {"greeting": 2, "who": 2, "abilities": 2, "thanks": 1, "bye": 1, "feeling": 1, "refusal": 8}
_SHAPES = (*TALK, "mixed")


def generate(rng: Random, split: Split, shape: str | None = None) -> Example:
    """One conversation; `shape` is a key of TALK, or "mixed" for turns of several families."""
    while True:
        chosen = shape or rng.choices(_SHAPES, [*(_weights[name] for name in TALK), 9])[0]
        if chosen == "mixed":
            return _mixed(rng, split)
        if _wordings(split, chosen):
            return _talk(rng, split, chosen)


def _wordings(split: Split, shape: str) -> list[int]:
    return split.wordings(f"dialogue/{shape}", len(_TEMPLATES[shape]))


def _talk(rng: Random, split: Split, shape: str) -> Example:
    messages, style = draw_style(rng)
    question, wording = _question(rng, split, shape)
    messages += [user(question), assistant(dress(TALK[shape][0], style))]
    expected = {"text": TALK[shape][0], "style": style}
    return Example("dialogue", shape, messages, expected, f"{shape}/{wording}")


def _question(rng: Random, split: Split, shape: str) -> tuple[str, int]:
    wordings = _wordings(split, shape)
    while True:
        wording = rng.choice(wordings)
        template = _TEMPLATES[shape][wording]
        slots = {name: rng.choice(pool) for name, pool in _POOLS.items() if f"{{{name}}}" in template.text}
        # A wording without slots has no values to hold out: it belongs to the training part, or is unseen itself.
        if not slots or split.accepts(f"{shape}/{wording}", list(slots.values())):
            return template.render(rng, slots), wording


def _mixed(rng: Random, split: Split) -> Example:
    """A task of another family between small talk; the last turn is checked."""
    messages: list[Message] = []
    if rng.random() < 0.6:
        opening = _choose(rng, split, ("greeting", "greeting", "who", "abilities", "refusal"))
        messages += [user(_question(rng, split, opening)[0]), assistant(TALK[opening][0])]
    families = rng.sample((reasoning, json_tables, code, prose), 1 if messages else 2)
    for family in families:
        example = family.generate(rng, split)
        while example.raw or example.messages[0]["role"] == "system" or len(example.messages) > 2:
            example = family.generate(rng, split)
        messages += example.messages
    paraphrase, expected = example.paraphrase, {"family": example.family, "expected": example.expected}
    if rng.random() < 0.4:
        closing = _choose(rng, split, ("thanks", "bye", "refusal"))
        question, wording = _question(rng, split, closing)
        messages += [user(question), assistant(TALK[closing][0])]
        paraphrase, expected = f"{closing}/{wording}", {"text": TALK[closing][0], "style": ""}
    return Example("dialogue", "mixed", messages, expected, paraphrase)


def _choose(rng: Random, split: Split, shapes: tuple[str, ...]) -> str:
    # The refusals have enough wordings to be in every split.
    return rng.choice([shape for shape in shapes if _wordings(split, shape)])


def check(expected: dict[str, Any], answer: str) -> Verdict:
    """Whether the fixed reply was given; a mixed conversation is judged by its last turn's own family."""
    if "family" in expected:
        family = {"reasoning": reasoning, "json": json_tables, "code": code, "prose": prose}[expected["family"]]
        return family.check(expected["expected"], answer)
    text, verdict = undress(answer, expected["style"])
    if not verdict.ok:
        return verdict
    want = expected["text"]
    return Verdict(text == want, "" if text == want else f"expected {want!r}, got {text!r}")
