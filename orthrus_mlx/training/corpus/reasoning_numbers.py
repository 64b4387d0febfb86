"""Question shapes about bare numbers: the arithmetic drill, fractions, percents, sequences, comparisons."""

from __future__ import annotations

from orthrus_mlx.training.corpus.core import ints, pick
from orthrus_mlx.training.corpus.shape import Solution, shape


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


@shape(
    "add",
    plan="To find the sum, we add the two numbers.",
    slots={"a": ints(2, 199), "b": ints(2, 99)},
    ask=[
        "What is {a} + {b}?",
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "[Calculate|Compute|Work out] {a} + {b}.",
        "What is the sum of {a} and {b}?",
        "How much is {a} plus {b}?",
        "{a} + {b} = ?",
        "What do you get when you add {b} to {a}?",
    ],
    vary={"b": "you add {b} instead", "a": "the first number is {a}"},
    weight=2,
)
def _(a: int, b: int) -> Solution:
    return [f"{a} + {b} = {a + b}"], a + b


@shape(
    "subtract",
    plan="To find the difference, we subtract {b} from {a}.",
    slots={"a": ints(10, 199), "b": ints(2, 99)},
    where=lambda a, b: a > b + 1,
    ask=[
        "What is {a} - {b}?",
        "What is {a} minus {b}?",
        "Subtract {b} from {a}.",
        "[Calculate|Compute|Work out] {a} - {b}.",
        "Take {b} away from {a}. What is left?",
        "How much is {a} minus {b}?",
        "{a} - {b} = ?",
        "What is the difference between {a} and {b}?",
    ],
    vary={"b": "you subtract {b} instead"},
    weight=2,
)
def _(a: int, b: int) -> Solution:
    return [f"{a} - {b} = {a - b}"], a - b


@shape(
    "multiply",
    plan="To find the product, we multiply {a} by {b}.",
    slots={"a": ints(2, 30), "b": ints(2, 12)},
    ask=[
        "What is {a} x {b}?",
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "[Calculate|Compute|Work out] {a} * {b}.",
        "What is the product of {a} and {b}?",
        "How much is {a} times {b}?",
        "{a} x {b} = ?",
        "What do you get when you multiply {a} and {b}?",
    ],
    vary={"b": "you multiply by {b} instead"},
    weight=4,
)
def _(a: int, b: int) -> Solution:
    return [f"{a} x {b} = {a * b}"], a * b


@shape(
    "multiply_teens",
    plan="We split {b} into tens and ones and multiply both parts.",
    slots={"a": ints(11, 20), "b": ints(13, 20)},
    ask=[
        "What is {a} x {b}?",
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "[Calculate|Compute|Work out] {a} * {b}.",
        "What is the product of {a} and {b}?",
        "How much is {a} times {b}?",
    ],
)
def _(a: int, b: int) -> Solution:
    # Beyond the table of twelve the partial products are written out: b = 10 + c.
    if b == 20:
        return [f"{a} x 2 = {a * 2}", f"{a * 2} x 10 = {a * 20}"], a * 20
    c = b - 10
    return [f"{a} x 10 = {a * 10}", f"{a} x {c} = {a * c}", f"{a * 10} + {a * c} = {a * b}"], a * b


@shape(
    "divide",
    plan="We look for the number that gives {a} when it is multiplied by {b}.",
    slots={"q": ints(2, 30), "b": ints(2, 12)},
    derive=lambda q, b: {"a": q * b},
    ask=[
        "What is {a} / {b}?",
        "What is {a} divided by {b}?",
        "Divide {a} by {b}.",
        "[Calculate|Compute|Work out] {a} / {b}.",
        "How many times does {b} go into {a}?",
        "What is the quotient of {a} and {b}?",
        "{a} / {b} = ?",
        "How much is {a} divided by {b}?",
    ],
    weight=3,
)
def _(a: int, b: int, q: int) -> Solution:
    return [f"{b} x {q} = {a}", f"{a} / {b} = {q}"], q


