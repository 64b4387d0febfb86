"""Question shapes about lengths, areas, volumes, angles, speeds, rates and unit conversion."""

from __future__ import annotations

from orthrus_mlx.training.corpus.core import ints, pick
from orthrus_mlx.training.corpus.shape import Solution, shape
from orthrus_mlx.training.corpus.words import FIRST_NAMES, ITEMS, TOWNS, count

UNIT = pick(("cm", "m", "mm", "km", "inches", "feet"))
NAME = pick(FIRST_NAMES)
PLOT = pick(("garden", "room", "field", "carpet", "wall", "yard", "hall", "floor", "lawn", "roof", "stage"))


@shape(
    "rectangle_area",
    slots={"a": ints(2, 30), "b": ints(2, 12)},
    ask=[
        "If a rectangle has length {a} and width {b}, what is its area?",
        "What is the area of a rectangle with length {a} and width {b}?",
        "A rectangle has length {a} and width {b}. [What is its area?|Find its area.|Calculate its area.]",
        "Find the area of a rectangle whose sides are {a} and {b}.",
        "A rectangle measures {a} by {b}. What is its area?",
        "How large is the area of a {a} by {b} rectangle?",
        "The sides of a rectangle are {a} and {b}. What is the area?",
        "[Calculate|Compute|Work out] the area of a rectangle with sides {a} and {b}.",
    ],
    vary={"b": "the width is {b}", "a": "the length is {a}"},
    weight=2.5,
)
def _(a: int, b: int) -> Solution:
    return ["The area is length x width.", f"{a} x {b} = {a * b}"], a * b


@shape(
    "rectangle_area_units",
    slots={"a": ints(2, 30), "b": ints(2, 12), "u": UNIT, "plot": PLOT},
    ask=[
        "A {plot} is {a} {u} long and {b} {u} wide. What is its area?",
        "What is the area of a {plot} that is {a} {u} long and {b} {u} wide?",
        "Find the area of a {a} {u} by {b} {u} {plot}.",
        "A rectangular {plot} measures {a} {u} by {b} {u}. How large is its area?",
        "The length of a {plot} is {a} {u} and its width is {b} {u}. [What is its area?|Find its area.]",
        "[Calculate|Compute|Work out] the area of a rectangular {plot} with sides {a} {u} and {b} {u}.",
        "How many square {u} is a {plot} of {a} {u} by {b} {u}?",
    ],
    vary={"b": "the width is {b} {u}", "a": "the length is {a} {u}"},
    weight=1.5,
)
def _(a: int, b: int, u: str) -> Solution:
    return ["The area is length x width.", f"{a} x {b} = {a * b}"], f"{a * b} square {u}"


@shape(
    "rectangle_perimeter",
    slots={"a": ints(2, 60), "b": ints(2, 40)},
    ask=[
        "If a rectangle has length {a} and width {b}, what is its perimeter?",
        "What is the perimeter of a rectangle with length {a} and width {b}?",
        "A rectangle has length {a} and width {b}. [What is its perimeter?|Find its perimeter.]",
        "Find the perimeter of a rectangle whose sides are {a} and {b}.",
        "A rectangle measures {a} by {b}. What is its perimeter?",
        "How long is the way around a {a} by {b} rectangle?",
        "The sides of a rectangle are {a} and {b}. What is the perimeter?",
    ],
    vary={"b": "the width is {b}", "a": "the length is {a}"},
)
def _(a: int, b: int) -> Solution:
    steps = ["The perimeter is 2 x (length + width).", f"{a} + {b} = {a + b}", f"{a + b} x 2 = {2 * (a + b)}"]
    return steps, 2 * (a + b)


@shape(
    "fence",
    plan="The way around is twice the sum of length and width.",
    slots={"name": NAME, "a": ints(4, 40), "b": ints(4, 40), "u": pick(("m", "feet"))},
    ask=[
        "{name} puts a fence around a garden of {a} {u} by {b} {u}. How long is the fence?",
        "A field is {a} {u} long and {b} {u} wide. How much fence does {name} need to go all the way around?",
        "{name} wants to fence a rectangular yard with sides {a} {u} and {b} {u}. How many {u} of fence are needed?",
        "How long must a fence around a {a} {u} by {b} {u} field be for {name}?",
        "{name} walks once around a rectangular park of {a} {u} by {b} {u}. How far is that?",
        "A rectangular pool is {a} {u} by {b} {u}. {name} walks once around its edge. How far does {name} walk?",
    ],
)
def _(a: int, b: int, u: str) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} x 2 = {2 * (a + b)}"], f"{2 * (a + b)} {u}"


