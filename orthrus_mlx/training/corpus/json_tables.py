"""The JSON family: objects, lists of objects, Markdown tables and CSV from lists or sentences."""

from __future__ import annotations

import csv
import io
import json
import re
from random import Random
from typing import Any

from orthrus_mlx.training.corpus.core import Example, Message, Split, Verdict, assistant, user
from orthrus_mlx.training.corpus.record_sentences import NATURAL, Record, listed, natural
from orthrus_mlx.training.corpus.records import KINDS, NESTED_KINDS, RECORDS, draw_field, draw_record
from orthrus_mlx.training.corpus.styles import Style, draw_style, dress, undress
from orthrus_mlx.training.corpus.words import article

_BARE = Style(
    "bare",
    ("Answer with JSON only and no code fence.", "Reply with the bare JSON, without a code block.", "Output raw JSON."),
)

# {kind} is the record kind, {a_kind} with its article, {data} the fields as a list, {keys} their names.
_FROM_LIST = (
    "Write as JSON: {data}",
    "Turn this into JSON: {data}",
    "Write {a_kind} as JSON with these fields: {data}",
    "Convert to JSON: {data}",
    "Make a JSON object from: {data}",
    "Give me a JSON object for {a_kind}: {data}",
    "Please format this {kind} as JSON: {data}",
    "I need JSON for {a_kind} with {data}",
    "Create a JSON object. Fields: {data}",
    "JSON for {a_kind} record, please: {data}",
    "Here is {a_kind}: {data}. Write it as JSON.",
    "Can you write the following {kind} as JSON? {data}",
    "Build a JSON object that has {data}.",
    "Return JSON for this {kind}: {data}",
    "Express the {kind} below in JSON.\n{data}",
    "Represent as a JSON object: {data}",
    "Data of {a_kind}: {data}. Output JSON.",
    "Store this {kind} as JSON: {data}",
    "json please: {data}",
    "Write the JSON object for the {kind} with {data}.",
)
_FROM_PROSE = (
    "{prose} Write this as JSON with the keys {keys}.",
    "{prose} Make a JSON object with the keys {keys}.",
    "Read this: {prose} Give me JSON with the keys {keys}.",
    "Extract the keys {keys} as JSON from this text: {prose}",
    "Text: {prose}\nWrite a JSON object with the keys {keys}.",
    "From the following text, write JSON with the fields {keys}. {prose}",
    "{prose} Put that into JSON, using the keys {keys}.",
    "Use the keys {keys} and write as JSON: {prose}",
    "Please extract {keys} from this text as JSON. {prose}",
    "Fill the JSON keys {keys} from: {prose}",
)
_MANY = (
    "Write a JSON list of these {kind} records:\n{rows}",
    "Turn these lines into a JSON array:\n{rows}",
    "Convert this list to a JSON array of objects:\n{rows}",
    "Here are {count} {kind} records. Write them as a JSON list.\n{rows}",
    "Make a JSON array with one object per line:\n{rows}",
    "JSON list, one object for each line:\n{rows}",
    "Please write the following records as a JSON array:\n{rows}",
    "I have {count} lines. Give me a JSON array of objects.\n{rows}",
    "Represent these {count} {kind} records as a JSON list:\n{rows}",
    "List of {kind} records to JSON array:\n{rows}",
)
_TABLE = (
    "Make a Markdown table of these {kind} records:\n{rows}",
    "Turn these lines into a Markdown table:\n{rows}",
    "Write a Markdown table with the columns {keys}:\n{rows}",
    "Convert this list to a Markdown table:\n{rows}",
    "Here are {count} {kind} records. Show them as a Markdown table.\n{rows}",
    "Please put this into a Markdown table:\n{rows}",
    "Draw a Markdown table for:\n{rows}",
    "Format these {count} records as a Markdown table:\n{rows}",
    "I need a Markdown table with one row per line:\n{rows}",
    "Show the following as a table in Markdown:\n{rows}",
)
_CSV = (
    "Write these {kind} records as CSV:\n{rows}",
    "Turn these lines into CSV with a header line:\n{rows}",
    "Convert this list to CSV with the columns {keys}:\n{rows}",
    "Here are {count} {kind} records. Give me CSV.\n{rows}",
    "Please write this as CSV:\n{rows}",
    "CSV with a header, one row per line:\n{rows}",
    "Format these {count} records as CSV:\n{rows}",
    "I need a CSV file from this:\n{rows}",
    "Make CSV out of:\n{rows}",
    "Save the following as CSV:\n{rows}",
)
_CSV_TO_JSON = (
    "Convert this CSV to JSON:\n{csv}",
    "Turn the CSV below into a JSON array of objects:\n{csv}",
    "Here is some CSV. Write it as JSON.\n{csv}",
    "CSV to JSON, please:\n{csv}",
    "Read this CSV and write a JSON list:\n{csv}",
    "Make a JSON array from this CSV data:\n{csv}",
    "Please change this CSV into JSON:\n{csv}",
    "Each row of this CSV becomes one JSON object:\n{csv}",
    "Express this CSV as a JSON array:\n{csv}",
    "I have CSV and need JSON:\n{csv}",
)
ASKS = {
    "object": _FROM_LIST,
    "nested": _FROM_LIST,
    "prose": _FROM_PROSE,
    "natural": _FROM_PROSE,
    "array": _MANY,
    "table": _TABLE,
    "csv": _CSV,
    "csv_to_json": _CSV_TO_JSON,
}
_shape_weights = (5, 5, 3, 2, 3, 2, 1.5, 1.5)
# Said first: after the data they would read as a part of it.
_COMPACT = ("On one line, please. ", "Use compact JSON on one line. ", "Put it all on one line. ", "No line breaks. ")