@shape(
    "remainder",
    plan="We take the largest multiple of {b} that fits into {a}.",
    slots={"q": ints(2, 12), "b": ints(2, 12), "r": ints(0, 11)},
    where=lambda b, r: r < b,
    derive=lambda q, b, r: {"a": q * b + r},
    ask=[
        "What is the remainder when {a} is divided by {b}?",
        "What is {a} mod {b}?",
        "Divide {a} by {b}. What is the remainder?",
        "What is left over when you divide {a} by {b}?",
        "Find the remainder of {a} divided by {b}.",
        "[Calculate|Compute] {a} modulo {b}.",
    ],
)
def _(a: int, b: int, q: int, r: int) -> Solution:
    return [f"{b} x {q} = {q * b}", f"{a} - {q * b} = {r}"], r


@shape(
    "add_three",
    plan="We add the first two numbers and then the third one.",
    slots={"a": ints(2, 60), "b": ints(2, 60), "c": ints(2, 60)},
    ask=[
        "What is {a} + {b} + {c}?",
        "Add {a}, {b} and {c}.",
        "What is the sum of {a}, {b} and {c}?",
        "[Calculate|Compute|Work out] {a} + {b} + {c}.",
        "How much are {a}, {b} and {c} together?",
        "Sum up the numbers {a}, {b} and {c}.",
        "{a} + {b} + {c} = ?",
    ],
    vary={"c": "the last number is {c}"},
)
def _(a: int, b: int, c: int) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} + {c} = {a + b + c}"], a + b + c


@shape(
    "add_then_multiply",
    plan="The sum in the brackets comes first, then the product.",
    slots={"a": ints(1, 12), "b": ints(1, 12), "c": ints(2, 9)},
    ask=[
        "What is ({a} + {b}) x {c}?",
        "Add {a} and {b}, then multiply by {c}.",
        "[Calculate|Compute|Work out] ({a} + {b}) * {c}.",
        "Multiply the sum of {a} and {b} by {c}.",
        "What do you get when you add {a} and {b} and multiply the result by {c}?",
        "Take the sum of {a} and {b}. What is {c} times that?",
    ],
)
def _(a: int, b: int, c: int) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} x {c} = {(a + b) * c}"], (a + b) * c


@shape(
    "multiply_then_add",
    plan="The product comes first, then {c} is added.",
    slots={"a": ints(2, 12), "b": ints(2, 12), "c": ints(2, 50)},
    ask=[
        "What is {a} x {b} + {c}?",
        "Multiply {a} by {b}, then add {c}.",
        "[Calculate|Compute|Work out] {a} * {b} + {c}.",
        "Add {c} to the product of {a} and {b}.",
        "What do you get when you multiply {a} and {b} and add {c}?",
        "Take {a} times {b} and add {c} to it. What is the result?",
    ],
)
def _(a: int, b: int, c: int) -> Solution:
    return [f"{a} x {b} = {a * b}", f"{a * b} + {c} = {a * b + c}"], a * b + c


@shape(
    "multiply_then_subtract",
    plan="The product comes first, then {c} is subtracted.",
    slots={"a": ints(3, 12), "b": ints(3, 12), "c": ints(2, 50)},
    where=lambda a, b, c: a * b > c + 1,
    ask=[
        "What is {a} x {b} - {c}?",
        "Multiply {a} by {b}, then subtract {c}.",
        "[Calculate|Compute|Work out] {a} * {b} - {c}.",
        "Subtract {c} from the product of {a} and {b}.",
        "What do you get when you multiply {a} and {b} and take away {c}?",
        "Take {a} times {b} and subtract {c} from it. What is the result?",
    ],
)
def _(a: int, b: int, c: int) -> Solution:
    return [f"{a} x {b} = {a * b}", f"{a * b} - {c} = {a * b - c}"], a * b - c