@shape(
    "square_area",
    slots={"a": ints(2, 20), "u": UNIT},
    ask=[
        "What is the area of a square with side {a} {u}?",
        "A square has sides of {a} {u}. What is its area?",
        "Find the area of a square whose side is {a} {u}.",
        "The side of a square is {a} {u}. [Calculate|Find] the area.",
        "How many square {u} does a square with side {a} {u} cover?",
        "If a square is {a} {u} wide, what is its area?",
    ],
    vary={"a": "the side is {a} {u}"},
)
def _(a: int, u: str) -> Solution:
    if a <= 12 or a == 20:
        return ["The area is side x side.", f"{a} x {a} = {a * a}"], f"{a * a} square {u}"
    ones = a - 10
    return [
        "The area is side x side.",
        f"{a} x 10 = {a * 10}",
        f"{a} x {ones} = {a * ones}",
        f"{a * 10} + {a * ones} = {a * a}",
    ], f"{a * a} square {u}"


@shape(
    "square_perimeter",
    slots={"a": ints(2, 99), "u": UNIT},
    ask=[
        "What is the perimeter of a square with side {a} {u}?",
        "A square has sides of {a} {u}. What is its perimeter?",
        "Find the perimeter of a square whose side is {a} {u}.",
        "The side of a square is {a} {u}. How long are all four sides together?",
        "How far is it around a square with side {a} {u}?",
        "If a square is {a} {u} wide, what is its perimeter?",
    ],
    vary={"a": "the side is {a} {u}"},
)
def _(a: int, u: str) -> Solution:
    return ["A square has 4 equal sides.", f"{a} x 4 = {a * 4}"], f"{a * 4} {u}"


@shape(
    "square_side",
    slots={"a": ints(2, 50), "u": UNIT},
    derive=lambda a: {"p": 4 * a},
    ask=[
        "A square has a perimeter of {p} {u}. How long is one side?",
        "The perimeter of a square is {p} {u}. Find the side.",
        "What is the side of a square whose perimeter is {p} {u}?",
        "If the way around a square is {p} {u}, how long is a side?",
        "All four sides of a square are {p} {u} together. How long is each side?",
        "Find the length of one side of a square with perimeter {p} {u}.",
    ],
)
def _(a: int, p: int, u: str) -> Solution:
    return ["A square has 4 equal sides.", f"{p} / 4 = {a}"], f"{a} {u}"


@shape(
    "rectangle_side",
    slots={"a": ints(2, 20), "b": ints(2, 12)},
    derive=lambda a, b: {"area": a * b},
    ask=[
        "A rectangle has area {area} and width {b}. What is its length?",
        "The area of a rectangle is {area} and one side is {b}. Find the other side.",
        "What is the length of a rectangle with area {area} and width {b}?",
        "If a rectangle covers an area of {area} and is {b} wide, how long is it?",
        "One side of a rectangle is {b} and its area is {area}. How long is the other side?",
        "Find the length of a rectangle whose area is {area} and whose width is {b}.",
    ],
)
def _(a: int, b: int, area: int) -> Solution:
    return ["The length is area / width.", f"{area} / {b} = {a}"], a


@shape(
    "triangle_area",
    slots={"h": ints(2, 12), "k": ints(1, 10)},
    derive=lambda k: {"b": 2 * k},
    ask=[
        "What is the area of a triangle with base {b} and height {h}?",
        "A triangle has base {b} and height {h}. [What is its area?|Find its area.|Calculate its area.]",
        "Find the area of a triangle whose base is {b} and whose height is {h}.",
        "The base of a triangle is {b} and its height is {h}. What is the area?",
        "If a triangle has base {b} and height {h}, what is its area?",
        "[Calculate|Compute|Work out] the area of a triangle with base {b} and height {h}.",
    ],
    vary={"h": "the height is {h}"},
)
def _(b: int, h: int, k: int) -> Solution:
    return ["The area is base x height / 2.", f"{b} x {h} = {b * h}", f"{b * h} / 2 = {k * h}"], k * h