def generate(rng: Random, split: Split, shape: str | None = None) -> Example:
    """One JSON or table conversation; `shape` is a key of ASKS."""
    shape = shape or rng.choices(list(ASKS), _shape_weights)[0]
    kind = rng.choice({"nested": NESTED_KINDS, "natural": tuple(NATURAL)}.get(shape, KINDS))
    while True:
        records = _draw(rng, kind, shape)
        if split.accepts(shape, [json.dumps(records)]):
            break
    wording = rng.choice(split.wordings(f"json/{shape}", len(ASKS[shape])))
    question = _ask(ASKS[shape][wording], shape, kind, records, rng)
    is_json = shape not in ("table", "csv")
    messages, style = draw_style(rng, *((_BARE, _BARE) if is_json else ()))
    compact = is_json and rng.random() < 0.12
    if compact:
        question = rng.choice(_COMPACT) + question
    value: Any = records[0] if shape in ("object", "nested", "prose", "natural") else records
    messages += [user(question), assistant(_answer(value, shape, compact, style))]
    if isinstance(value, dict):
        value, compact = _follow_ups(rng, kind, value, compact, style, messages)
    expected = {"value": value, "as": shape if not is_json else "json", "style": style, "compact": compact}
    return Example("json", shape, messages, expected, f"{shape}/{wording}")


def _draw(rng: Random, kind: str, shape: str) -> list[Record]:
    if shape == "object":
        return [draw_record(rng, kind, rng.randint(2, 6), nested=False)]
    if shape == "prose":
        return [draw_record(rng, kind, rng.randint(2, 5), nested=False)]
    if shape == "natural":
        subject, phrases = NATURAL[kind]
        keys = [subject, *rng.sample(list(phrases), rng.randint(2, min(4, len(phrases))))]
        full = draw_record(rng, kind, 99)
        return [{key: full[key] for key in keys}]
    if shape == "nested":
        while True:
            record = draw_record(rng, kind, rng.randint(3, 7))
            if any(isinstance(value, dict | list) for value in record.values()):
                return [record]
    first = draw_record(rng, kind, rng.randint(2, 4), nested=False)
    keys = list(first)
    records = [first]
    for _ in range(rng.randint(1, 3)):
        full = draw_record(rng, kind, 99, nested=False)
        records.append({key: full[key] for key in keys})
    return records


def _ask(template: str, shape: str, kind: str, records: list[Record], rng: Random) -> str:
    slots = {"kind": kind, "a_kind": article(kind), "count": str(len(records)), "keys": ", ".join(records[0])}
    if "{data}" in template:
        slots["data"] = ("\n" if "\n{data}" in template else "") + _fields(records[0], rng)
        slots["data"] = slots["data"].removeprefix("\n")
    if "{prose}" in template:
        record = records[0]
        slots["prose"] = natural(kind, record) if shape == "natural" else listed(kind, record, rng)
    if "{rows}" in template:
        slots["rows"] = "\n".join(f"- {_fields(record, None)}" for record in records)
    if "{csv}" in template:
        slots["csv"] = _to_csv(records)
    return template.format_map(slots)


def _fields(record: Record, rng: Random | None) -> str:
    """`name Anna, age 34, address (street Oak Road, city Porto), tags: red and blue` on one line."""
    sign = rng.choice((" ", ": ", " = ")) if rng else " "
    return ", ".join(f"{key}{sign}{_text(value, sign)}" for key, value in record.items())