@shape(
    "square_number",
    plan="The square of a number is the number multiplied by itself.",
    slots={"a": ints(2, 30), "word": pick(("squared", "to the power of 2"))},
    ask=[
        "What is {a} {word}?",
        "[Calculate|Compute|Work out] {a} {word}.",
        "How much is {a} {word}?",
        "Find {a} {word}.",
        "What do you get for {a} {word}?",
        "Tell me the value of {a} {word}.",
        "What number is {a} {word}?",
    ],
)
def _(a: int) -> Solution:
    if a <= 12 or a == 20:
        return [f"{a} x {a} = {a * a}"], a * a
    tens, ones = a // 10 * 10, a % 10
    if ones == 0:
        return [f"{a} x {a // 10} = {a * a // 10}", f"{a * a // 10} x 10 = {a * a}"], a * a
    steps = [f"{a} x {tens} = {a * tens}", f"{a} x {ones} = {a * ones}", f"{a * tens} + {a * ones} = {a * a}"]
    return steps, a * a


@shape(
    "double_or_triple",
    plan="To {word} a number means to multiply it.",
    slots={"word": pick(("double", "triple")), "a": ints(3, 99)},
    ask=[
        "What is {word} {a}?",
        "What do you get when you {word} {a}?",
        "{word} the number {a}.",
        "Find {word} the number {a}.",
        "How much is {word} {a}?",
        "If I {word} {a}, what number do I get?",
    ],
)
def _(word: str, a: int) -> Solution:
    factor = 2 if word == "double" else 3
    return [f"{a} x {factor} = {a * factor}"], a * factor


@shape(
    "half",
    plan="To find {part} of a number, we divide it by {b}.",
    slots={"q": ints(2, 99), "b": pick((2, 2, 4))},
    derive=lambda q, b: {"a": q * b, "part": "half" if b == 2 else "a quarter"},
    ask=[
        "What is {part} of {a}?",
        "How much is {part} of {a}?",
        "Find {part} of {a}.",
        "[Calculate|Compute|Work out] {part} of {a}.",
        "What number is {part} of {a}?",
        "Tell me {part} of the number {a}.",
    ],
)
def _(a: int, b: int, q: int) -> Solution:
    return [f"{a} / {b} = {q}"], q


@shape(
    "percent",
    plan="We find 5% first, because 5% is one part in 20.",
    slots={"p": pick((5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)), "n": ints(1, 20)},
    derive=lambda n: {"a": n * 20},
    ask=[
        "What is {p}% of {a}?",
        "What is {p} percent of {a}?",
        "[Calculate|Compute|Work out|Find] {p}% of {a}.",
        "How much is {p}% of {a}?",
        "Take {p} percent of {a}. What do you get?",
        "What number is {p}% of {a}?",
        "Tell me {p} percent of the number {a}.",
    ],
    vary={"p": "it is {p}%"},
    weight=2,
)
def _(p: int, a: int) -> Solution:
    one = a // 20
    return [f"5% of {a} is {a} / 20 = {one}", f"{p} / 5 = {p // 5}", f"{one} x {p // 5} = {one * p // 5}"], (
        one * p // 5
    )


@shape(
    "fraction_of",
    plan="We divide by the denominator {d} and multiply by the numerator {n}.",
    slots={"d": ints(2, 10), "n": ints(1, 9), "q": ints(2, 20)},
    where=lambda n, d: n < d and (n > 1 or d > 2),
    derive=lambda d, q: {"a": d * q},
    ask=[
        "What is {n}/{d} of {a}?",
        "How much is {n}/{d} of {a}?",
        "Find {n}/{d} of {a}.",
        "[Calculate|Compute|Work out] {n}/{d} of {a}.",
        "What number is {n}/{d} of {a}?",
        "Take {n}/{d} of {a}. What is the result?",
    ],
    vary={"n": "it is {n}/{d}"},
)
def _(n: int, d: int, a: int, q: int) -> Solution:
    if n == 1:
        return [f"{a} / {d} = {q}"], q
    return [f"{a} / {d} = {q}", f"{q} x {n} = {q * n}"], q * n


