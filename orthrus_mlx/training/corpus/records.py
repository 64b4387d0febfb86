"""Record kinds for the JSON family: fields with values, some nested, some lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from orthrus_mlx.training.corpus.core import Sampler, ints, pick
from orthrus_mlx.training.corpus.words import (
    ANIMALS,
    COLOURS,
    COUNTRIES,
    FIRST_NAMES,
    ITEMS,
    MONTHS,
    SHORT_WORDS,
    STREET_KINDS,
    STREETS,
    SURNAMES,
    TOWNS,
    VILLAGES,
    WEEKDAYS,
)

Fields = Mapping[str, Any]  # key -> sampler, or a nested Fields


def _full_name(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(SURNAMES)}"


def _date(rng: Random) -> str:
    return f"{rng.randint(1990, 2029)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 11) * 5:02d}"


def _code(rng: Random) -> str:
    letters = "ABCDEFGHJKLMNPRSTVWXZ"
    return f"{rng.choice(letters)}{rng.choice(letters)}-{rng.randint(100, 9999)}"


def _street(rng: Random) -> str:
    return f"{rng.choice(STREETS)} {rng.choice(STREET_KINDS)}"


def _email(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES).lower()}{rng.randint(1, 99)}@{rng.choice(('example.com', 'example.org'))}"


def _phone(rng: Random) -> str:
    return f"555-{rng.randint(0, 9999):04d}"


def _title(rng: Random) -> str:
    frame = rng.choice(("The {c} {w}", "{c} {w}", "A {w} in {t}", "The {w} of {t}", "{w} and {x}", "My {c} {w}"))
    words = {"c": rng.choice(COLOURS), "w": rng.choice(SHORT_WORDS), "x": rng.choice(SHORT_WORDS)}
    return frame.format(**{k: v.capitalize() for k, v in words.items()}, t=rng.choice(VILLAGES))


def _decimal(low: int, high: int) -> Sampler:
    # One or two decimals, the last one never zero, so that the number is written in one way only.
    return lambda rng: round(rng.randint(low, high) + rng.choice((0.5, 0.25, 0.75, 0.1, 0.2, 0.9, 0.95, 0.99)), 2)


@dataclass(frozen=True)
class Several:
    """Samples a list of one to four different members of `pool`."""

    pool: tuple[str, ...]

    def __call__(self, rng: Random) -> list[str]:
        return rng.sample(self.pool, rng.randint(1, 4))


_name = pick(FIRST_NAMES)
_town = pick(TOWNS)
_flag = pick((True, False))
_small = ints(1, 20)
_address = {"street": _street, "number": ints(1, 199), "city": _town, "postcode": ints(10000, 99999)}
_position = {"x": ints(0, 99), "y": ints(0, 99)}

_HOBBIES = ("chess", "music", "running", "reading", "painting", "cooking", "dancing", "cycling", "sailing", "tennis")
_GENRES = ("drama", "comedy", "fantasy", "history", "crime", "romance", "adventure", "horror", "mystery", "western")
_MUSIC = ("rock", "jazz", "pop", "folk", "blues", "soul", "classical", "techno", "swing", "reggae", "opera", "disco")
_JOBS = (
    "baker", "teacher", "nurse", "engineer", "painter", "driver", "farmer", "singer", "doctor", "pilot", "cook",
    "writer", "tailor", "plumber", "librarian", "gardener",
)  # fmt: skip
_FOODS = ("flour", "sugar", "butter", "milk", "rice", "salt", "honey", "cheese", "beans", "onions", "cream", "oil")
_DISHES = tuple(
    """soup salad stew pancakes pizza pasta risotto curry omelette lasagne porridge pie dumplings noodles gratin
    goulash paella ratatouille chowder casserole meatballs waffles muffins tart pudding""".split()
)
_PLANTS = tuple(
    """fern cactus orchid ivy basil mint rose tulip lily palm aloe lavender begonia geranium bamboo violet daisy
    thyme rosemary poppy peony iris jasmine sunflower""".split()
)
_DEPARTMENTS = ("sales", "finance", "research", "design", "support", "marketing", "planning", "legal", "security")
_LANGUAGES = ("English", "German", "French", "Spanish", "Polish", "Turkish", "Hindi", "Greek", "Dutch", "Czech")
_STATES = ("open", "closed", "new", "paid", "late", "sent", "done", "active", "lost", "ready")

RECORDS: dict[str, Fields] = {
    "person": {
        **{"name": _full_name, "first_name": _name, "last_name": pick(SURNAMES), "age": ints(1, 99)},
        **{"city": _town, "email": _email, "phone": _phone, "job": pick(_JOBS), "married": _flag},
        **{"birthday": _date, "address": _address, "hobbies": Several(_HOBBIES)},
    },
    "order": {
        **{"order_id": _code, "customer": _full_name, "date": _date, "total": _decimal(1, 400), "paid": _flag},
        **{"items": Several(ITEMS), "status": pick(_STATES), "shipping": _address},
    },
    "product": {
        **{"product": pick(ITEMS), "sku": _code, "price": _decimal(1, 200), "colour": pick(COLOURS)},
        **{"in_stock": _flag, "quantity": ints(0, 500), "weight": _decimal(0, 30), "tags": Several(SHORT_WORDS)},
        **{"size": {"width": ints(1, 99), "height": ints(1, 99), "depth": ints(1, 99)}},
    },
    "book": {
        **{"title": _title, "author": _full_name, "year": ints(1900, 2025), "pages": ints(40, 900)},
        **{"genre": pick(_GENRES), "language": pick(_LANGUAGES), "available": _flag, "isbn": _code},
        **{"publisher": {"name": pick(SURNAMES), "city": _town}},
    },
    "event": {
        **{"event": _title, "date": _date, "start": _time, "end": _time, "city": _town, "free": _flag},
        **{"seats": ints(10, 900), "speakers": Several(FIRST_NAMES), "organiser": _full_name},
        **{"venue": {"name": pick(VILLAGES), "street": _street, "rooms": _small}},
    },
    "recipe": {
        **{"dish": pick(_DISHES), "servings": ints(1, 12), "minutes": ints(5, 180), "vegetarian": _flag},
        **{"ingredients": Several(_FOODS), "level": pick(("easy", "medium", "hard")), "calories": ints(50, 900)},
    },
    "address": {
        **{"street": _street, "number": ints(1, 199), "city": _town, "postcode": ints(10000, 99999)},
        **{"country": pick(COUNTRIES), "floor": ints(0, 20), "resident": _full_name},
    },
    "flight": {
        **{"flight": _code, "origin": _town, "destination": _town, "departure": _time, "arrival": _time, "gate": _code},
        **{"passengers": ints(1, 300), "delayed": _flag, "airline": pick(VILLAGES), "date": _date},
        **{"pilot": {"name": _full_name, "hours": ints(100, 9000)}},
    },
    "pet": {
        **{"pet_name": _name, "animal": pick(ANIMALS), "age": ints(1, 20), "colour": pick(COLOURS)},
        **{"vaccinated": _flag, "weight": _decimal(0, 60), "toys": Several(ITEMS), "chip": _code},
        **{"owner": {"name": _full_name, "phone": _phone}},
    },
    "song": {
        **{"song": _title, "artist": _full_name, "album": _title, "seconds": ints(60, 600), "year": ints(1950, 2025)},
        **{"genre": pick(_MUSIC), "live": _flag, "rating": ints(1, 10)},
    },
    "sensor": {
        **{"sensor_id": _code, "temperature": _decimal(-20, 40), "humidity": ints(0, 100), "battery": ints(0, 100)},
        **{"online": _flag, "room": pick(("kitchen", "hall", "attic", "cellar", "office", "garage", "bathroom"))},
        **{"position": _position, "last_contact": _time, "firmware": _code},
    },
    "invoice": {
        **{"invoice": _code, "client": _full_name, "issue_date": _date, "due_date": _date, "amount": _decimal(5, 900)},
        **{"currency": pick(("EUR", "USD", "GBP", "CHF", "SEK", "PLN")), "paid": _flag, "billing": _address},
    },
    "movie": {
        **{"movie": _title, "director": _full_name, "year": ints(1930, 2025), "minutes": ints(60, 200)},
        **{"actors": Several(SURNAMES), "genre": pick(_GENRES), "rating": ints(1, 10), "watched": _flag},
    },
    "student": {
        **{"student": _full_name, "grade": ints(1, 12), "school": pick(VILLAGES), "subjects": Several(_LANGUAGES)},
        **{"present": _flag, "score": ints(0, 100), "teacher": pick(SURNAMES), "locker": _code},
    },
    "car": {
        **{"model": pick(VILLAGES), "plate": _code, "doors": ints(2, 5), "year": ints(1970, 2025)},
        **{"colour": pick(COLOURS), "electric": _flag, "mileage": ints(0, 300000), "seats": ints(2, 9)},
        **{"engine": {"power": ints(40, 400), "fuel": pick(("petrol", "diesel", "gas", "electric"))}},
    },
    "team": {
        **{"team": pick(VILLAGES), "coach": _full_name, "players": Several(FIRST_NAMES), "wins": ints(0, 40)},
        **{"losses": ints(0, 40), "points": ints(0, 99), "founded": ints(1880, 2024), "stadium": pick(STREETS)},
    },
    "forecast": {
        **{"city": _town, "day": pick(WEEKDAYS), "high": ints(-5, 40), "low": ints(-20, 20), "rainy": _flag},
        **{"wind": ints(0, 120), "sky": pick(("clear", "cloudy", "grey", "foggy", "stormy")), "sunrise": _time},
    },
    "task": {
        **{"task": _title, "due": _date, "done": _flag, "priority": ints(1, 5), "owner": _name},
        **{"labels": Several(COLOURS), "estimate": _decimal(0, 20), "project": pick(VILLAGES)},
    },
    "room": {
        **{"room": ints(1, 999), "floor": ints(0, 30), "beds": ints(1, 6), "guest": _full_name, "free": _flag},
        **{"price": ints(20, 400), "view": pick(("sea", "garden", "street", "lake", "park", "yard"))},
        **{"stay": {"check_in": _date, "check_out": _date}},
    },
    "employee": {
        **{"employee": _full_name, "department": pick(_DEPARTMENTS), "salary": ints(1000, 9900), "start_date": _date},
        **{"remote": _flag, "skills": Several(_LANGUAGES), "manager": pick(SURNAMES), "desk": _code},
        **{"contact": {"email": _email, "phone": _phone}},
    },
    "plant": {
        **{"plant": pick(_PLANTS), "height": ints(1, 300), "pot": pick(COLOURS), "water_days": Several(WEEKDAYS)},
        **{"indoor": _flag, "planted": pick(MONTHS), "leaves": ints(1, 200)},
    },
    "ship": {
        **{"ship": pick(VILLAGES), "captain": _full_name, "length": ints(5, 300), "crew": ints(1, 90)},
        **{"port": _town, "cargo": Several(_FOODS), "anchored": _flag, "location": _position},
    },
}


def _is_nested(field: Any) -> bool:
    return isinstance(field, Mapping | Several)


KINDS = tuple(RECORDS)
NESTED_KINDS = tuple(kind for kind in KINDS if any(map(_is_nested, RECORDS[kind].values())))


def draw_record(rng: Random, kind: str, size: int, nested: bool = True) -> dict[str, Any]:
    """`size` fields of a record kind (or all there are) in random order; `nested` allows objects and lists."""
    fields = RECORDS[kind]
    keys = [key for key in fields if nested or not _is_nested(fields[key])]
    chosen = rng.sample(keys, min(size, len(keys)))
    return {key: _value(rng, fields[key]) for key in chosen}


def _value(rng: Random, field: Any) -> Any:
    if isinstance(field, Mapping):
        keys = list(field)
        kept = keys[: rng.randint(2, len(keys))]
        return {key: _value(rng, field[key]) for key in kept}
    return field(rng)


def draw_field(rng: Random, kind: str, taken: dict[str, Any]) -> tuple[str, Any] | None:
    """A flat field that `taken` does not have yet; None when every one is taken."""
    fields = RECORDS[kind]
    free = [key for key in fields if key not in taken and not _is_nested(fields[key])]
    if not free:
        return None
    key = rng.choice(free)
    return key, _value(rng, fields[key])


def all_keys() -> set[str]:
    """Every key a record may have, nested ones too."""
    keys: set[str] = set()
    for fields in RECORDS.values():
        for key, field in fields.items():
            keys |= {key} | (set(field) if isinstance(field, Mapping) else set())
    return keys
