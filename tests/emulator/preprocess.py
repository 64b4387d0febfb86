"""Turns Metal text into C++ that means the same on one thread of a CPU, line for line.

Address spaces are erased, threadgroup arrays become references into the runtime's memory, attributes are
read (they bind the kernel's parameters) and removed. Every line keeps its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.emulator.errors import EmulatorError

TOKEN = re.compile(
    r"""
    (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<directive>^[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
  | (?P<word>[A-Za-z_]\w*)
  | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
  | (?P<space>\s+)
  | (?P<attribute>\[\[[^\[\]]*\]\])
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
ATTRIBUTE = re.compile(r"\[\[\s*(\w+)\s*(?:\(\s*([^()]*?)\s*\))?[^\]]*\]\]")
KERNEL = re.compile(r"(?:\[\[\s*kernel\s*\]\]|\bkernel)\s+void\s+(\w+)\s*\(")
INSTANTIATION = re.compile(
    r"template\s*\[\[\s*host_name\(\"([^\"]+)\"\)\s*\]\]\s*\[\[\s*kernel\s*\]\]\s*decltype\s*\((.*?)\)\s*[^;]*;",
    re.DOTALL,
)
# Metal has no double: 0.5 is a float there
UNSUFFIXED = re.compile(
    r"(?<![\w.])((?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|0[xX][\da-fA-F.]+[pP][+-]?\d+)(?![\w.])"
)
SWIZZLE = re.compile(r"[xyzw]{2,4}|[rgba]{2,4}")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel function. `buffer` is its buffer index, or None for a built-in value."""

    name: str
    attribute: str
    buffer: int | None
    kind: str  # "pointer", "reference" or "value"
    writable: bool


@dataclass(frozen=True)
class Origin:
    """From line `start` (from 1) of a text on, its lines are those of `file` from `line` on."""

    start: int
    file: str
    line: int


@dataclass
class Token:
    kind: str
    text: str


@dataclass(frozen=True)
class Program:
    """C++ text of a kernel and what its parameters are."""

    text: str
    parameters: tuple[Parameter, ...]
    kernel: str


def tokens(text: str) -> list[Token]:
    return [Token(match.lastgroup or "mark", match.group()) for match in TOKEN.finditer(text)]


def uncommented(text: str) -> str:
    """The text with comments blanked out, every other character at its place."""

    def blank(token: Token) -> str:
        return re.sub(r"[^\n]", " ", token.text) if token.kind == "comment" else token.text

    return "".join(blank(token) for token in tokens(text))


def translate(text: str, *, entry: str | None = None, origins: tuple[Origin, ...] = ()) -> Program:
    """C++ for the Metal `text`.

    `entry` names the kernel to run, with template arguments where it has some ("scale<float, 4>"). Without
    it the text must hold exactly one explicit instantiation (MLX generates one) or one plain kernel.
    """
    code = uncommented(text)
    entry = entry or _sole_entry(code)
    kernel = re.split(r"[<\s]", entry, maxsplit=1)[0]
    parameters = _parameters(code, kernel)
    body = "".join(token.text for token in _rewritten(tokens(text)))
    call = ", ".join(_argument(parameter) for parameter in parameters)
    lines = _numbered(body, origins)
    unit = (
        '#include "mlx_prelude.h"\n#include "msl_builtins.h"\n'
        f"{lines}\n"
        '#line 1 "entry"\n'
        'extern "C" __attribute__((visibility("hidden"))) EMU_UNCHECKED_ACCESS '
        "void emu_entry(void *const *emu_buffers) {\n"
        f"  {entry}({call});\n"
        "}\n"
    )
    return Program(unit, parameters, kernel)


def _sole_entry(code: str) -> str:
    instantiated = [match.group(2).strip() for match in INSTANTIATION.finditer(code)]
    names = instantiated or KERNEL.findall(code)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise EmulatorError(f"kernel text must hold one kernel, found {found}: name one (entry=, --entry)")
    return names[0]


def _parameters(code: str, kernel: str) -> tuple[Parameter, ...]:
    for match in KERNEL.finditer(code):
        if match.group(1) == kernel:
            break
    else:
        raise EmulatorError(f"kernel text has no kernel function {kernel!r}: mark it [[kernel]] void {kernel}(...)")
    parameters = []
    for number, declaration in enumerate(_split(code, match.end())):
        attribute = ATTRIBUTE.search(declaration)
        declarator = ATTRIBUTE.sub(" ", declaration)
        name = re.findall(r"\w+", re.sub(r"\[.*?\]", "", declarator))[-1]
        kind = "pointer" if "*" in declarator else "reference" if "&" in declarator else "value"
        if kind == "value" and not attribute:
            raise EmulatorError(f"kernel {kernel!r}: parameter {number} ({name}) has no attribute")
        label = attribute.group(1) if attribute else "buffer"
        if kind == "value":
            parameters.append(Parameter(name, label, None, kind, False))
            continue
        if label != "buffer":
            raise EmulatorError(f"kernel {kernel!r}: parameter {name} is a {label}; only buffers can be bound")
        index = int(attribute.group(2)) if attribute else len(parameters)
        writable = not re.search(r"\b(const|constant)\b", declarator)
        parameters.append(Parameter(name, label, index, kind, writable))
    return tuple(parameters)


def _split(code: str, start: int) -> list[str]:
    """The comma-separated parts from `start` to the parenthesis that closes there."""
    depth, parts, part = 0, [], ""
    for character in code[start:]:
        if character in "([{<":
            depth += 1
        elif character in ")]}>":
            if depth == 0:
                break
            depth -= 1
        if character == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += character
    return [part for part in [*parts, part] if part.strip()]


def _argument(parameter: Parameter) -> str:
    if parameter.kind == "pointer":
        return f"emu::Pointer{{emu_buffers[{parameter.buffer}]}}"
    if parameter.kind == "reference":
        return f"emu::Reference{{emu_buffers[{parameter.buffer}]}}"
    return f"emu::builtins::{parameter.attribute}()"


def _numbered(body: str, origins: tuple[Origin, ...]) -> str:
    lines = body.split("\n")
    starts = {origin.start: f'#line {origin.line} "{origin.file}"' for origin in origins}
    starts.setdefault(1, '#line 1 "kernel"')
    return "\n".join(f"{starts[n]}\n{line}" if n in starts else line for n, line in enumerate(lines, 1))


def _rewritten(stream: list[Token]) -> list[Token]:
    arrays = 0
    significant = [i for i, token in enumerate(stream) if token.kind not in ("space", "comment")]
    for place, i in enumerate(significant):
        token = stream[i]
        before = stream[significant[place - 1]].text if place else ";"
        after = stream[significant[place + 1]].text if place + 1 < len(significant) else ""
        if token.kind == "directive":
            token.text = _directive(token.text)
        elif token.kind == "attribute":
            token.text = _blank(token.text)
        elif token.kind == "number":
            token.text = UNSUFFIXED.sub(r"\1f", token.text)
        elif token.kind != "word":
            continue
        elif token.text in ("device", "thread", "kernel"):
            token.text = ""
        elif token.text == "constant":
            token.text = "" if {before, after} & {"const", "constexpr"} else "const"
        elif token.text == "threadgroup":
            token.text = ""
            if before in (";", "{", "}", ":") or before.lstrip().startswith("#"):
                arrays += _threadgroup_arrays(stream, i, arrays)
        elif before == "." and SWIZZLE.fullmatch(token.text) and after != "(":
            picks = ", ".join(str("xyzw".find(c) if c in "xyzw" else "rgba".find(c)) for c in token.text)
            token.text = f"template swizzle<{picks}>()"
    return stream


def _blank(text: str) -> str:
    return "\n" * text.count("\n")


def _directive(text: str) -> str:
    if re.match(r"\s*#\s*include\s*<metal_\w+>", text):
        return ""
    text = UNSUFFIXED.sub(r"\1f", ATTRIBUTE.sub("", text))
    text = re.sub(r"\b(const|constexpr)(\s+)constant\b|\bconstant(\s+)(const|constexpr)\b", r"\1\4\2\3", text)
    text = re.sub(r"\bconstant\b", "const", text)
    return re.sub(r"(?<!#)\b(device|thread|threadgroup|kernel)\b", "", text)


def storage_end(stream: list[Token], start: int) -> int | None:
    """Index of the ";" that ends the declaration at the word `threadgroup` stream[start], if it reserves memory.

    None where `threadgroup` qualifies a pointer, a reference or a parameter.
    """
    square = angle = 0
    for end in range(start + 1, len(stream)):
        text = stream[end].text
        if stream[end].kind in ("comment", "space"):
            continue
        square += (text == "[") - (text == "]")
        if square == 0:
            angle += (text == "<") - (text == ">")
        if square == 0 and angle == 0:
            if text == ";":
                return end
            if text in ("*", "&", "(", ")", "{", "}"):
                return None
    return None


def _threadgroup_arrays(stream: list[Token], start: int, first: int) -> int:
    """Rewrites the declaration at stream[start] if it reserves threadgroup memory; the number of arrays."""
    end = storage_end(stream, start)
    if end is None:
        return 0
    declaration = [token for token in stream[start + 1 : end] if token.kind != "comment"]
    newlines = "".join(token.text for token in stream[start:end]).count("\n")
    declarators, kind = _declarators(declaration)
    made = ""
    for number, (name, extents) in enumerate(declarators):
        made += (
            f"typedef {kind} {name}__t{extents}; auto &{name} = "
            f'emu::threadgroup_array<{name}__t, {first + number}>("{name}"); '
        )
    for token in stream[start:end]:
        token.text = ""
    stream[start].text = made.rstrip("; ") + "\n" * newlines
    return len(declarators)


def _declarators(declaration: list[Token]) -> tuple[list[tuple[str, str]], str]:
    """[(name, "[N][M]")] and the type of a declaration without initialisers."""
    parts: list[list[Token]] = [[]]
    angle = square = 0
    for token in declaration:
        square += (token.text == "[") - (token.text == "]")
        if square == 0:
            angle += (token.text == "<") - (token.text == ">")
        if token.text == "," and angle == 0 and square == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    declarators, kind = [], ""
    for number, part in enumerate(parts):
        angle = 0
        name_at = 0
        for i, token in enumerate(part):
            angle += (token.text == "<") - (token.text == ">")
            if token.text == "[" and angle == 0:
                break
            if token.kind == "word":
                name_at = i
        if number == 0:
            kind = " ".join("".join(token.text for token in part[:name_at]).split())
        extents = "".join(token.text for token in part[name_at + 1 :]).strip().replace("\n", " ")
        declarators.append((part[name_at].text, extents))
    return declarators, kind