@shape(
    "fraction_simplify",
    slots={"n": ints(1, 8), "d": ints(2, 9), "f": ints(2, 9)},
    where=lambda n, d: n < d and all(n % k or d % k for k in range(2, n + 1)),
    derive=lambda n, d, f: {"top": n * f, "bottom": d * f},
    ask=[
        "Simplify {top}/{bottom}.",
        "Simplify the fraction {top}/{bottom}.",
        "Write {top}/{bottom} in lowest terms.",
        "Reduce {top}/{bottom} to lowest terms.",
        "What is {top}/{bottom} in its simplest form?",
        "Reduce the fraction {top}/{bottom}.",
    ],
)
def _(n: int, d: int, f: int, top: int, bottom: int) -> Solution:
    return [
        f"Both numbers can be divided by {f}.",
        f"{top} / {f} = {n}",
        f"{bottom} / {f} = {d}",
    ], f"{n}/{d}"


@shape(
    "fraction_compare",
    slots={"d": ints(3, 12), "a": ints(1, 11), "b": ints(1, 11), "word": pick(("larger", "smaller"))},
    where=lambda a, b, d: a < d and b < d and a != b,
    ask=[
        "Which is {word}, {a}/{d} or {b}/{d}?",
        "Which fraction is {word}: {a}/{d} or {b}/{d}?",
        "Compare {a}/{d} and {b}/{d}. Which one is {word}?",
        "Of {a}/{d} and {b}/{d}, which is {word}?",
        "Tell me which fraction is {word}, {a}/{d} or {b}/{d}.",
        "Between {a}/{d} and {b}/{d}, which fraction is {word}?",
    ],
)
def _(a: int, b: int, d: int, word: str) -> Solution:
    best = max(a, b) if word == "larger" else min(a, b)
    other = a + b - best
    return [f"Both fractions have the denominator {d}.", f"{best} is {word} than {other}."], f"{best}/{d}"


@shape(
    "fraction_add",
    slots={"d": ints(3, 15), "a": ints(1, 12), "b": ints(1, 12)},
    where=lambda a, b, d: a + b < d,
    ask=[
        "What is {a}/{d} + {b}/{d}?",
        "Add {a}/{d} and {b}/{d}.",
        "[Calculate|Compute|Work out] {a}/{d} + {b}/{d}.",
        "What is the sum of {a}/{d} and {b}/{d}?",
        "How much is {a}/{d} plus {b}/{d}?",
        "What do you get when you add {a}/{d} and {b}/{d}?",
    ],
)
def _(a: int, b: int, d: int) -> Solution:
    return [f"Both fractions have the denominator {d}.", f"{a} + {b} = {a + b}"], f"{a + b}/{d}"


@shape(
    "sequence_next",
    plan="We look at the difference between neighbours.",
    slots={"a": ints(1, 40), "d": ints(2, 12)},
    derive=lambda a, d: {"seq": _list([a + d * i for i in range(4)])},
    ask=[
        "What is the next number in the sequence {seq}?",
        "What comes next: {seq}, ...?",
        "Continue the sequence: {seq}, ...",
        "Which number follows {seq}?",
        "Find the next number: {seq}, ?",
        "Look at {seq}. What is the next number?",
        "Here is a sequence: {seq}. Which number comes next?",
    ],
)
def _(a: int, d: int) -> Solution:
    last = a + 3 * d
    return [f"{a + d} - {a} = {d}", f"Each number is {d} more than the one before.", f"{last} + {d} = {last + d}"], (
        last + d
    )


@shape(
    "sequence_down",
    plan="We look at the difference between neighbours.",
    slots={"a": ints(30, 99), "d": ints(2, 9)},
    where=lambda a, d: a > 5 * d,
    derive=lambda a, d: {"seq": _list([a - d * i for i in range(4)])},
    ask=[
        "What is the next number in the falling sequence {seq}?",
        "The numbers get smaller: {seq}. What comes next?",
        "Continue counting down: {seq}, ...",
        "Which number follows in this falling sequence: {seq}?",
        "Find the next number of the decreasing sequence {seq}.",
        "Here is a decreasing sequence: {seq}. Which number comes next?",
    ],
)
def _(a: int, d: int) -> Solution:
    last = a - 3 * d
    return [f"{a} - {a - d} = {d}", f"Each number is {d} less than the one before.", f"{last} - {d} = {last - d}"], (
        last - d
    )


