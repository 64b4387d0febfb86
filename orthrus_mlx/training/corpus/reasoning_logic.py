"""Question shapes about order, position, direction, words and letters."""

from __future__ import annotations

from orthrus_mlx.training.corpus.core import ints, pick
from orthrus_mlx.training.corpus.shape import Solution, shape
from orthrus_mlx.training.corpus.words import FIRST_NAMES, SHORT_WORDS, count

NAME = pick(FIRST_NAMES)
_THREE = {"a": NAME, "b": NAME, "c": NAME}
_WORD = pick(SHORT_WORDS)


def _distinct(a: object, b: object, c: object) -> bool:
    return len({a, b, c}) == 3


_RELATIONS = (
    ("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"),
    ("stronger", "strongest", "weakest"), ("richer", "richest", "poorest"), ("heavier", "heaviest", "lightest"),
)  # fmt: skip


@shape(
    "order_of_three",
    plan="We put the three names in order.",
    slots={**_THREE, "relation": pick(_RELATIONS), "end": ints(0, 1)},
    where=_distinct,
    derive=lambda relation, end: {"more": relation[0], "ask": relation[1 + end]},
    ask=[
        "{a} is {more} than {b}. {b} is {more} than {c}. Who is the {ask}?",
        "{b} is {more} than {c} and {a} is {more} than {b}. Who is the {ask}?",
        "If {a} is {more} than {b} and {b} is {more} than {c}, who is the {ask}?",
        "Among {a}, {b} and {c}, {a} is {more} than {b} and {b} is {more} than {c}. Name the {ask}.",
        "{a} is {more} than {b}, and {b} is {more} than {c}. Which of the three is the {ask}?",
        "We know that {b} is {more} than {c}, and that {a} is {more} than {b}. Who of them is the {ask}?",
    ],
    weight=1.5,
)
def _(a: str, b: str, c: str, relation: tuple[str, str, str], end: int) -> Solution:
    return [f"From the {relation[1]} to the {relation[2]}: {a}, {b}, {c}."], (a, c)[end]


@shape(
    "middle_of_three",
    plan="We put the three names in order.",
    slots={**_THREE, "relation": pick(_RELATIONS)},
    where=_distinct,
    derive=lambda relation: {"more": relation[0]},
    ask=[
        "{a} is {more} than {b}. {b} is {more} than {c}. Who is in the middle?",
        "{b} is {more} than {c} and {a} is {more} than {b}. Who is between the other two?",
        "If {a} is {more} than {b} and {b} is {more} than {c}, who is in the middle?",
        "{a} is {more} than {b}, and {b} is {more} than {c}. Name the person in the middle.",
        "Of {a}, {b} and {c}, {a} is {more} than {b} and {b} is {more} than {c}. Who comes second?",
        "We know that {b} is {more} than {c}, and that {a} is {more} than {b}. Who stands in the middle?",
    ],
)
def _(a: str, b: str, c: str, relation: tuple[str, str, str]) -> Solution:
    return [f"From the {relation[1]} to the {relation[2]}: {a}, {b}, {c}."], b


@shape(
    "race",
    plan="We put the runners in the order in which they finish.",
    slots={**_THREE, "end": pick(("wins", "comes last"))},
    where=_distinct,
    ask=[
        "In a race, {a} finishes before {b} and {b} finishes before {c}. Who {end}?",
        "{b} reaches the goal after {a} but before {c}. Who {end}?",
        "{a} is ahead of {b}, and {c} is behind {b}. Who {end} in this race?",
        "{c} finishes after {b}, and {b} finishes after {a}. Who {end}?",
        "Three runners: {a} beats {b} and {b} beats {c}. Who {end}?",
        "{a}, {b} and {c} run. {b} loses to {a} but beats {c}. Who {end}?",
    ],
)
def _(a: str, b: str, c: str, end: str) -> Solution:
    return [f"The order is {a}, {b}, {c}."], a if end == "wins" else c


