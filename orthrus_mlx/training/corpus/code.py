"""The code family: requests for small Python functions, answered by a code block and an explanation."""

from __future__ import annotations

import re
from random import Random
from typing import Any

# The kind modules register what they define; nothing of them is used by name.
from orthrus_mlx.training.corpus import code_lists, code_numbers, code_strings  # noqa: F401
from orthrus_mlx.training.corpus.code_kind import KINDS, Kind, Names, fill
from orthrus_mlx.training.corpus.core import Example, Message, Split, Verdict, assistant, user
from orthrus_mlx.training.corpus.sandbox import run_programs
from orthrus_mlx.training.corpus.styles import Style, draw_style, dress, undress

_CODE_ONLY = Style(
    "code",
    ("Answer with code only.", "Reply with the code block and nothing else.", "Give code without explanations."),
)
# {f} is the function's name; the second group leaves the name to the model, which then takes the kind's own.
_NAMED = (
    "Write a Python function `{f}` that {does}.",
    "Write a function called `{f}` that {does}.",
    "Please write a Python function named {f} that {does}.",
    "Can you write a Python function {f} that {does}?",
    "I need a Python function `{f}` that {does}.",
    "Define a function {f} in Python that {does}.",
    "Create a Python function with the name `{f}` that {does}.",
    "Implement `{f}`, a Python function that {does}.",
    "Code a function `{f}` that {does}.",
    "Show me a Python function {f} that {does}.",
    "Give me a Python function called {f} that {does}.",
    "In Python, write `{f}`, which {does}.",
)
_UNNAMED = (
    "Write a Python function that {does}.",
    "I need a Python function that {does}.",
    "Can you write a function that {does}?",
    "Show me a Python function that {does}.",
    "How do I write a Python function that {does}?",
)
_ONE_ARGUMENT = (
    " It takes {args}.",
    " Use the argument name {args}.",
    " The parameter is {args}.",
    " Call the argument {args}.",
    " Argument: {args}.",
)
_SOME_ARGUMENTS = (
    " It takes {args}.",
    " Use the argument names {args}.",
    " The parameters are {args}.",
    " Call the arguments {args}.",
    " Arguments: {args}.",
)
_PREFIXES = (
    "my_ get_ do_ calc_ compute_ find_ run_ py_ simple_ quick_ new_ the_ make_ task_ a_ try_ lib_ our_ util_ to_"
).split()
_SUFFIXES = "_fn _value _v2 _now _helper _simple _2 _fast _3 _a _b _test _func _tool _main _x _one _it _py _1".split()
_RENAME = (
    "Rename the function to `{f}`.",
    "Please call the function {f} instead.",
    "Now change the name of the function to {f}.",
    "Can you rename it to `{f}`?",
)
_RENAME_ARGUMENTS = (
    "Rename the arguments to {args}.",
    "Use {args} as argument names instead.",
    "Please name the arguments {args}.",
)
_CHANGE = (
    "Use {new} instead of {old}.",
    "Now take {new} instead of {old}.",
    "Change {old} to {new}.",
    "Please replace the {old} by {new}.",
)
_ONLY_CODE = ("Give me only the code.", "Just the code, please.", "Show the code again without the explanation.")


def generate(rng: Random, split: Split, shape: str | None = None) -> Example:
    """One code conversation; `shape` fixes the kind of function."""
    while True:
        chosen = KINDS[shape] if shape else KINDS[rng.choice(list(KINDS))]
        wordings = split.wordings(f"code/{chosen.name}", len(chosen.does))
        if wordings:
            return _conversation(rng, split, chosen, wordings)


def _conversation(rng: Random, split: Split, kind: Kind, wordings: list[int]) -> Example:
    while True:
        names, question_parts = _draw_names(rng, kind)
        if split.accepts(kind.name, list(names.values())):
            break
    wording = rng.choice(wordings)
    frame, tail = question_parts
    does = fill(kind.does[wording], names)
    question = (frame + tail).format(f=names["f"], does=does, args=_argument_list(kind, names))
    messages, style = draw_style(rng, _CODE_ONLY)
    messages += [user(question), assistant(_answer(kind, names, style))]
    names, style_now = _follow_ups(rng, kind, names, style, messages)
    expected = {"function": names["f"], "cases": kind.results(names), "style": style_now}
    return Example("code", kind.name, messages, expected, f"{kind.name}/{wording}")