@shape(
    "sequence_double",
    plan="Each number is {f} times the one before.",
    slots={"a": ints(1, 25), "f": pick((2, 2, 3))},
    derive=lambda a, f: {"seq": _list([a * f**i for i in range(3)])},
    ask=[
        "Each number is multiplied by {f}: {seq}. What comes next?",
        "In the sequence {seq} every number is {f} times the one before. What is next?",
        "Continue, always multiplying by {f}: {seq}, ...",
        "A sequence grows by a factor of {f}: {seq}. Find the next number.",
        "{seq}, ...: each term is {f} times the previous one. What is the next term?",
        "What is the next number when you keep multiplying by {f}: {seq}?",
    ],
)
def _(a: int, f: int) -> Solution:
    last = a * f * f
    return [f"The last number is {last}.", f"{last} x {f} = {last * f}"], last * f


@shape(
    "sequence_missing",
    plan="The numbers grow by the same amount each time.",
    slots={"a": ints(1, 40), "d": ints(2, 10)},
    derive=lambda a, d: {"seq": f"{a}, {a + d}, ?, {a + 3 * d}"},
    ask=[
        "Which number is missing: {seq}?",
        "Find the missing number in {seq}.",
        "What number belongs in place of the question mark: {seq}",
        "Fill in the missing number: {seq}.",
        "The sequence {seq} has a gap. Which number fits?",
        "What is the missing number in the sequence {seq}?",
    ],
)
def _(a: int, d: int) -> Solution:
    return [f"{a + d} - {a} = {d}", f"{a + d} + {d} = {a + 2 * d}"], a + 2 * d


@shape(
    "sequence_nth",
    plan="We count the steps and multiply them by the size of a step.",
    slots={"a": ints(1, 30), "d": ints(2, 10), "n": ints(4, 10)},
    ask=[
        "A sequence starts at {a} and grows by {d} each time. What is the {n}th number?",
        "Start with {a} and add {d} again and again. What is the {n}th number in the list?",
        "The first term is {a} and each term is {d} more than the last. Find term number {n}.",
        "What is the {n}th term of the sequence that begins with {a} and goes up by {d}?",
        "If the first number is {a} and the step is {d}, what is the {n}th number?",
        "Find the {n}th number of a sequence with first number {a} and step {d}.",
    ],
    vary={"d": "the step is {d}"},
)
def _(a: int, d: int, n: int) -> Solution:
    return [
        f"There are {n} - 1 = {n - 1} steps.",
        f"{n - 1} x {d} = {(n - 1) * d}",
        f"{a} + {(n - 1) * d} = {a + (n - 1) * d}",
    ], a + (n - 1) * d


@shape(
    "larger_of_two",
    plan="We compare the two numbers {a} and {b}.",
    slots={"a": ints(10, 999), "b": ints(10, 999), "word": pick(("larger", "smaller"))},
    where=lambda a, b: a != b,
    ask=[
        "Which is {word}, {a} or {b}?",
        "Which number is {word}: {a} or {b}?",
        "Compare {a} and {b}. Which one is {word}?",
        "Of {a} and {b}, which is {word}?",
        "Tell me the {word} of the numbers {a} and {b}.",
        "Between {a} and {b}, which number is {word}?",
    ],
)
def _(a: int, b: int, word: str) -> Solution:
    best = max(a, b) if word == "larger" else min(a, b)
    return [f"{best} is {word} than {a + b - best}."], best


@shape(
    "extreme_of_four",
    plan="We put the four numbers in order, starting with the {word}.",
    slots={
        **{"a": ints(1, 99), "b": ints(1, 99), "c": ints(1, 99), "d": ints(1, 99)},
        "word": pick(("largest", "smallest")),
    },
    where=lambda a, b, c, d: len({a, b, c, d}) == 4,
    derive=lambda a, b, c, d: {"list": _list([a, b, c, d])},
    ask=[
        "Which is the {word} of these numbers: {list}?",
        "Find the {word} number in {list}.",
        "What is the {word} number in the list {list}?",
        "Here are four numbers: {list}. Which one is the {word}?",
        "Tell me the {word} of {list}.",
        "Which number is the {word}: {list}?",
    ],
)
def _(a: int, b: int, c: int, d: int, word: str) -> Solution:
    numbers = sorted([a, b, c, d], reverse=word == "largest")
    return [f"In order: {_list(numbers)}."], numbers[0]