@shape(
    "taller_by_numbers",
    plan="We compare the three heights.",
    slots={
        **_THREE,
        "x": ints(101, 199),
        "y": ints(101, 199),
        "z": ints(101, 199),
        "end": pick(("tallest", "shortest")),
    },
    where=lambda a, b, c, x, y, z: _distinct(a, b, c) and _distinct(x, y, z),
    ask=[
        "{a} is {x} cm tall, {b} is {y} cm and {c} is {z} cm. Who is the {end}?",
        "Who is the {end}: {a} with {x} cm, {b} with {y} cm or {c} with {z} cm?",
        "{a} measures {x} cm, {b} measures {y} cm and {c} measures {z} cm. Name the {end}.",
        "Heights: {a} {x} cm, {b} {y} cm, {c} {z} cm. Who is the {end}?",
        "If {a} is {x} cm, {b} {y} cm and {c} {z} cm tall, who is the {end} of them?",
        "Find the {end} person: {a} ({x} cm), {b} ({y} cm), {c} ({z} cm).",
    ],
)
def _(a: str, b: str, c: str, x: int, y: int, z: int, end: str) -> Solution:
    best = max(x, y, z) if end == "tallest" else min(x, y, z)
    word = "largest" if end == "tallest" else "smallest"
    return [f"The {word} number is {best}."], {x: a, y: b, z: c}[best]


@shape(
    "who_has_most",
    plan="We compare the three numbers of {what}.",
    slots={
        **_THREE,
        **{"x": ints(2, 99), "y": ints(2, 99), "z": ints(2, 99), "end": pick(("most", "fewest"))},
        "what": pick(("points", "stickers", "books", "marbles", "stamps", "coins", "shells")),
    },
    where=lambda a, b, c, x, y, z: _distinct(a, b, c) and _distinct(x, y, z),
    ask=[
        "{a} has {x} {what}, {b} has {y} and {c} has {z}. Who has the {end} {what}?",
        "Who has the {end} {what}: {a} with {x}, {b} with {y} or {c} with {z}?",
        "{a} owns {x} {what}, {b} owns {y} and {c} owns {z}. Who owns the {end}?",
        "The {what}: {a} {x}, {b} {y}, {c} {z}. Who has the {end}?",
        "If {a} has {x}, {b} {y} and {c} {z} {what}, who has the {end}?",
        "Find out who has the {end} {what}: {a} ({x}), {b} ({y}), {c} ({z}).",
    ],
)
def _(a: str, b: str, c: str, x: int, y: int, z: int, end: str) -> Solution:
    best = max(x, y, z) if end == "most" else min(x, y, z)
    word = "largest" if end == "most" else "smallest"
    return [f"The {word} number is {best}."], {x: a, y: b, z: c}[best]


@shape(
    "queue_position",
    plan="We add those in front, those behind and {name}.",
    slots={"name": NAME, "a": ints(1, 30), "b": ints(1, 30)},
    ask=[
        "In a queue there are {a} people in front of {name} and {b} behind. How many people are in the queue?",
        "{name} stands in a line with {a} people ahead and {b} people behind. How long is the line?",
        "{a} people wait before {name} and {b} after. How many people wait in total?",
        "There are {a} cars before {name}'s car and {b} cars behind it. How many cars are there?",
        "{name} sits in a row with {a} people to the left and {b} to the right. How many people sit in the row?",
        "Counting {name}, how many people are in a line with {a} ahead of {name} and {b} behind?",
    ],
)
def _(a: int, b: int) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} + 1 = {a + b + 1}"], a + b + 1


_COMPASS = ("north", "east", "south", "west")


@shape(
    "turning",
    plan="We follow the two turns one after the other.",
    slots={"name": NAME, "start": ints(0, 3), "first": pick(("left", "right")), "second": pick(("left", "right"))},
    derive=lambda start: {"facing": _COMPASS[start]},
    ask=[
        "{name} faces {facing}, turns {first} and then turns {second}. Which way does {name} face?",
        "{name} looks {facing}. After a turn to the {first} and a turn to the {second}, where does {name} look?",
        "Facing {facing}, {name} makes a {first} turn and then a {second} turn. What direction is that?",
        "{name} walks {facing}, turns {first}, then turns {second}. In which direction is {name} walking now?",
        "A robot of {name} faces {facing}. It turns {first} and then {second}. Which way does it face?",
        "First {name} faces {facing}. Then {name} turns {first}, then {second}. Where is {name} facing?",
    ],
)
def _(start: int, first: str, second: str) -> Solution:
    one = (start + (1 if first == "right" else 3)) % 4
    two = (one + (1 if second == "right" else 3)) % 4
    return [
        f"Turning {first} from {_COMPASS[start]} gives {_COMPASS[one]}.",
        f"Turning {second} from {_COMPASS[one]} gives {_COMPASS[two]}.",
    ], _COMPASS[two]