@shape(
    "triangle_perimeter",
    plan="The perimeter is the sum of the three sides.",
    slots={"a": ints(5, 30), "b": ints(5, 30), "c": ints(5, 30), "u": UNIT},
    where=lambda a, b, c: a + b > c and a + c > b and b + c > a,
    ask=[
        "What is the perimeter of a triangle with sides {a} {u}, {b} {u} and {c} {u}?",
        "A triangle has sides of {a} {u}, {b} {u} and {c} {u}. Find its perimeter.",
        "The sides of a triangle are {a} {u}, {b} {u} and {c} {u}. How long is the perimeter?",
        "How far is it around a triangle with sides {a}, {b} and {c} {u}?",
        "If a triangle has sides {a}, {b} and {c} {u}, what is its perimeter?",
        "Add the sides of a triangle: {a} {u}, {b} {u} and {c} {u}. What is its perimeter?",
    ],
)
def _(a: int, b: int, c: int, u: str) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} + {c} = {a + b + c}"], f"{a + b + c} {u}"


@shape(
    "triangle_angle",
    slots={"a": ints(20, 85, 5), "b": ints(20, 90, 5)},
    ask=[
        "Two angles of a triangle are {a} and {b} degrees. What is the third angle?",
        "A triangle has angles of {a} and {b} degrees. Find the third angle.",
        "In a triangle, two angles measure {a} degrees and {b} degrees. How large is the third?",
        "What is the missing angle of a triangle with angles {a} and {b} degrees?",
        "If two angles of a triangle are {a} and {b} degrees, how big is the other one?",
        "The angles of a triangle are {a}, {b} and x degrees. What is x?",
    ],
    vary={"b": "the second angle is {b} degrees"},
)
def _(a: int, b: int) -> Solution:
    return [
        "The angles of a triangle add up to 180 degrees.",
        f"{a} + {b} = {a + b}",
        f"180 - {a + b} = {180 - a - b}",
    ], f"{180 - a - b} degrees"


@shape(
    "angle_rest",
    slots={"a": ints(3, 87), "kind": pick(("straight line", "right angle"))},
    derive=lambda a, kind: {"total": 180 if kind == "straight line" else 90},
    ask=[
        "Two angles form a {kind}. One is {a} degrees. How large is the other?",
        "A {kind} is split into two angles and one of them is {a} degrees. Find the other.",
        "One part of a {kind} is {a} degrees. How many degrees is the rest?",
        "Two angles make up a {kind}. If one measures {a} degrees, what does the other measure?",
        "What angle is missing from a {kind} if one angle is {a} degrees?",
        "How many degrees must be added to {a} degrees to make a {kind}?",
    ],
)
def _(a: int, kind: str, total: int) -> Solution:
    return [f"A {kind} has {total} degrees.", f"{total} - {a} = {total - a}"], f"{total - a} degrees"


@shape(
    "box_volume",
    plan="The volume is length x width x height.",
    slots={"a": ints(2, 10), "b": ints(2, 10), "c": ints(2, 9), "u": pick(("cm", "m", "inches", "feet"))},
    ask=[
        "What is the volume of a box that is {a} {u} long, {b} {u} wide and {c} {u} high?",
        "A box measures {a} {u} by {b} {u} by {c} {u}. What is its volume?",
        "Find the volume of a {a} x {b} x {c} {u} box.",
        "A tank is {a} {u} long, {b} {u} wide and {c} {u} deep. [Find|Calculate] its volume.",
        "How many cubic {u} fit into a box of {a} {u} by {b} {u} by {c} {u}?",
        "The sides of a box are {a}, {b} and {c} {u}. What is its volume?",
    ],
    vary={"c": "the height is {c} {u}"},
)
def _(a: int, b: int, c: int, u: str) -> Solution:
    return [f"{a} x {b} = {a * b}", f"{a * b} x {c} = {a * b * c}"], f"{a * b * c} cubic {u}"


