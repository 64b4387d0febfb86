"""Checks kernel text against Metal's address spaces and the house rules, without running it.

libclang (`pip install libclang`) compiles the text with address spaces as part of the types, so that mixing
them is an error, as it is for Apple's compiler. What clang accepts and Metal or this project does not is
found in its syntax tree or by token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from tests.emulator.errors import EmulatorError, Finding
from tests.emulator.preprocess import (
    ATTRIBUTE,
    KERNEL,
    UNSUFFIXED,
    Origin,
    Token,
    storage_end,
    tokens,
    uncommented,
)

HEADERS = Path(__file__).parent / "lint"
FLAGS = ["-xc++", "-std=gnu++14", "-w", "-Wno-reserved-user-defined-literal", "-ferror-limit=20", f"-I{HEADERS}"]
PREFIX = '#include "msl_lint.h"\n'
SCALARS = "bool|char|uchar|short|ushort|int|uint|long|ulong|half|float|bfloat"
VECTOR = re.compile(rf"(?:{SCALARS})[234]")

# Tokens that clang accepts and Metal, or a second compiler for the same text, does not.
DENIED = {
    r"\bdouble\b": "Metal has no double",
    r"\bnew\b|\bdelete\b": "no dynamic memory in Metal",
    r"\bvirtual\b|\bdynamic_cast\b|\btypeid\b": "no run-time types in Metal",
    r"\bthrow\b|\btry\b|\bcatch\b": "no exceptions in Metal",
    r"\bgoto\b": "no goto in Metal",
    r"\bstd\s*::": "Metal's library is metal::, not std::",
    r"\bauto\s*&{0,2}\s*\[": "no structured bindings in MSL 3 (C++14)",
    r"\(\s*(?:const\s+|volatile\s+)*(?:device|threadgroup|constant|thread)\b[^()]*\*\s*(?:const\s*)?\)\s*[\w(&*]": (
        "a C-style pointer cast may change the address space unseen: use reinterpret_cast"
    ),
}


@cache
def _cindex():
    try:
        from clang import cindex
    except ImportError as error:
        raise EmulatorError("the lint needs libclang: pip install libclang") from error
    return cindex


def lint(text: str, *, origins: tuple[Origin, ...] = (), tiny: Collection[str] | None = None) -> list[Finding]:
    """What is wrong with a kernel's generated `text`, kind "address space" or "house rule"; [] if nothing.

    The text is checked a second time as MLX generates it for inputs of fewer than 8 elements, which it moves
    to the constant address space. `tiny` names the inputs that can be so small; None: all of them.
    """
    findings = [*_denied(text, origins), *_compiled(text, origins)]
    smaller = with_tiny_inputs(text, tiny)
    if smaller != text and not findings:
        for finding in _compiled(smaller, origins):
            message = f"{finding.message} (with an input of fewer than 8 elements)"
            findings.append(Finding(finding.kind, message, finding.file, finding.line))
    return findings


def with_tiny_inputs(text: str, names: Collection[str] | None = None) -> str:
    """The text as MLX generates it when the named inputs (None: all) have fewer than 8 elements."""
    match = KERNEL.search(uncommented(text))
    if not match:
        return text
    end = text.find("{", match.end())
    signature = re.sub(
        r"\bconst device\b([^,]*?\*\s*(\w+))",
        lambda found: f"const constant{found[1]}" if names is None or found[2] in names else found[0],
        text[match.end() : end],
    )
    return text[: match.end()] + signature + text[end:]


def _place(line: int, origins: tuple[Origin, ...]) -> tuple[str, int]:
    origin = max((o for o in origins if o.start <= line), key=lambda o: o.start, default=Origin(1, "kernel", 1))
    return origin.file, origin.line + line - origin.start


def _denied(text: str, origins: tuple[Origin, ...]) -> Iterator[Finding]:
    code = uncommented(text)
    for pattern, reason in DENIED.items():
        for match in re.finditer(pattern, code):
            yield _rule(reason, code.count("\n", 0, match.start()) + 1, origins)
    line = 1
    bodies = _kernel_bodies(code)
    stream = tokens(text)
    at = 0
    before = ";"
    for i, token in enumerate(stream):
        if token.kind == "number" and UNSUFFIXED.fullmatch(token.text):
            yield _rule(f"{token.text} has no suffix: write {token.text}f", line, origins)
        storage = token.text == "threadgroup" and before in (";", "{", "}") and storage_end(stream, i)
        if storage and not any(first <= at < last for first, last in bodies):
            yield _rule("threadgroup memory is declared outside the kernel's body", line, origins)
        if token.kind not in ("space", "comment"):
            before = token.text
        line += token.text.count("\n")
        at += len(token.text)


def _rule(message: str, line: int, origins: tuple[Origin, ...]) -> Finding:
    return Finding("house rule", message, *_place(line, origins))


def _kernel_bodies(code: str) -> list[tuple[int, int]]:
    bodies = []
    for match in KERNEL.finditer(code):
        first = code.find("{", match.end())
        depth = 0
        for at in range(first, len(code)):
            depth += (code[at] == "{") - (code[at] == "}")
            if depth == 0:
                bodies.append((first, at))
                break
    return bodies


def _compiled(text: str, origins: tuple[Origin, ...]) -> list[Finding]:
    cindex = _cindex()
    unit = PREFIX + _with_address_spaces(text)
    parsed = cindex.Index.create().parse("kernel.cpp", args=FLAGS, unsaved_files=[("kernel.cpp", unit)])
    findings = []
    for diagnostic in parsed.diagnostics:
        if diagnostic.severity >= cindex.Diagnostic.Error:
            place = diagnostic.location
            if place.file and place.file.name != "kernel.cpp":
                raise EmulatorError(f"{place.file.name}:{place.line}: {diagnostic.spelling}")
            notes = [note.spelling for note in diagnostic.children if "address space" in note.spelling]
            message = "; ".join([diagnostic.spelling, *notes[:1]])
            findings.append(Finding("address space", message, *_place(place.line - 1, origins)))
    kernels = set(KERNEL.findall(uncommented(text)))
    for message, line in _disliked(parsed.cursor, kernels):
        findings.append(_rule(message, line - 1, origins))
    return findings


def _disliked(root, kernels: set[str]) -> Iterator[tuple[str, int]]:
    """(message, line) for functions without METAL_FUNC, recursion and pointers to functions."""
    kinds = _cindex().CursorKind
    functions = (kinds.FUNCTION_DECL, kinds.FUNCTION_TEMPLATE, kinds.CXX_METHOD)
    for cursor in root.walk_preorder():
        place = cursor.location
        if not place.file or place.file.name != "kernel.cpp":
            continue
        if cursor.kind in functions and cursor.is_definition() and cursor.spelling not in kernels:
            if not any(child.kind == kinds.ANNOTATE_ATTR for child in cursor.get_children()):
                yield f"function {cursor.spelling} lacks METAL_FUNC", place.line
            for inner in cursor.walk_preorder():
                if inner.kind == kinds.CALL_EXPR and inner.referenced and inner.referenced == cursor:
                    yield f"function {cursor.spelling} calls itself", inner.location.line
        pointee = cursor.type.get_pointee().kind
        if cursor.kind in (kinds.VAR_DECL, kinds.PARM_DECL) and pointee == _cindex().TypeKind.FUNCTIONPROTO:
            yield f"{cursor.spelling} points to a function", place.line


def _with_address_spaces(text: str) -> str:
    """C++ for clang: attributes gone, threadgroup memory static, vector constructors by emu_make."""
    stream = tokens(text)
    significant = [i for i, token in enumerate(stream) if token.kind not in ("space", "comment")]
    for number, i in enumerate(significant):
        token = stream[i]
        before = stream[significant[number - 1]].text if number else ";"
        after = stream[significant[number + 1]].text if number + 1 < len(significant) else ""
        if token.kind == "attribute":
            token.text = "\n" * token.text.count("\n")
        elif token.kind == "directive":
            token.text = re.sub(r"^\s*#\s*include\s*<metal_\w+>.*", "", ATTRIBUTE.sub("", token.text))
        elif token.kind == "number":
            token.text = UNSUFFIXED.sub(r"\1f", token.text)
        elif token.text == "threadgroup" and (before in (";", "{", "}", ":") or before.lstrip().startswith("#")):
            if storage_end(stream, i):
                token.text = "static threadgroup"
        elif VECTOR.fullmatch(token.text) and after == "(":
            token.text = f"emu_make<{token.text}>"
        elif token.text == "vec" and after == "<":
            _vector_constructor(stream, significant, number)
    return "".join(token.text for token in stream)


def _vector_constructor(stream: list[Token], significant: list[int], number: int) -> None:
    depth = 0
    for place in range(number + 1, len(significant) - 1):
        text = stream[significant[place]].text
        depth += (text == "<") - (text == ">")
        if text in ";{}":
            return
        if depth == 0:
            if stream[significant[place + 1]].text == "(":
                stream[significant[number]].text = "emu_make<vec"
                stream[significant[place]].text = ">>"
            return
