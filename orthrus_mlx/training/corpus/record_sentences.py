"""Records told in sentences: by naming every field, or the way people write."""

from __future__ import annotations

from random import Random
from typing import Any

from orthrus_mlx.training.corpus.words import article

Record = dict[str, Any]

# Fields whose value counts something.
_COUNTED = (
    *("pages", "seats", "servings", "minutes", "calories", "passengers", "seconds", "doors", "wins", "losses"),
    *("points", "beds", "leaves"),
)

# Record kind -> its subject's field, and what a sentence says of the others.
NATURAL: dict[str, tuple[str, dict[str, str]]] = {
    "person": (
        "name",
        {
            **{"age": "is {} years old", "city": "lives in {}", "job": "works as {a}", "birthday": "was born on {}"},
            **{"email": "can be reached at {}", "phone": "has the phone number {}"},
        },
    ),
    "book": (
        "title",
        {
            **{"author": "was written by {}", "year": "came out in {}", "pages": "has {} pages"},
            **{"language": "is written in {}", "genre": "belongs to the genre {}", "isbn": "has the number {}"},
        },
    ),
    "pet": (
        "pet_name",
        {
            "animal": "is {a}",
            "age": "is {} years old",
            "colour": "is {}",
            "weight": "weighs {} kg",
            "chip": "wears chip {}",
        },
    ),
    "movie": (
        "movie",
        {
            **{"director": "was directed by {}", "year": "came out in {}", "minutes": "runs for {} minutes"},
            **{"genre": "belongs to the genre {}", "rating": "got a rating of {}"},
        },
    ),
    "song": (
        "song",
        {
            **{"artist": "is sung by {}", "album": "is on the album {}", "seconds": "lasts {} seconds"},
            **{"year": "came out in {}", "rating": "got a rating of {}"},
        },
    ),
    "student": (
        "student",
        {
            "grade": "is in grade {}",
            "school": "goes to school in {}",
            "score": "has a score of {}",
            "locker": "uses locker {}",
        },
    ),
    "flight": (
        "flight",
        {
            **{
                "origin": "starts in {}",
                "destination": "goes to {}",
                "departure": "leaves at {}",
                "gate": "uses gate {}",
            },
            **{"arrival": "lands at {}", "passengers": "has {} passengers", "date": "is on {}"},
        },
    ),
    "team": (
        "team",
        {
            **{
                "coach": "is coached by {}",
                "wins": "has {} wins",
                "losses": "has {} losses",
                "points": "has {} points",
            },
            **{"founded": "was founded in {}"},
        },
    ),
    "employee": (
        "employee",
        {
            **{"department": "works in {}", "salary": "earns {} a month", "start_date": "started on {}"},
            **{"manager": "reports to {}", "desk": "sits at desk {}"},
        },
    ),
    "ship": (
        "ship",
        {
            "captain": "sails under {}",
            "length": "is {} m long",
            "crew": "has a crew of {}",
            "port": "belongs to the port of {}",
        },
    ),
}


def natural(kind: str, record: Record) -> str:
    """One sentence about a record whose first field is the kind's subject."""
    subject, phrases = NATURAL[kind]
    says = [phrases[key].format(value, a=article(str(value))) for key, value in record.items() if key != subject]
    head = f"{', '.join(says[:-1])} and {says[-1]}" if len(says) > 1 else says[0]
    return f"{record[subject]} {head}."


def listed(kind: str, record: Record, rng: Random) -> str:
    """Sentences that name every field; a key's underscores become spaces."""
    facts = [_fact(kind, key, value) for key, value in record.items()]
    style = rng.randrange(4)
    if style == 0:
        return f"There is {article(kind)}. " + " ".join(f"{fact[0].upper()}{fact[1:]}." for fact in facts)
    if style == 1:
        return f"About {article(kind)}: {' and '.join(facts)}."
    if style == 2:
        return f"We have {article(kind)}: {', '.join(facts[:-1])}, and {facts[-1]}."
    return f"For this {kind}, {facts[0]}. " + " ".join(f"Also, {fact}." for fact in facts[1:])


def _fact(kind: str, key: str, value: Any) -> str:
    words = key.replace("_", " ")
    if isinstance(value, bool):
        return f"the {kind} is {words}" if value else f"the {kind} is not {words}"
    if key in _COUNTED:
        return f"the number of {words} is {value}"
    return f"the {words} is {value}"