_CLASSES = {
    "fruit": ("apple", "pear", "plum", "lemon", "peach", "banana", "cherry", "grape", "mango", "melon"),
    "animal": ("dog", "cat", "horse", "lion", "otter", "rabbit", "sheep", "tiger", "goose", "eagle", "monkey"),
    "colour": ("red", "blue", "green", "yellow", "purple", "brown", "white", "pink", "black", "grey"),
    "tool": ("hammer", "saw", "drill", "wrench", "chisel", "axe", "pliers", "shovel", "rake"),
    "piece of furniture": ("chair", "table", "bed", "shelf", "desk", "sofa", "bench", "wardrobe", "stool"),
    "instrument": ("piano", "guitar", "violin", "flute", "drum", "trumpet", "cello", "harp", "organ"),
    "vehicle": ("car", "bus", "train", "bike", "boat", "truck", "tram", "plane", "ferry"),
    "season": ("spring", "summer", "autumn", "winter"),
    "piece of clothing": ("shirt", "coat", "hat", "scarf", "sock", "jacket", "dress", "sweater", "glove"),
    "drink": ("tea", "coffee", "juice", "milk", "water", "cocoa", "lemonade"),
}
_MEMBERS = tuple((word, kind) for kind, words in _CLASSES.items() for word in words)
_KINDS = tuple(_CLASSES)


def _insert(words: list[str], word: str, at: int) -> str:
    return ", ".join([*words[:at], word, *words[at:]])


@shape(
    "odd_one_out",
    plan="Three of the words belong together.",
    slots={"a": pick(_MEMBERS), "b": pick(_MEMBERS), "c": pick(_MEMBERS), "odd": pick(_MEMBERS), "at": ints(0, 3)},
    where=lambda a, b, c, odd: _distinct(a, b, c) and a[1] == b[1] == c[1] != odd[1],
    derive=lambda a, b, c, odd, at: {"list": _insert([a[0], b[0], c[0]], odd[0], at)},
    ask=[
        "Which word does not belong: {list}?",
        "Find the odd one out: {list}.",
        "Which of these is different from the others: {list}?",
        "{list}: which word does not fit?",
        "One of the words {list} does not belong. Which one?",
        "Which one is the odd one out in {list}?",
    ],
)
def _(a: tuple[str, str], b: tuple[str, str], c: tuple[str, str], odd: tuple[str, str], at: int) -> Solution:
    kind = {"piece of furniture": "pieces of furniture", "piece of clothing": "pieces of clothing"}.get(
        a[1], f"{a[1]}s"
    )
    words = [a[0], b[0], c[0]]
    return [f"{words[0].capitalize()}, {words[1]} and {words[2]} are {kind}."], odd[0]


@shape(
    "is_a_kind",
    plan="We ask what the word {word} stands for.",
    slots={"name": NAME, "pair": pick(_MEMBERS), "kind": pick(_KINDS), "same": ints(0, 1)},
    where=lambda pair, kind, same: (pair[1] == kind) == bool(same),
    derive=lambda pair, kind: {"word": pair[0], "a_kind": ("an " if kind[0] in "ai" else "a ") + kind},
    ask=[
        "{name} asks: does the word {word} name {a_kind}?",
        "Does the word {word} stand for {a_kind}? {name} is not sure.",
        "{name} says that the word {word} names {a_kind}. Is that right?",
        "Help {name}: does {word} count as {a_kind}?",
        "Would you call {word} the name of {a_kind}, asks {name}?",
        "{name} puts {word} on a list and calls it {a_kind}. Is this correct?",
    ],
)
def _(pair: tuple[str, str], a_kind: str, same: int) -> Solution:
    actual = ("an " if pair[1][0] in "ai" else "a ") + pair[1]
    return [f"The word {pair[0]} names {actual}."], "yes" if same else "no"


def _spell(word: str) -> str:
    return f"The letters of {word} are {'-'.join(word)}."


@shape(
    "count_letters",
    slots={"word": _WORD},
    ask=[
        'How many letters are in the word "{word}"?',
        'How many letters does "{word}" have?',
        'Count the letters in "{word}".',
        'What is the number of letters in "{word}"?',
        'How long is the word "{word}"?',
        'Tell me how many letters the word "{word}" has.',
    ],
)
def _(word: str) -> Solution:
    numbered = ", ".join(f"{letter} {index}" for index, letter in enumerate(word, 1))
    return [f"Counting the letters: {numbered}."], count(len(word), "letters")