@shape(
    "tiles",
    plan="We multiply the number of rows by the number of {thing} in each row.",
    slots={"a": ints(3, 20), "b": ints(3, 12), "thing": pick(("tiles", "chairs", "plants", "stones", "desks"))},
    ask=[
        "There are {a} rows with {b} {thing} in each row. How many {thing} are there?",
        "How many {thing} are in {a} rows of {b}?",
        "{a} rows of {b} {thing} each: how many {thing} is that in total?",
        "A square is laid out with {a} rows and {b} {thing} per row. Count the {thing}.",
        "If every row has {b} {thing} and there are {a} rows, how many {thing} are there?",
        "Each of {a} rows holds {b} {thing}. What is the total number of {thing}?",
    ],
    vary={"b": "each row has {b} {thing}", "a": "there are {a} rows"},
)
def _(a: int, b: int, thing: str) -> Solution:
    return [f"{a} x {b} = {a * b}"], f"{a * b} {thing}"


VEHICLE = pick(("car", "train", "bus", "truck", "boat", "van", "tram", "ferry"))


@shape(
    "distance",
    slots={"v": ints(20, 90, 5), "t": ints(2, 9), "who": VEHICLE},
    ask=[
        "A {who} travels at {v} km per hour for {t} hours. How far does it go?",
        "How far does a {who} get in {t} hours at {v} km per hour?",
        "A {who} drives {v} km each hour. What distance does it cover in {t} hours?",
        "At a speed of {v} km per hour, how many km does a {who} travel in {t} hours?",
        "A {who} keeps a steady speed of {v} km per hour. How far is it after {t} hours?",
        "If a {who} moves at {v} km per hour for {t} hours, what distance does it cover?",
    ],
    vary={"t": "it takes {t} hours", "v": "the speed is {v} km per hour"},
)
def _(v: int, t: int) -> Solution:
    return ["Distance is speed x time.", f"{v} x {t} = {v * t}"], f"{v * t} km"


@shape(
    "travel_time",
    slots={"v": ints(10, 90, 10), "t": ints(2, 9), "who": VEHICLE},
    derive=lambda v, t: {"s": v * t},
    ask=[
        "A {who} travels {s} km at {v} km per hour. How long does it take?",
        "How many hours does a {who} need for {s} km at {v} km per hour?",
        "A {who} goes {v} km each hour. How long does a trip of {s} km take?",
        "At a speed of {v} km per hour, how long does a {who} need for {s} km?",
        "The trip is {s} km and the {who} drives {v} km per hour. How many hours is that?",
        "If a {who} moves at {v} km per hour, after how many hours has it gone {s} km?",
    ],
)
def _(v: int, s: int, t: int) -> Solution:
    return ["Time is distance / speed.", f"{s} / {v} = {t}"], f"{t} hours"


@shape(
    "speed",
    slots={"v": ints(10, 90, 5), "t": ints(2, 9), "who": VEHICLE},
    derive=lambda v, t: {"s": v * t},
    ask=[
        "A {who} covers {s} km in {t} hours. What is its speed?",
        "What is the average speed of a {who} that goes {s} km in {t} hours?",
        "A {who} needs {t} hours for {s} km. How fast is it?",
        "Find the speed of a {who} that travels {s} km in {t} hours.",
        "In {t} hours a {who} travels {s} km. How many km does it go per hour?",
        "If a {who} takes {t} hours to go {s} km, what is its average speed?",
    ],
)
def _(v: int, s: int, t: int) -> Solution:
    return ["Speed is distance / time.", f"{s} / {t} = {v}"], f"{v} km per hour"


@shape(
    "two_leg_trip",
    plan="The whole distance is the sum of both parts.",
    slots={"name": NAME, "town": pick(TOWNS), "a": ints(5, 99), "b": ints(5, 99)},
    ask=[
        "{name} drives {a} km to {town} and then {b} km further. How far is that in total?",
        "On the way to the sea {name} goes {a} km to {town} and {b} km after it. How long is the trip?",
        "It is {a} km from {name}'s house to {town} and {b} km from there to the lake. How long is the whole way?",
        "{name} rides {a} km in the morning and {b} km in the afternoon, past {town}. How many km is that?",
        "First {name} travels {a} km to {town}, then another {b} km. What is the total distance?",
        "The road from {name}'s home to {town} is {a} km, and the next road is {b} km. How long are both?",
    ],
    vary={"b": "the second part is {b} km"},
)
def _(a: int, b: int) -> Solution:
    return [f"{a} + {b} = {a + b}"], f"{a + b} km"