def _draw_names(rng: Random, kind: Kind) -> tuple[Names, tuple[str, str]]:
    names = kind.default_names() | kind.draw_constants(rng)
    frame, tail = rng.choice(_UNNAMED), ""
    # A kind without constants has no other values to hold out, so its requests always name something.
    named = rng.random() < (0.8 if kind.constants else 0.9)
    if named:
        frame = rng.choice(_NAMED)
        names["f"] = _function_name(rng, kind)
    if rng.random() < 0.4 or not (named or kind.constants):
        tail = rng.choice(_ONE_ARGUMENT if len(kind.arguments[0]) == 1 else _SOME_ARGUMENTS)
        names |= kind.argument_names(rng.randrange(len(kind.arguments)))
    return names, (frame, tail)


def _function_name(rng: Random, kind: Kind) -> str:
    name = rng.choice(kind.functions)
    chance = rng.random()
    if chance < 0.35:
        return rng.choice(_PREFIXES) + name
    return name + rng.choice(_SUFFIXES) if chance < 0.65 else name


def _argument_list(kind: Kind, names: Names) -> str:
    quoted = [f"`{names[place]}`" for place in "abc"[: len(kind.arguments[0])]]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _answer(kind: Kind, names: Names, style: str) -> str:
    code = f"```python\n{fill(kind.code, names)}\n```"
    return code if style == "code" else dress(f"{code}\n{fill(kind.explain, names)}", style)


def _follow_ups(rng: Random, kind: Kind, names: Names, style: str, messages: list[Message]) -> tuple[Names, str]:
    """Append up to two changes of the function; the names and the style of the last answer."""
    while rng.random() < 0.2 and len(messages) < 6:
        chance = rng.random()
        names = dict(names)
        if chance < 0.15 and style == "":
            messages += [user(rng.choice(_ONLY_CODE)), assistant(_answer(kind, names, "code"))]
            return names, "code"
        if chance < 0.45 and kind.constants:
            place = rng.choice(list(kind.constants))
            old, new = names[place], kind.draw_constants(rng)[place]
            if old == new or list(names.values()).count(old) > 1:
                continue
            names[place] = new
            request = rng.choice(_CHANGE).format(old=old, new=new)
        elif chance < 0.65:
            names |= kind.argument_names(rng.randrange(len(kind.arguments)))
            request = rng.choice(_RENAME_ARGUMENTS).format(args=_argument_list(kind, names))
            if len(kind.arguments[0]) == 1:
                request = request.replace("arguments", "argument").replace("argument names", "argument name")
        else:
            names["f"] = _function_name(rng, kind)
            request = rng.choice(_RENAME).format(f=names["f"])
        messages += [user(request), assistant(_answer(kind, names, style))]
    return names, style


_BLOCK = re.compile(r"```python\n(.*?)\n```(.*)", re.DOTALL)


def program(expected: dict[str, Any], answer: str) -> dict[str, Any] | Verdict:
    """What `run_programs` takes for this answer, or why there is nothing to run."""
    text, verdict = undress(answer, expected["style"])
    if not verdict.ok:
        return verdict
    match = _BLOCK.match(text)
    if match is None:
        return Verdict(False, "no ```python block at the start")
    if bool(match.group(2).strip()) == (expected["style"] == "code"):
        return Verdict(False, "an explanation where none was asked for, or none where one belongs")
    return {"code": match.group(1), "function": expected["function"], "cases": expected["cases"]}


def check(expected: dict[str, Any], answer: str) -> Verdict:
    """Run the answer's function on the kind's cases in a subprocess."""
    runnable = program(expected, answer)
    if isinstance(runnable, Verdict):
        return runnable
    reason = run_programs([runnable])[0]
    return Verdict(not reason, reason)