@shape(
    "count_one_letter",
    slots={"word": _WORD, "at": ints(0, 7)},
    where=lambda word, at: at < len(word),
    derive=lambda word, at: {"letter": word[at]},
    ask=[
        'How many times does the letter "{letter}" appear in "{word}"?',
        'How often is the letter "{letter}" in the word "{word}"?',
        'Count the letter "{letter}" in "{word}".',
        'How many "{letter}" are there in the word "{word}"?',
        'How many times do you write "{letter}" when you spell "{word}"?',
        'In "{word}", how many letters are "{letter}"?',
    ],
)
def _(word: str, letter: str) -> Solution:
    total, parts = 0, []
    for char in word:
        total += char == letter
        parts.append(f"{char} {total}")
    return [f"Counting {letter}: {', '.join(parts)}."], total


@shape(
    "count_vowels",
    slots={"word": _WORD},
    ask=[
        'How many vowels are in the word "{word}"?',
        'How many vowels does "{word}" have?',
        'Count the vowels in "{word}".',
        'What is the number of vowels in "{word}"?',
        'How many of the letters of "{word}" are vowels?',
        'Tell me how many vowels the word "{word}" contains.',
    ],
)
def _(word: str) -> Solution:
    vowels = [letter for letter in word if letter in "aeiou"]
    return [_spell(word), f"The vowels are {'-'.join(vowels)}."], count(len(vowels), "vowels")


@shape(
    "spell",
    plan="We write the letters of {word} one by one.",
    slots={"word": _WORD},
    ask=[
        'Spell the word "{word}".',
        'How do you spell "{word}"?',
        'Write the letters of "{word}" one by one.',
        'Spell "{word}" with hyphens between the letters.',
        'Please spell "{word}" for me.',
        'Give me the letters of "{word}" in order.',
    ],
    weight=2,
)
def _(word: str) -> Solution:
    return [], "-".join(word)


@shape(
    "spell_backwards",
    plan="We write the letters and read them from the end.",
    slots={"word": _WORD},
    ask=[
        'Spell the word "{word}" backwards.',
        'Write "{word}" backwards.',
        'Reverse the word "{word}".',
        'What is "{word}" spelled backwards?',
        'Write the letters of "{word}" in reverse order.',
        'What do you get when you reverse "{word}"?',
    ],
)
def _(word: str) -> Solution:
    return [_spell(word)], "-".join(reversed(word))


@shape(
    "nth_letter",
    plan="We write the letters of {word} and count them.",
    slots={"word": _WORD, "at": ints(0, 5)},
    where=lambda word, at: at < min(len(word), 5) or at == 5,
    derive=lambda at: {"nth": ("first", "second", "third", "fourth", "fifth", "last")[at]},
    ask=[
        'What is the {nth} letter of "{word}"?',
        'Which letter is the {nth} one in the word "{word}"?',
        'Find the {nth} letter of the word "{word}".',
        'Tell me the {nth} letter in "{word}".',
        'In the word "{word}", which letter comes {nth}?',
        'Name the {nth} letter of "{word}".',
    ],
)
def _(word: str, at: int) -> Solution:
    return [_spell(word)], word[-1] if at == 5 else word[at]


@shape(
    "alphabetical",
    plan="We sort the words by their first letters.",
    slots={"a": _WORD, "b": _WORD, "c": _WORD},
    where=lambda a, b, c: _distinct(a[0], b[0], c[0]),
    ask=[
        "Sort these words alphabetically: {a}, {b}, {c}.",
        "Put {a}, {b} and {c} in alphabetical order.",
        "Write the words {a}, {b}, {c} in alphabetical order.",
        "Arrange in alphabetical order: {a}, {b}, {c}.",
        "What is the alphabetical order of {a}, {b} and {c}?",
        "Order the words {a}, {b} and {c} from A to Z.",
    ],
)
def _(a: str, b: str, c: str) -> Solution:
    words = sorted([a, b, c])
    return [f"The first letters are {a[0]}, {b[0]}, {c[0]}.", f"In order: {', '.join(w[0] for w in words)}."], (
        ", ".join(words)
    )


@shape(
    "first_in_alphabet",
    plan="We compare the first letters of {a} and {b}.",
    slots={"a": _WORD, "b": _WORD, "word": pick(("first", "last"))},
    where=lambda a, b: a[0] != b[0],
    ask=[
        "Which word comes {word} in the dictionary, {a} or {b}?",
        "In alphabetical order, which comes {word}: {a} or {b}?",
        "Does {a} or {b} come {word} in the alphabet?",
        "Of {a} and {b}, which comes {word} in a dictionary?",
        "Sorted from A to Z, which word is {word}: {a} or {b}?",
        "Tell me which of {a} and {b} comes {word} alphabetically.",
    ],
)
def _(a: str, b: str, word: str) -> Solution:
    low, high = sorted([a, b])
    return [f"The letter {low[0]} comes before {high[0]}."], low if word == "first" else high