@shape(
    "rate_total",
    plan="We multiply the {things} per {per} by the number of {units}.",
    slots={
        "a": ints(2, 30),
        "t": ints(2, 12),
        "work": pick(
            (
                ("machine", "makes", "parts", "hour", "hours"),
                ("printer", "prints", "pages", "minute", "minutes"),
                ("baker", "bakes", "loaves", "hour", "hours"),
                ("pump", "moves", "litres", "minute", "minutes"),
                ("reader", "reads", "pages", "day", "days"),
                ("factory", "builds", "bikes", "day", "days"),
                ("painter", "paints", "doors", "day", "days"),
                ("gardener", "plants", "trees", "hour", "hours"),
            )
        ),
    },
    derive=lambda work: dict(zip(("who", "does", "things", "per", "units"), work, strict=True)),
    ask=[
        "A {who} {does} {a} {things} per {per}. How many {things} is that in {t} {units}?",
        "If a {who} {does} {a} {things} every {per}, how many {things} are done after {t} {units}?",
        "Each {per} a {who} {does} {a} {things}. How many is that in {t} {units}?",
        "A {who} {does} {a} {things} in one {per}. How many {things} in {t} {units}?",
        "In one {per} a {who} {does} {a} {things}. What is the total after {t} {units}?",
        "How many {things} are done in {t} {units} if a {who} {does} {a} per {per}?",
    ],
    vary={"t": "it runs for {t} {units}"},
)
def _(a: int, t: int, things: str) -> Solution:
    return [f"{a} x {t} = {a * t}"], f"{a * t} {things}"


@shape(
    "pages_left",
    plan="First we find the pages that are read, then the pages that are left.",
    slots={"name": NAME, "p": ints(5, 20), "d": ints(2, 9), "extra": ints(5, 90)},
    derive=lambda p, d, extra: {"n": p * d + extra},
    ask=[
        "A book has {n} pages. {name} reads {p} pages a day for {d} days. How many pages are left?",
        "{name} reads {p} pages per day. After {d} days, how many of {n} pages are left?",
        "{name} has a book of {n} pages and reads {p} pages on each of {d} days. How many pages remain?",
        "Of a {n}-page book {name} reads {p} pages every day. How many pages remain after {d} days?",
        "For {d} days {name} reads {p} pages a day. The book has {n} pages. How many are not read yet?",
        "There are {n} pages in {name}'s book. After {d} days with {p} pages a day, what is left?",
    ],
)
def _(p: int, d: int, n: int, extra: int) -> Solution:
    return [f"{p} x {d} = {p * d}", f"{n} - {p * d} = {extra}"], f"{extra} pages"


@shape(
    "days_to_finish",
    plan="We divide the whole number by the number done each day.",
    slots={"name": NAME, "p": ints(3, 12), "d": ints(3, 20)},
    derive=lambda p, d: {"n": p * d},
    ask=[
        "{name} reads {p} pages a day. How many days does a book of {n} pages take?",
        "A book has {n} pages and {name} reads {p} pages each day. After how many days is it finished?",
        "How long does {name} need for {n} pages at {p} pages per day?",
        "{name} wants to learn {n} words and learns {p} words a day. How many days does it take?",
        "There are {n} tasks. {name} does {p} tasks per day. How many days is that?",
        "If {name} plants {p} trees each day, after how many days are {n} trees planted?",
    ],
)
def _(p: int, n: int, d: int) -> Solution:
    return [f"{n} / {p} = {d}"], f"{d} days"


@shape(
    "tank",
    plan="First we find how much is added, then how much there is in total.",
    slots={"a": ints(3, 40), "t": ints(2, 10), "start": ints(5, 90)},
    ask=[
        "A tank holds {start} litres. Every minute {a} litres flow in. How much is in it after {t} minutes?",
        "There are {start} litres of water in a tank and {a} litres are added per minute. "
        "How many litres are there after {t} minutes?",
        "Water runs into a tank at {a} litres per minute. It starts with {start} litres. "
        "How much water is in it after {t} minutes?",
        "A pool already has {start} litres and a hose adds {a} litres each minute. "
        "How many litres are in it after {t} minutes?",
        "After {t} minutes at {a} litres per minute, how full is a tank that began with {start} litres?",
        "A barrel contains {start} litres. Rain adds {a} litres a minute for {t} minutes. How much is in it then?",
    ],
    vary={"t": "it takes {t} minutes"},
)
def _(a: int, t: int, start: int) -> Solution:
    return [f"{a} x {t} = {a * t}", f"{start} + {a * t} = {start + a * t}"], f"{start + a * t} litres"