@shape(
    "sort_numbers",
    plan="We look for the {first} number, then for the next one, and so on.",
    slots={
        **{"a": ints(1, 99), "b": ints(1, 99), "c": ints(1, 99), "d": ints(1, 99)},
        "word": pick(("smallest to largest", "largest to smallest")),
    },
    where=lambda a, b, c, d: len({a, b, c, d}) == 4,
    derive=lambda a, b, c, d, word: {"list": _list([a, b, c, d]), "first": word.split()[0]},
    ask=[
        "Sort these numbers from {word}: {list}.",
        "Put the numbers {list} in order from {word}.",
        "Order {list} from {word}.",
        "Arrange the numbers from {word}: {list}.",
        "Write {list} in order, from {word}.",
        "Can you sort {list} from {word}?",
    ],
)
def _(a: int, b: int, c: int, d: int, word: str) -> Solution:
    numbers = sorted([a, b, c, d], reverse=word.startswith("largest"))
    return [], _list(numbers)


@shape(
    "average_three",
    plan="The average is the sum of the numbers divided by how many there are.",
    slots={"m": ints(3, 40), "x": ints(-9, 9), "y": ints(-9, 9)},
    where=lambda m, x, y: m + x > 0 and m + y > 0 and m - x - y > 0,
    derive=lambda m, x, y: {"a": m + x, "b": m + y, "c": m - x - y},
    ask=[
        "What is the average of {a}, {b} and {c}?",
        "Find the mean of {a}, {b} and {c}.",
        "[Calculate|Compute|Work out] the average of {a}, {b} and {c}.",
        "What is the mean of the numbers {a}, {b} and {c}?",
        "Three test scores are {a}, {b} and {c}. What is the average score?",
        "On three days it was {a}, {b} and {c} degrees. What was the average?",
        "Take the numbers {a}, {b}, {c}. What is their average?",
    ],
)
def _(a: int, b: int, c: int, m: int) -> Solution:
    total = a + b + c
    return [f"{a} + {b} = {a + b}", f"{a + b} + {c} = {total}", f"{total} / 3 = {m}"], m


@shape(
    "average_two",
    plan="The number in the middle is half of the sum.",
    slots={"m": ints(5, 80), "x": ints(1, 20)},
    where=lambda m, x: m > x,
    derive=lambda m, x: {"a": m - x, "b": m + x},
    ask=[
        "What is the average of {a} and {b}?",
        "Find the mean of {a} and {b}.",
        "[Calculate|Compute|Work out] the average of {a} and {b}.",
        "Which number lies exactly halfway between {a} and {b}?",
        "What is the midpoint between {a} and {b}?",
        "What is the mean of the two numbers {a} and {b}?",
    ],
)
def _(a: int, b: int, m: int) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} / 2 = {m}"], m


@shape(
    "median_three",
    plan="The median is the number in the middle when all are put in order.",
    slots={"a": ints(1, 99), "b": ints(1, 99), "c": ints(1, 99)},
    where=lambda a, b, c: len({a, b, c}) == 3,
    ask=[
        "What is the median of {a}, {b} and {c}?",
        "Find the median of {a}, {b}, {c}.",
        "Which of {a}, {b} and {c} is the middle value?",
        "[Calculate|Work out] the median of the numbers {a}, {b} and {c}.",
        "Three numbers are {a}, {b} and {c}. What is their median?",
        "Tell me the middle number of {a}, {b} and {c} by size.",
    ],
)
def _(a: int, b: int, c: int) -> Solution:
    numbers = sorted([a, b, c])
    return [f"In order: {_list(numbers)}."], numbers[1]