def _text(value: Any, sign: str) -> str:
    if isinstance(value, dict):
        return f"({', '.join(f'{key}{sign}{_text(inner, sign)}' for key, inner in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _answer(value: Any, shape: str, compact: bool, style: str) -> str:
    if shape == "table":
        return dress(_to_table(value), style)
    if shape == "csv":
        return dress(f"```csv\n{_to_csv(value)}\n```", style)
    text = json.dumps(value) if compact else json.dumps(value, indent=2)
    return text if style == "bare" else dress(f"```json\n{text}\n```", style)


def _to_table(records: list[Record]) -> str:
    keys = list(records[0])
    rows = [keys, ["---"] * len(keys), *[[_text(record[key], " ") for key in keys] for record in records]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _to_csv(records: list[Record]) -> str:
    rows = [list(records[0]), *[[_text(value, " ") for value in record.values()] for record in records]]
    return "\n".join(",".join(row) for row in rows)


_ADD = (
    "Now add the field {key} with the value {value}.",
    "Add {key} {value}.",
    "Please add a field {key} = {value}.",
    "Also include {key}: {value}.",
)
_SET = (
    "Change {key} to {value}.",
    "Set {key} to {value}.",
    "Now {key} should be {value}.",
    "Please replace {key} with {value}.",
)
_DROP = ("Remove the field {key}.", "Delete {key}.", "Drop {key}, please.", "Leave out {key}.")
_RENAME = ("Rename {key} to {new}.", "Call the field {key} {new} instead.", "Change the key {key} to {new}.")
_ONE_LINE = ("Now write it on one line.", "Make it compact.", "The same on one line, please.")


def _follow_ups(
    rng: Random, kind: str, record: Record, compact: bool, style: str, messages: list[Message]
) -> tuple[Record, bool]:
    """Append up to two edits of the object; the object and its layout after them."""
    while rng.random() < 0.22 and len(messages) < 6:
        request, record, compact = _edit(rng, kind, record, compact)
        messages += [user(request), assistant(_answer(record, "object", compact, style))]
    return record, compact


def _edit(rng: Random, kind: str, record: Record, compact: bool) -> tuple[str, Record, bool]:
    record = dict(record)
    flat = [key for key, value in record.items() if not isinstance(value, dict | list)]
    choice = rng.random()
    added = draw_field(rng, kind, record)
    if choice < 0.4 and added:
        key, value = added
        record[key] = value
        return rng.choice(_ADD).format(key=key, value=_text(value, " ")), record, compact
    if choice < 0.6 and flat:
        key = rng.choice(flat)
        _, record[key] = draw_field(rng, kind, {k: 0 for k in RECORDS[kind] if k != key}) or (key, record[key])
        return rng.choice(_SET).format(key=key, value=_text(record[key], " ")), record, compact
    if choice < 0.75 and len(record) > 2:
        key = rng.choice(list(record))
        del record[key]
        return rng.choice(_DROP).format(key=key), record, compact
    if choice < 0.9 and flat:
        key = rng.choice(flat)
        new = rng.choice([word for word in ("label", "id", "info", "value_1", "main", "note") if word not in record])
        renamed = {new if old == key else old: value for old, value in record.items()}
        return rng.choice(_RENAME).format(key=key, new=new), renamed, compact
    return rng.choice(_ONE_LINE), record, True


_FENCE = re.compile(r"^```(\w+)\n(.*)\n```$", re.DOTALL)


def check(expected: dict[str, Any], answer: str) -> Verdict:
    """Whether the answer parses (JSON, CSV or Markdown) and equals the expected value, layout included."""
    style, kind, value = expected["style"], expected["as"], expected["value"]
    text, verdict = undress(answer, style)
    if not verdict.ok:
        return verdict
    if kind == "table":
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
        return _same_rows([rows[0], *rows[2:]] if len(rows) > 2 else rows, value)
    match = _FENCE.match(text)
    if (match is None) != (style == "bare"):
        return Verdict(False, "a code fence where none was asked for, or none where one belongs")
    body = match.group(2) if match else text
    if kind == "csv":
        return _same_rows(list(csv.reader(io.StringIO(body))), value)
    try:
        parsed = json.loads(body)
    except ValueError as error:
        return Verdict(False, f"not JSON: {error}")
    if parsed != value or json.dumps(parsed) != json.dumps(value):
        return Verdict(False, f"expected {json.dumps(value)}, got {json.dumps(parsed)}")
    if expected["compact"] and "\n" in body:
        return Verdict(False, "several lines where one was asked for")
    return Verdict(True)


def _same_rows(rows: list[list[str]], records: list[Record]) -> Verdict:
    want = [list(records[0]), *[[_text(value, " ") for value in record.values()] for record in records]]
    return Verdict(rows == want, "" if rows == want else f"expected rows {want}, got {rows}")