@shape(
    "alphabet_step",
    plan="The letters of the alphabet follow each other in a fixed order.",
    slots={"name": NAME, "at": ints(1, 24), "word": pick(("after", "before"))},
    derive=lambda at: {"letter": chr(97 + at)},
    ask=[
        'Which letter comes right {word} "{letter}" in the alphabet, {name} asks?',
        '{name} wants to know the letter {word} "{letter}" in the alphabet. What is it?',
        'What is the letter {word} "{letter}"? {name} forgot it.',
        'Tell {name} which letter of the alphabet comes directly {word} "{letter}".',
        'In the alphabet, what stands {word} "{letter}", asks {name}?',
        'Help {name} find the letter {word} "{letter}" in the alphabet.',
    ],
)
def _(letter: str, at: int, word: str) -> Solution:
    other = chr(97 + at + (1 if word == "after" else -1))
    return [f"The letter {word} {letter} is {other}."], other


@shape(
    "count_words",
    slots={"a": _WORD, "b": _WORD, "c": _WORD, "d": _WORD, "e": _WORD, "f": _WORD, "n": ints(3, 6)},
    derive=lambda a, b, c, d, e, f, n: {"list": ", ".join([a, b, c, d, e, f][:n])},
    ask=[
        "How many words are in this list: {list}?",
        "Count the words: {list}.",
        "How many things are listed here: {list}?",
        "The list is {list}. How many entries does it have?",
        "How many items does the list {list} contain?",
        "Tell me the number of words in: {list}.",
    ],
)
def _(list: str, n: int) -> Solution:
    numbered = ", ".join(f"{word} {index}" for index, word in enumerate(list.split(", "), 1))
    return [f"Counting: {numbered}."], n


@shape(
    "position_in_list",
    slots={"a": _WORD, "b": _WORD, "c": _WORD, "d": _WORD, "at": ints(0, 3)},
    where=lambda a, b, c, d: len({a, b, c, d}) == 4,
    derive=lambda a, b, c, d, at: {
        "list": ", ".join([a, b, c, d]),
        "nth": ("first", "second", "third", "last")[at],
    },
    ask=[
        "What is the {nth} word in the list {list}?",
        "Which word comes {nth} in {list}?",
        "Here is a list: {list}. Name the {nth} word.",
        "Find the {nth} entry of {list}.",
        "In the list {list}, which word is {nth}?",
        "Tell me the {nth} item of this list: {list}.",
    ],
)
def _(a: str, b: str, c: str, d: str, at: int) -> Solution:
    word = (a, b, c, d)[at]
    return [f"Counting from the left: {a}, {b}, {c}, {d}."], word


@shape(
    "syllogism",
    plan="What holds for the whole group holds for {name} too.",
    slots={
        "name": NAME,
        "kind": pick(
            (
                *(("cats", "a cat"), ("robots", "a robot"), ("dragons", "a dragon"), ("teachers", "a teacher")),
                *(("birds", "a bird"), ("pirates", "a pirate"), ("farmers", "a farmer"), ("knights", "a knight")),
                *(("bakers", "a baker"), ("sailors", "a sailor"), ("wizards", "a wizard"), ("singers", "a singer")),
            )
        ),
        "trait": pick(("brave", "kind", "loud", "quiet", "clever", "tired", "happy", "slow", "funny", "rich")),
        "sign": pick(("All", "No")),
    },
    derive=lambda kind, sign: {"kinds": kind[0], "a_kind": kind[1]},
    ask=[
        "{sign} {kinds} are {trait}. {name} is {a_kind}. Is {name} {trait}?",
        "{name} is {a_kind}. {sign} {kinds} are {trait}. Is {name} {trait}?",
        "Suppose this is true: {sign} {kinds} are {trait}. {name} is {a_kind}. Is {name} {trait}?",
        "Given: {sign} {kinds} are {trait}. Given: {name} is {a_kind}. Does it follow that {name} is {trait}?",
        "{sign} {kinds} are {trait}. What about {name}, who is {a_kind}: is {name} {trait}?",
        "We know: {sign} {kinds} are {trait}. We also know that {name} is {a_kind}. Is {name} {trait}?",
    ],
)
def _(kinds: str, a_kind: str, name: str, trait: str, sign: str) -> Solution:
    return [f"{name} is {a_kind}, and {sign.lower()} {kinds} are {trait}."], "yes" if sign == "All" else "no"