@shape(
    "candle",
    plan="First we find how much burns away, then how much is left.",
    slots={"a": ints(1, 4), "t": ints(2, 9), "left": ints(2, 20)},
    derive=lambda a, t, left: {"n": a * t + left},
    ask=[
        "A candle is {n} cm long and burns {a} cm per hour. How long is it after {t} hours?",
        "Every hour a candle gets {a} cm shorter. It was {n} cm long. How long is it after {t} hours?",
        "A {n} cm candle loses {a} cm each hour. What is its length after {t} hours?",
        "How much of a {n} cm candle is left after {t} hours if it burns {a} cm per hour?",
        "A candle of {n} cm burns for {t} hours at {a} cm per hour. How long is the rest?",
        "If a candle of {n} cm burns down {a} cm every hour, how long is it {t} hours later?",
    ],
)
def _(a: int, t: int, n: int, left: int) -> Solution:
    return [f"{a} x {t} = {a * t}", f"{n} - {a * t} = {left}"], f"{left} cm"


@shape(
    "growth",
    plan="First we find how much the {plant} grows, then its new height.",
    slots={"a": ints(2, 12), "t": ints(2, 9), "n": ints(5, 60), "plant": pick(("plant", "tree", "sunflower", "vine"))},
    ask=[
        "A {plant} is {n} cm tall and grows {a} cm each week. How tall is it after {t} weeks?",
        "A {plant} grows {a} cm per week. It is {n} cm now. What is its height after {t} weeks?",
        "How tall is a {plant} of {n} cm after {t} weeks if it grows {a} cm a week?",
        "Every week a {plant} gets {a} cm taller. It starts at {n} cm. How tall is it in {t} weeks?",
        "Today the {plant} measures {n} cm. With {a} cm of growth per week, how tall is it after {t} weeks?",
        "In {t} weeks, how tall is a {plant} that is {n} cm today and grows {a} cm weekly?",
    ],
    vary={"t": "we wait {t} weeks"},
)
def _(a: int, t: int, n: int) -> Solution:
    return [f"{a} x {t} = {a * t}", f"{n} + {a * t} = {n + a * t}"], f"{n + a * t} cm"


# (from, to, factor): one small factor per pair, the number of *to* in one *from*.
_UP = (
    ("m", "cm", 100), ("km", "m", 1000), ("cm", "mm", 10), ("kg", "g", 1000), ("litres", "ml", 1000),
    ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7),
    ("years", "months", 12), ("feet", "inches", 12), ("yards", "feet", 3), ("dozens", "pieces", 12),
    ("tons", "kg", 1000), ("decades", "years", 10), ("centuries", "years", 100),
)  # fmt: skip


@shape(
    "convert_up",
    slots={"n": ints(2, 20), "pair": pick(_UP)},
    derive=lambda pair: {"u": pair[0], "v": pair[1], "f": pair[2]},
    ask=[
        "How many {v} are {n} {u}?",
        "Convert {n} {u} to {v}.",
        "How many {v} are there in {n} {u}?",
        "What is {n} {u} in {v}?",
        "Express {n} {u} in {v}.",
        "{n} {u} is how many {v}?",
        "Please change {n} {u} into {v}.",
    ],
    vary={"n": "it is {n} {u}"},
    weight=2,
)
def _(n: int, u: str, v: str, f: int) -> Solution:
    return [f"1 {_ONE[u]} is {f} {v}.", f"{n} x {f} = {n * f}"], f"{n * f} {v}"


@shape(
    "convert_down",
    slots={"n": ints(2, 20), "pair": pick(_UP)},
    derive=lambda n, pair: {"u": pair[0], "v": pair[1], "f": pair[2], "m": n * pair[2]},
    ask=[
        "How many {u} are {m} {v}?",
        "Convert {m} {v} to {u}.",
        "How many {u} are there in {m} {v}?",
        "What is {m} {v} in {u}?",
        "Express {m} {v} in {u}.",
        "{m} {v} is how many {u}?",
        "Please change {m} {v} into {u}.",
    ],
    weight=2,
)
def _(n: int, u: str, v: str, f: int, m: int) -> Solution:
    return [f"1 {_ONE[u]} is {f} {v}.", f"{m} / {f} = {n}"], f"{n} {u}"