@shape(
    "range_of_list",
    plan="The range is the largest number minus the smallest number.",
    slots={"a": ints(1, 60), "b": ints(1, 60), "c": ints(1, 60), "d": ints(1, 60)},
    where=lambda a, b, c, d: len({a, b, c, d}) == 4,
    derive=lambda a, b, c, d: {"list": _list([a, b, c, d])},
    ask=[
        "What is the range of {list}?",
        "What is the difference between the largest and the smallest of {list}?",
        "Find the range of the numbers {list}.",
        "Subtract the smallest of {list} from the largest.",
        "By how much does the largest of {list} exceed the smallest?",
        "Here are four numbers: {list}. What is their range?",
    ],
)
def _(a: int, b: int, c: int, d: int) -> Solution:
    high, low = max(a, b, c, d), min(a, b, c, d)
    return [f"The largest is {high} and the smallest is {low}.", f"{high} - {low} = {high - low}"], high - low


@shape(
    "even_or_odd",
    plan="A number is even when its last digit is even.",
    slots={"a": ints(2, 999)},
    ask=[
        "Is {a} even or odd?",
        "Is the number {a} even or odd?",
        "Tell me whether {a} is even or odd.",
        "Even or odd: {a}?",
        "Check if {a} is an even or an odd number.",
        "What kind of number is {a}, even or odd?",
    ],
)
def _(a: int) -> Solution:
    word = "even" if a % 2 == 0 else "odd"
    return [f"The last digit of {a} is {a % 10}.", f"{a % 10} is {word}."], word


@shape(
    "digit_sum",
    plan="We add the digits of {a} one after the other.",
    slots={"a": ints(11, 999)},
    ask=[
        "What is the digit sum of {a}?",
        "Add the digits of {a}.",
        "What is the sum of the digits of {a}?",
        "Find the sum of all digits in {a}.",
        "If you add up the digits of {a}, what do you get?",
        "[Calculate|Compute|Work out] the digit sum of {a}.",
    ],
)
def _(a: int) -> Solution:
    digits = [int(digit) for digit in str(a)]
    steps, total = [], digits[0]
    for digit in digits[1:]:
        steps.append(f"{total} + {digit} = {total + digit}")
        total += digit
    return steps, total


@shape(
    "round_to_ten",
    slots={"a": ints(11, 399)},
    where=lambda a: a % 10 not in (0, 5),
    ask=[
        "Round {a} to the nearest ten.",
        "What is {a} rounded to the nearest ten?",
        "Round the number {a} to tens.",
        "To the nearest ten, what is {a}?",
        "Which multiple of ten is closest to {a}?",
        "Please round {a} to the nearest 10.",
    ],
)
def _(a: int) -> Solution:
    down, up = a // 10 * 10, a // 10 * 10 + 10
    word, result = ("down", down) if a % 10 < 5 else ("up", up)
    return [
        f"{a} lies between {down} and {up}.",
        f"The last digit is {a % 10}, so we round {word}.",
    ], result


@shape(
    "digit_place",
    plan="The digits stand for hundreds, tens and ones from left to right.",
    slots={"a": ints(100, 999), "place": pick(("ones", "tens", "hundreds"))},
    ask=[
        "Which digit is in the {place} place of {a}?",
        "What is the {place} digit of {a}?",
        "In the number {a}, which digit stands for the {place}?",
        "Find the {place} digit in {a}.",
        "Look at {a}. What is its {place} digit?",
        "Tell me the digit in the {place} place of {a}.",
    ],
)
def _(a: int, place: str) -> Solution:
    digits = str(a)
    steps = [f"{a} has {digits[0]} hundreds, {digits[1]} tens and {digits[2]} ones."]
    return steps, int(digits[("hundreds", "tens", "ones").index(place)])


@shape(
    "reverse_digits",
    plan="We read the digits of {a} from right to left.",
    slots={"a": ints(100, 999)},
    where=lambda a: a % 10 != 0,
    ask=[
        "Reverse the digits of {a}.",
        "Write {a} backwards.",
        "What number do you get when you reverse {a}?",
        "Read the number {a} from right to left. What is it?",
        "What is {a} with its digits in reverse order?",
        "Turn the digits of {a} around.",
    ],
)
def _(a: int) -> Solution:
    digits = str(a)
    return [f"The digits are {digits[0]}, {digits[1]}, {digits[2]}."], int(digits[::-1])