_ONE = {
    **{"m": "m", "km": "km", "cm": "cm", "kg": "kg", "litres": "litre", "hours": "hour", "minutes": "minute"},
    **{"days": "day", "weeks": "week", "years": "year", "feet": "foot", "yards": "yard", "dozens": "dozen"},
    **{"tons": "ton", "decades": "decade", "centuries": "century"},
}


@shape(
    "mixed_length",
    plan="We change the {u} into {v} and add the rest.",
    slots={"a": ints(1, 20), "b": ints(1, 99), "pair": pick((("m", "cm", 100), ("hours", "minutes", 60)))},
    where=lambda a, b, pair: a > 1 and 1 < b < pair[2],
    derive=lambda pair: {"u": pair[0], "v": pair[1], "f": pair[2]},
    ask=[
        "How many {v} are {a} {u} and {b} {v}?",
        "Convert {a} {u} {b} {v} to {v}.",
        "What is {a} {u} and {b} {v} in {v} only?",
        "Express {a} {u} and {b} {v} in {v}.",
        "Write {a} {u} {b} {v} as {v}.",
        "{a} {u} and {b} {v} make how many {v} altogether?",
    ],
)
def _(a: int, b: int, f: int, v: str) -> Solution:
    return [f"{a} x {f} = {a * f}", f"{a * f} + {b} = {a * f + b}"], f"{a * f + b} {v}"


@shape(
    "split_minutes",
    plan="Each hour has 60 minutes, so we look for the full hours first.",
    slots={"h": ints(1, 9), "m": ints(2, 59)},
    derive=lambda h, m: {"t": 60 * h + m},
    ask=[
        "How many hours and minutes are {t} minutes?",
        "Convert {t} minutes to hours and minutes.",
        "A film lasts {t} minutes. How long is that in hours and minutes?",
        "Write {t} minutes as hours and minutes.",
        "What is {t} minutes in hours and minutes?",
        "Express {t} minutes in hours and minutes.",
    ],
)
def _(h: int, m: int, t: int) -> Solution:
    return [f"{h} x 60 = {h * 60}", f"{t} - {h * 60} = {m}"], f"{count(h, 'hours')} and {count(m, 'minutes')}"


@shape(
    "cut_rope",
    plan="We divide the length of the {what} by the length of one piece.",
    slots={"a": ints(2, 12), "n": ints(2, 20), "what": pick(("rope", "ribbon", "board", "pipe", "wire"))},
    derive=lambda a, n: {"total": a * n},
    ask=[
        "A {what} of {total} cm is cut into pieces of {a} cm. How many pieces are there?",
        "How many {a} cm pieces can be cut from a {what} of {total} cm?",
        "A {total} cm {what} is cut into parts that are {a} cm long. How many parts?",
        "Each piece is {a} cm. How many pieces does a {what} of {total} cm give?",
        "From a {what} that is {total} cm long we cut pieces of {a} cm. Count the pieces.",
        "If a {what} measures {total} cm and every piece {a} cm, how many pieces do we get?",
    ],
)
def _(a: int, total: int, n: int) -> Solution:
    return [f"{total} / {a} = {n}"], f"{n} pieces"


@shape(
    "weight_total",
    plan="We multiply the number of boxes by the weight of one box.",
    slots={"n": ints(2, 20), "w": ints(2, 12), "item": pick(ITEMS), "u": pick(("kg", "g"))},
    ask=[
        "One box of {item} weighs {w} {u}. How much do {n} boxes weigh?",
        "What do {n} boxes of {item} weigh if each weighs {w} {u}?",
        "Each box of {item} has a weight of {w} {u}. Find the weight of {n} boxes.",
        "{n} boxes of {item} are loaded and each one weighs {w} {u}. What is the total weight?",
        "How heavy are {n} boxes of {item} at {w} {u} per box?",
        "If a box of {item} weighs {w} {u}, how much do {n} such boxes weigh?",
    ],
    vary={"n": "there are {n} boxes"},
)
def _(n: int, w: int, u: str) -> Solution:
    return [f"{n} x {w} = {n * w}"], f"{n * w} {u}"