@shape(
    "unknown_addend",
    plan="We subtract {b} from {total} to find the number.",
    slots={"x": ints(2, 60), "b": ints(2, 60)},
    derive=lambda x, b: {"total": x + b},
    ask=[
        "Solve x + {b} = {total}.",
        "I think of a number and add {b}. The result is {total}. What is the number?",
        "Which number plus {b} gives {total}?",
        "What must be added to {b} to get {total}?",
        "If x + {b} = {total}, what is x?",
        "Find x: x + {b} = {total}.",
        "A number increased by {b} is {total}. Find the number.",
    ],
)
def _(x: int, b: int, total: int) -> Solution:
    return [f"{total} - {b} = {x}"], x


@shape(
    "unknown_factor",
    plan="We divide {total} by {b} to find the number.",
    slots={"x": ints(2, 20), "b": ints(2, 12)},
    derive=lambda x, b: {"total": x * b},
    ask=[
        "Solve {b} * x = {total}.",
        "I think of a number and multiply it by {b}. The result is {total}. What is the number?",
        "Which number times {b} gives {total}?",
        "{b} times what number is {total}?",
        "If {b} * x = {total}, what is x?",
        "Find x: {b} * x = {total}.",
        "A number multiplied by {b} is {total}. Find the number.",
    ],
)
def _(x: int, b: int, total: int) -> Solution:
    return [f"{total} / {b} = {x}"], x


@shape(
    "unknown_two_steps",
    plan="We undo the steps: first subtract {c}, then divide by {b}.",
    slots={"x": ints(2, 15), "b": ints(2, 9), "c": ints(1, 30)},
    derive=lambda x, b, c: {"total": x * b + c},
    ask=[
        "Solve {b} * x + {c} = {total}.",
        "I multiply a number by {b} and add {c}. The result is {total}. What is the number?",
        "If {b} * x + {c} = {total}, what is x?",
        "Find x: {b} * x + {c} = {total}.",
        "{b} times a number plus {c} is {total}. Find the number.",
        "Which number x satisfies {b} * x + {c} = {total}?",
    ],
)
def _(x: int, b: int, c: int, total: int) -> Solution:
    return [f"{total} - {c} = {x * b}", f"{x * b} / {b} = {x}"], x


@shape(
    "count_inclusive",
    plan="We subtract the first number from the last and add 1, because both ends count.",
    slots={"a": ints(1, 80), "n": ints(3, 30)},
    derive=lambda a, n: {"b": a + n - 1},
    ask=[
        "How many whole numbers are there from {a} to {b}, both included?",
        "Count the integers from {a} to {b} inclusive.",
        "A book is read from page {a} to page {b}, both included. How many pages is that?",
        "How many numbers are in the list {a}, {a} + 1, ..., {b}?",
        "Counting from {a} up to {b} with both ends, how many numbers do you say?",
        "Seats {a} to {b} are taken, both included. How many seats is that?",
    ],
)
def _(a: int, b: int, n: int) -> Solution:
    return [f"{b} - {a} = {b - a}", f"{b - a} + 1 = {n}"], n


@shape(
    "divisible",
    plan="We compare {a} with the nearest multiple of {b} that is not larger.",
    slots={"b": ints(2, 12), "q": ints(2, 12), "r": pick((0, 0, 1, 2, 3, 5))},
    where=lambda b, r: r < b,
    derive=lambda b, q, r: {"a": b * q + r},
    ask=[
        "Is {a} divisible by {b}?",
        "Can {a} be divided evenly by {b}?",
        "Is {a} a multiple of {b}?",
        "Does {b} divide {a} without a remainder?",
        "Check whether {a} is divisible by {b}.",
        "Is {b} a factor of {a}?",
    ],
)
def _(a: int, b: int, q: int, r: int) -> Solution:
    return [f"{b} x {q} = {b * q}", f"{a} - {b * q} = {r}"], "no" if r else "yes"