@shape(
    "temperature",
    plan="When the temperature {word}, we {verb} the change.",
    slots={"a": ints(5, 30), "b": ints(2, 15), "word": pick(("rises", "falls"))},
    where=lambda a, b, word: word == "rises" or a > b,
    derive=lambda word: {"verb": "add" if word == "rises" else "subtract"},
    ask=[
        "It is {a} degrees in the morning. The temperature {word} by {b} degrees. How warm is it then?",
        "The temperature is {a} degrees and {word} by {b} degrees. What is it now?",
        "At noon it is {a} degrees. Later the temperature {word} by {b} degrees. What does the thermometer show?",
        "Starting from {a} degrees, the temperature {word} by {b} degrees. What is the new temperature?",
        "A thermometer shows {a} degrees. What does it show after the temperature {word} by {b} degrees?",
        "If it is {a} degrees and the temperature {word} by {b} degrees, how warm is it?",
    ],
)
def _(a: int, b: int, word: str) -> Solution:
    if word == "rises":
        return [f"{a} + {b} = {a + b}"], f"{a + b} degrees"
    return [f"{a} - {b} = {a - b}"], f"{a - b} degrees"


@shape(
    "recipe_scale",
    plan="We find how many times as many people there are.",
    slots={
        **{"p": ints(2, 6), "k": ints(2, 6), "per": ints(5, 50, 5)},
        "what": pick(("flour", "sugar", "rice", "butter", "oats", "cheese")),
    },
    derive=lambda p, k, per: {"n": p * k, "a": p * per},
    ask=[
        "A recipe for {p} people needs {a} g of {what}. How much {what} is needed for {n} people?",
        "For {p} people you take {a} g of {what}. How many grams are needed for {n} people?",
        "{a} g of {what} is enough for {p} people. How much do {n} people need?",
        "How much {what} do {n} people need if {p} people need {a} g?",
        "A cook uses {a} g of {what} for {p} guests. How much for {n} guests?",
        "If {p} portions take {a} g of {what}, how many grams do {n} portions take?",
    ],
)
def _(p: int, k: int, n: int, a: int) -> Solution:
    return [f"{n} / {p} = {k}", f"{a} x {k} = {a * k}"], f"{a * k} g"


@shape(
    "fuel",
    plan="We find how many times 100 km fit into the trip.",
    slots={"a": ints(4, 9), "k": ints(2, 9)},
    derive=lambda k: {"s": 100 * k},
    ask=[
        "A car uses {a} litres of fuel per 100 km. How much does it need for {s} km?",
        "How many litres does a car need for {s} km if it uses {a} litres per 100 km?",
        "A car burns {a} litres every 100 km. How much fuel is that for {s} km?",
        "For 100 km a car takes {a} litres. How many litres for {s} km?",
        "The trip is {s} km and the car uses {a} litres per 100 km. How much fuel is used?",
        "With {a} litres per 100 km, how much fuel does a trip of {s} km take?",
    ],
    vary={"k": "the trip is {s} km"},
)
def _(a: int, k: int, s: int) -> Solution:
    return [f"{s} / 100 = {k}", f"{a} x {k} = {a * k}"], f"{a * k} litres"


@shape(
    "stairs",
    plan="We multiply the steps of one floor by the number of floors.",
    slots={"name": NAME, "a": ints(8, 20), "b": ints(2, 9)},
    ask=[
        "A house has {b} floors with {a} steps each. How many steps does {name} climb to the top?",
        "Each floor has {a} steps and {name} climbs {b} floors. How many steps is that?",
        "{name} climbs {b} flights of {a} steps. How many steps in all?",
        "There are {a} steps per floor. How many steps are there for {b} floors, {name} asks?",
        "To reach home {name} goes up {b} floors of {a} steps each. Count the steps.",
        "If one floor has {a} steps, how many steps does {name} take for {b} floors?",
    ],
    vary={"b": "there are {b} floors"},
)
def _(a: int, b: int) -> Solution:
    return [f"{a} x {b} = {a * b}"], f"{a * b} steps"
