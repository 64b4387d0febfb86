"""Question shapes about shopping, money, sharing, collecting and ages."""

from __future__ import annotations

from orthrus_mlx.training.corpus.core import ints, pick
from orthrus_mlx.training.corpus.shape import Solution, shape
from orthrus_mlx.training.corpus.words import CURRENCIES, FIRST_NAMES, GOODS, ITEMS, count

NAME = pick(FIRST_NAMES)
ITEM = pick(GOODS)
MONEY = pick(CURRENCIES)


@shape(
    "buy_same",
    plan="The total price is the number of {item} times the price of one {one}.",
    slots={"name": NAME, "item": ITEM, "n": ints(2, 20), "p": ints(2, 12), "cur": MONEY},
    ask=[
        "{a_one} costs {p} {cur}. How much do {n} {item} cost?",
        "{name} buys {n} {item} at {p} {cur} each. How much does {name} pay?",
        "How much do {n} {item} cost if one costs {p} {cur}?",
        "The price of one {one} is {p} {cur}. What is the price of {n} {item}?",
        "{name} wants {n} {item}. Each {one} is {p} {cur}. What is the total?",
        "What does {name} pay for {n} {item} when {a_one} costs {p} {cur}?",
        "One {one} is sold for {p} {cur}. Find the cost of {n} {item}.",
    ],
    vary={"n": "it is {n} {item}", "p": "the price is {p} {cur}"},
    weight=1.5,
)
def _(n: int, p: int, cur: str) -> Solution:
    return [f"{n} x {p} = {n * p}"], f"{n * p} {cur}"


@shape(
    "buy_two_kinds",
    plan="We find the price of the {item} and of the {other} and add both.",
    slots={
        **{"name": NAME, "item": ITEM, "other": ITEM, "n": ints(2, 9), "p": ints(2, 9), "m": ints(2, 9)},
        **{"q": ints(2, 9), "cur": MONEY},
    },
    where=lambda item, other: item != other,
    ask=[
        "{name} buys {n} {item} at {p} {cur} each and {m} {other} at {q} {cur} each. How much is that?",
        "What is the total for {n} {item} at {p} {cur} each and {m} {other} at {q} {cur} each?",
        "{n} {item} cost {p} {cur} each, {m} {other} cost {q} {cur} each. What does {name} pay in total?",
        "{name} pays {p} {cur} for each of {n} {item} and {q} {cur} for each of {m} {other}. How much in all?",
        "Find the total price: {n} {item} for {p} {cur} each, {m} {other} for {q} {cur} each.",
        "How much does {name} spend on {n} {item} at {p} {cur} each plus {m} {other} at {q} {cur} each?",
    ],
)
def _(n: int, p: int, m: int, q: int, cur: str) -> Solution:
    total = n * p + m * q
    return [f"{n} x {p} = {n * p}", f"{m} x {q} = {m * q}", f"{n * p} + {m * q} = {total}"], f"{total} {cur}"


@shape(
    "two_prices",
    plan="We add the price of the {item} and the price of the {other}.",
    slots={"name": NAME, "item": ITEM, "other": ITEM, "p": ints(2, 99), "q": ints(2, 99), "cur": MONEY},
    where=lambda item, other: item != other,
    ask=[
        "{name} pays {p} {cur} for {item} and {q} {cur} for {other}. How much is that together?",
        "The {item} cost {p} {cur} and the {other} cost {q} {cur}. What is the total?",
        "How much does {name} spend on {item} for {p} {cur} and {other} for {q} {cur}?",
        "If {item} are {p} {cur} and {other} are {q} {cur}, what do both cost together?",
        "{name} buys {item} for {p} {cur} and then {other} for {q} {cur}. How much money is spent?",
        "Add up the bill: {item} {p} {cur}, {other} {q} {cur}.",
    ],
    vary={"q": "the {other} cost {q} {cur}"},
)
def _(p: int, q: int, cur: str) -> Solution:
    return [f"{p} + {q} = {p + q}"], f"{p + q} {cur}"


@shape(
    "change",
    plan="The money that is left is the money paid minus the price.",
    slots={"name": NAME, "item": ITEM, "p": ints(2, 98), "paid": pick((10, 20, 50, 100)), "cur": MONEY},
    where=lambda p, paid: paid // 4 < p < paid - 1,
    ask=[
        "{name} buys {item} for {p} {cur} and pays with {paid} {cur}. How much change does {name} get?",
        "The {item} cost {p} {cur}. {name} gives {paid} {cur}. What is the change?",
        "How much change is left from {paid} {cur} after {name} pays {p} {cur} for {item}?",
        "{name} has {paid} {cur} and spends {p} {cur} on {item}. How much is left?",
        "If {name} pays {paid} {cur} for {item} that cost {p} {cur}, how much comes back?",
        "After buying {item} for {p} {cur} with {paid} {cur}, how much money does {name} have left?",
    ],
    vary={"p": "the {item} cost {p} {cur}"},
)
def _(p: int, paid: int, cur: str) -> Solution:
    return [f"{paid} - {p} = {paid - p}"], f"{paid - p} {cur}"


@shape(
    "change_many",
    plan="First we find the price of all {item}, then the money that is left.",
    slots={"name": NAME, "item": ITEM, "n": ints(2, 9), "p": ints(2, 10), "paid": pick((20, 50, 100)), "cur": MONEY},
    where=lambda n, p, paid: paid // 4 < n * p < paid - 1,
    ask=[
        "{name} buys {n} {item} at {p} {cur} each and pays with {paid} {cur}. How much change is there?",
        "{n} {item} cost {p} {cur} each. {name} gives {paid} {cur}. What is the change?",
        "{name} has {paid} {cur} and buys {n} {item} for {p} {cur} each. How much is left?",
        "How much remains of {paid} {cur} after {name} buys {n} {item} at {p} {cur} each?",
        "From {paid} {cur}, {name} pays for {n} {item} that cost {p} {cur} each. How much comes back?",
        "One {one} is {p} {cur}. {name} takes {n} of them and pays {paid} {cur}. How much change?",
    ],
)
def _(n: int, p: int, paid: int, cur: str) -> Solution:
    return [f"{n} x {p} = {n * p}", f"{paid} - {n * p} = {paid - n * p}"], f"{paid - n * p} {cur}"


@shape(
    "unit_price",
    plan="The price of one {one} is the total price divided by the number of {item}.",
    slots={"item": ITEM, "n": ints(2, 12), "p": ints(2, 15), "cur": MONEY},
    derive=lambda n, p: {"total": n * p},
    ask=[
        "{n} {item} cost {total} {cur}. How much does one {one} cost?",
        "What is the price of one {one} if {n} {item} cost {total} {cur}?",
        "A pack of {n} {item} costs {total} {cur}. What is the price for each?",
        "If {n} {item} are sold for {total} {cur}, what does a single {one} cost?",
        "Find the price per {one} when {n} {item} cost {total} {cur}.",
        "Someone pays {total} {cur} for {n} {item}. How much is that per {one}?",
    ],
)
def _(n: int, total: int, p: int, cur: str) -> Solution:
    return [f"{total} / {n} = {p}"], f"{p} {cur}"


@shape(
    "how_many_can_buy",
    plan="We divide the money by the price of one {one}.",
    slots={"name": NAME, "item": ITEM, "n": ints(2, 20), "p": ints(2, 12), "cur": MONEY},
    derive=lambda n, p: {"total": n * p},
    ask=[
        "{name} has {total} {cur}. One {one} costs {p} {cur}. How many {item} can {name} buy?",
        "How many {item} at {p} {cur} each can {name} buy with {total} {cur}?",
        "{a_one} costs {p} {cur}. How many {item} does {name} get for {total} {cur}?",
        "With {total} {cur}, how many {item} can {name} afford at {p} {cur} each?",
        "{name} spends {total} {cur} on {item} at {p} {cur} each. How many {item} is that?",
        "Each {one} is {p} {cur} and {name} has {total} {cur}. How many {item} is that enough for?",
    ],
)
def _(n: int, p: int, total: int, item: str) -> Solution:
    return [f"{total} / {p} = {n}"], f"{n} {item}"


@shape(
    "discount",
    plan="We find the discount first and subtract it from the price.",
    slots={"item": ITEM, "p": pick((10, 20, 25, 30, 40, 50)), "n": ints(2, 15), "cur": MONEY},
    derive=lambda n: {"a": 20 * n},
    ask=[
        "A box of {item} costs {a} {cur}. There is a discount of {p}%. What is the new price?",
        "The price of a set of {item} is {a} {cur}. It is reduced by {p}%. How much is it now?",
        "What is the price after {p}% off {a} {cur} for a bag of {item}?",
        "A crate of {item} for {a} {cur} is {p}% cheaper today. What does it cost today?",
        "A shop takes {p}% off the price of {a} {cur} for a crate of {item}. Find the new price.",
        "How much do you pay for {item} at {a} {cur} with a {p}% discount?",
    ],
    vary={"p": "the discount is {p}%"},
)
def _(p: int, a: int, cur: str) -> Solution:
    one = a // 20
    off = one * p // 5
    return [
        f"5% of {a} is {a} / 20 = {one}",
        f"{one} x {p // 5} = {off}",
        f"{a} - {off} = {a - off}",
    ], f"{a - off} {cur}"


@shape(
    "tip",
    plan="We find the tip first and add it to the bill.",
    slots={"name": NAME, "n": ints(1, 15), "cur": MONEY},
    derive=lambda n: {"a": 10 * n},
    ask=[
        "The bill is {a} {cur}. {name} adds a tip of 10%. How much does {name} pay?",
        "{name} pays {a} {cur} for dinner plus a 10% tip. What is the total?",
        "A meal costs {a} {cur} and {name} tips 10%. How much is that altogether?",
        "With a tip of 10% on {a} {cur}, how much does {name} spend?",
        "What does {name} pay for a {a} {cur} lunch with a 10% tip on top?",
        "{name}'s dinner is {a} {cur}. After adding 10% as a tip, what is paid?",
    ],
)
def _(a: int, n: int, cur: str) -> Solution:
    return [f"10% of {a} is {n}.", f"{a} + {n} = {a + n}"], f"{a + n} {cur}"


@shape(
    "saving",
    plan="We multiply the savings of one week by the number of weeks.",
    slots={"name": NAME, "p": ints(2, 15), "w": ints(2, 12), "cur": MONEY},
    ask=[
        "{name} saves {p} {cur} every week. How much does {name} have after {w} weeks?",
        "How much money does {name} save in {w} weeks at {p} {cur} a week?",
        "{name} puts {p} {cur} into a jar each week. How much is in the jar after {w} weeks?",
        "Each week {name} saves {p} {cur}. What are the savings after {w} weeks?",
        "If {name} saves {p} {cur} per week, how much is that in {w} weeks?",
        "For {w} weeks {name} keeps {p} {cur} a week. How much money is that?",
    ],
    vary={"w": "it is {w} weeks", "p": "it is {p} {cur} a week"},
)
def _(p: int, w: int, cur: str) -> Solution:
    return [f"{p} x {w} = {p * w}"], f"{p * w} {cur}"


@shape(
    "saving_goal",
    plan="We divide the price by the savings of one week.",
    slots={"name": NAME, "item": ITEM, "p": ints(2, 12), "w": ints(2, 15), "cur": MONEY},
    derive=lambda p, w: {"goal": p * w},
    ask=[
        "{name} saves {p} {cur} a week for a box of {item} that costs {goal} {cur}. How many weeks does it take?",
        "How many weeks must {name} save {p} {cur} to have {goal} {cur} for {item}?",
        "A set of {item} costs {goal} {cur}. {name} saves {p} {cur} each week. After how many weeks is it enough?",
        "If {name} puts {p} {cur} aside every week, when can {name} buy {item} for {goal} {cur}?",
        "{name} needs {goal} {cur} for {item} and saves {p} {cur} per week. How many weeks is that?",
        "Saving {p} {cur} weekly, how long does {name} need for {goal} {cur} of {item}?",
    ],
)
def _(p: int, w: int, goal: int) -> Solution:
    return [f"{goal} / {p} = {w}"], f"{w} weeks"


@shape(
    "wage",
    plan="The pay is the money for one hour times the number of hours.",
    slots={"name": NAME, "p": ints(8, 30), "h": ints(2, 10), "cur": MONEY},
    ask=[
        "{name} earns {p} {cur} per hour and works {h} hours. How much does {name} earn?",
        "How much does {name} earn in {h} hours at {p} {cur} an hour?",
        "{name} works {h} hours for {p} {cur} an hour. What is the pay?",
        "At {p} {cur} per hour, what does {name} get for {h} hours of work?",
        "An hour of work pays {p} {cur}. {name} works {h} hours. How much money is that?",
        "If {name} gets {p} {cur} for each hour, what are {h} hours worth?",
    ],
    vary={"h": "it is {h} hours", "p": "the pay is {p} {cur} an hour"},
)
def _(p: int, h: int, cur: str) -> Solution:
    return [f"{p} x {h} = {p * h}"], f"{p * h} {cur}"


@shape(
    "share_equally",
    plan="We divide the number of {item} by the number of {who}.",
    slots={"item": pick(ITEMS), "k": ints(2, 12), "q": ints(2, 15), "who": pick(("children", "friends", "players"))},
    derive=lambda k, q: {"n": k * q},
    ask=[
        "{n} {item} are shared equally among {k} {who}. How many does each get?",
        "{k} {who} share {n} {item} equally. How many {item} does each one get?",
        "Divide {n} {item} fairly among {k} {who}. How many does each receive?",
        "If {k} {who} split {n} {item} evenly, how many {item} are there for each?",
        "There are {n} {item} for {k} {who}. How many {item} per person?",
        "How many {item} does each of {k} {who} get from {n} {item}?",
    ],
)
def _(n: int, k: int, q: int, item: str) -> Solution:
    return [f"{n} / {k} = {q}"], f"{q} {item}"


@shape(
    "share_left_over",
    plan="We find how many {item} are used up and subtract them.",
    slots={"item": pick(ITEMS), "k": ints(3, 9), "q": ints(2, 9), "r": ints(1, 8)},
    where=lambda k, r: 1 < r < k,
    derive=lambda k, q, r: {"n": k * q + r},
    ask=[
        "{n} {item} are packed into bags of {k}. How many {item} are left over?",
        "If {n} {item} are shared equally among {k} people, how many {item} are left?",
        "{k} children share {n} {item} so that all get the same. How many {item} remain?",
        "How many {item} are left when {n} {item} are put into boxes of {k}?",
        "We make groups of {k} from {n} {item}. How many {item} do not fit into a group?",
        "Someone deals out {n} {item} evenly to {k} players. How many {item} are left over?",
    ],
)
def _(n: int, k: int, q: int, r: int, item: str) -> Solution:
    return [f"{k} x {q} = {k * q}", f"{n} - {k * q} = {r}"], f"{r} {item}"


@shape(
    "split_bill",
    plan="We divide the cost by the number of people.",
    slots={"k": ints(2, 10), "q": ints(3, 20), "cur": MONEY},
    derive=lambda k, q: {"n": k * q},
    ask=[
        "{k} friends split a bill of {n} {cur} equally. How much does each pay?",
        "A dinner costs {n} {cur} and is shared by {k} people. How much is it per person?",
        "How much does each of {k} friends pay for a bill of {n} {cur}?",
        "A bill of {n} {cur} is divided equally among {k} people. What is each share?",
        "If {k} people share a cost of {n} {cur}, what does each of them pay?",
        "A taxi costs {n} {cur}. {k} people pay equal parts. How much is one part?",
    ],
    vary={"q": "the bill is {n} {cur}"},
)
def _(n: int, k: int, q: int, cur: str) -> Solution:
    return [f"{n} / {k} = {q}"], f"{q} {cur}"


@shape(
    "get_more",
    plan="We add the new {item} to those that were there before.",
    slots={"name": NAME, "item": pick(ITEMS), "a": ints(2, 99), "b": ints(2, 99)},
    ask=[
        "{name} has {a} {item} and gets {b} more. How many {item} does {name} have now?",
        "{name} had {a} {item} and found {b} more. How many are there now?",
        "There are {a} {item} in a box. {name} puts in {b} more. How many {item} are in the box?",
        "{name} collects {a} {item} on one day and {b} {item} on the next. How many {item} is that?",
        "If {name} owns {a} {item} and buys another {b}, how many {item} are there in all?",
        "A friend gives {b} {item} to {name}, who already has {a}. How many {item} does {name} have?",
    ],
    vary={"b": "it is {b} more", "a": "{name} has {a} {item} at first"},
)
def _(a: int, b: int, item: str) -> Solution:
    return [f"{a} + {b} = {a + b}"], f"{a + b} {item}"


@shape(
    "give_away",
    plan="We subtract the {item} that are gone from those at the start.",
    slots={"name": NAME, "friend": NAME, "item": pick(ITEMS), "a": ints(5, 99), "b": ints(2, 90)},
    where=lambda a, b, name, friend: a > b + 1 and name != friend,
    ask=[
        "{name} has {a} {item} and gives {b} to {friend}. How many {item} are left?",
        "{name} had {a} {item}. {friend} took {b} of them. How many does {name} still have?",
        "From {a} {item}, {name} gives {b} to {friend}. How many {item} does {name} keep?",
        "There were {a} {item}. {name} and {friend} used {b} of them. How many remain?",
        "{name} starts with {a} {item} and loses {b}. {friend} asks how many are left. How many?",
        "If {name} gives {friend} {b} of {a} {item}, how many {item} does {name} have left?",
    ],
    vary={"b": "it is {b} {item}"},
)
def _(a: int, b: int, item: str) -> Solution:
    return [f"{a} - {b} = {a - b}"], f"{a - b} {item}"


@shape(
    "gain_and_lose",
    plan="First we add the {item} that come, then we subtract those that go.",
    slots={"name": NAME, "item": pick(ITEMS), "a": ints(5, 80), "b": ints(2, 50), "c": ints(2, 60)},
    where=lambda a, b, c: a + b > c + 1,
    ask=[
        "{name} has {a} {item}, gets {b} more and then gives away {c}. How many {item} are left?",
        "{name} had {a} {item}, bought {b} and lost {c}. How many {item} does {name} have?",
        "There are {a} {item} on a shelf. {name} adds {b} and takes away {c}. How many are there now?",
        "Starting with {a} {item}, {name} finds {b} and sells {c}. How many {item} remain?",
        "A shop has {a} {item}. {b} arrive and {c} are sold to {name}. How many are still there?",
        "To {a} {item} {name} adds {b}, then {c} are used. How many {item} are left?",
    ],
)
def _(a: int, b: int, c: int, item: str) -> Solution:
    return [f"{a} + {b} = {a + b}", f"{a + b} - {c} = {a + b - c}"], f"{a + b - c} {item}"


@shape(
    "boxes_and_loose",
    plan="First we count the {item} in the bags, then we add the loose ones.",
    slots={"name": NAME, "item": pick(ITEMS), "n": ints(2, 12), "p": ints(2, 12), "c": ints(2, 20)},
    ask=[
        "{name} has {n} bags with {p} {item} each and {c} loose {item}. How many {item} is that?",
        "There are {n} bags of {p} {item} and {c} single {item}. How many {item} are there in all?",
        "{n} bags hold {p} {item} each, and {c} more {item} lie on the table. How many does {name} have?",
        "How many {item} are {n} bags of {p} plus {c} loose ones?",
        "{name} packs {p} {item} into each of {n} bags and has {c} left. How many {item} were there?",
        "Count all {item}: {n} bags with {p} each and {c} more.",
    ],
)
def _(n: int, p: int, c: int, item: str) -> Solution:
    return [f"{n} x {p} = {n * p}", f"{n * p} + {c} = {n * p + c}"], f"{n * p + c} {item}"


@shape(
    "how_many_more",
    plan="We subtract the smaller number of {item} from the larger one.",
    slots={"name": NAME, "friend": NAME, "item": pick(ITEMS), "a": ints(5, 99), "b": ints(2, 90)},
    where=lambda a, b, name, friend: a > b + 1 and name != friend,
    ask=[
        "{name} has {a} {item} and {friend} has {b}. How many more {item} does {name} have?",
        "How many more {item} does {name} have with {a} than {friend} with {b}?",
        "{name} owns {a} {item}, {friend} owns {b}. What is the difference?",
        "{friend} has {b} {item}. {name} has {a}. By how many {item} is {name} ahead?",
        "{name} collected {a} {item} and {friend} collected {b}. How many more did {name} collect?",
        "If {name} has {a} {item} and {friend} only {b}, how many {item} more does {name} have?",
    ],
)
def _(a: int, b: int, item: str) -> Solution:
    return [f"{a} - {b} = {a - b}"], f"{a - b} {item}"


@shape(
    "times_as_many",
    plan="We multiply the number of {item} that {name} has by {k}.",
    slots={"name": NAME, "friend": NAME, "item": pick(ITEMS), "a": ints(2, 20), "k": ints(2, 9)},
    where=lambda name, friend: name != friend,
    ask=[
        "{name} has {a} {item}. {friend} has {k} times as many. How many {item} does {friend} have?",
        "{friend} owns {k} times as many {item} as {name}, who owns {a}. How many are {friend}'s?",
        "If {name} has {a} {item} and {friend} {k} times that number, how many does {friend} have?",
        "{name} found {a} {item} and {friend} found {k} times as many. How many {item} did {friend} find?",
        "{friend} has {k} times the {item} of {name}. {name} has {a}. How many {item} does {friend} have?",
        "How many {item} does {friend} have with {k} times as many as {name}'s {a}?",
    ],
    vary={"k": "{friend} has {k} times as many"},
)
def _(a: int, k: int, item: str) -> Solution:
    return [f"{a} x {k} = {a * k}"], f"{a * k} {item}"


@shape(
    "together_with_multiple",
    plan="First we find the {item} of {friend}, then we add both numbers.",
    slots={"name": NAME, "friend": NAME, "item": pick(ITEMS), "a": ints(2, 15), "k": ints(2, 6)},
    where=lambda name, friend: name != friend,
    ask=[
        "{name} has {a} {item}. {friend} has {k} times as many. How many {item} do they have together?",
        "{friend} owns {k} times as many {item} as {name}, who owns {a}. How many do both own together?",
        "If {name} has {a} {item} and {friend} {k} times that number, how many {item} is that in total?",
        "{name} found {a} {item} and {friend} found {k} times as many. How many did they find together?",
        "{friend} has {k} times the {item} of {name}. {name} has {a}. How many {item} have they in total?",
        "How many {item} do {name} and {friend} have together if {name} has {a} and {friend} {k} times as many?",
    ],
)
def _(a: int, k: int, item: str) -> Solution:
    return [f"{a} x {k} = {a * k}", f"{a} + {a * k} = {a + a * k}"], f"{a + a * k} {item}"


@shape(
    "age_later",
    plan="We add the years to the age of {name}.",
    slots={"name": NAME, "a": ints(3, 70), "n": ints(2, 30)},
    ask=[
        "{name} is {a} years old. How old will {name} be in {n} years?",
        "How old will {name} be in {n} years, being {a} now?",
        "{name} is {a} now. What will {name}'s age be {n} years from now?",
        "In {n} years, how old is {name}, who is {a} today?",
        "Today {name} turns {a}. How old is {name} {n} years later?",
        "If {name} is {a} years old, what age will {name} be after {n} more years?",
    ],
    vary={"n": "it is {n} years"},
)
def _(a: int, n: int) -> Solution:
    return [f"{a} + {n} = {a + n}"], f"{a + n} years old"


@shape(
    "age_earlier",
    plan="We subtract the years from the age of {name}.",
    slots={"name": NAME, "a": ints(8, 80), "n": ints(2, 40)},
    where=lambda a, n: a > n + 1,
    ask=[
        "{name} is {a} years old. How old was {name} {n} years ago?",
        "How old was {name} {n} years ago, being {a} now?",
        "{name} is {a} now. What was {name}'s age {n} years earlier?",
        "{n} years ago, how old was {name}, who is {a} today?",
        "Today {name} is {a}. How old was {name} {n} years before?",
        "If {name} is {a} years old now, what age was {name} {n} years back?",
    ],
)
def _(a: int, n: int) -> Solution:
    return [f"{a} - {n} = {a - n}"], f"{a - n} years old"


@shape(
    "age_difference",
    plan="Being {word} means that we {verb} {n} years.",
    slots={"name": NAME, "friend": NAME, "a": ints(3, 70), "n": ints(2, 30), "word": pick(("older", "younger"))},
    where=lambda a, n, word, name, friend: name != friend and (word == "older" or a > n + 1),
    derive=lambda word: {"verb": "add" if word == "older" else "subtract"},
    ask=[
        "{name} is {a} years old. {friend} is {n} years {word}. How old is {friend}?",
        "{friend} is {n} years {word} than {name}, who is {a}. How old is {friend}?",
        "How old is {friend}, who is {n} years {word} than the {a}-year-old {name}?",
        "{name} is {a}. {friend} is {n} years {word} than {name}. What is {friend}'s age?",
        "If {name} is {a} and {friend} is {n} years {word}, how old is {friend}?",
        "Find {friend}'s age: {friend} is {n} years {word} than {name}, and {name} is {a}.",
    ],
)
def _(a: int, n: int, word: str) -> Solution:
    if word == "older":
        return [f"{a} + {n} = {a + n}"], f"{a + n} years old"
    return [f"{a} - {n} = {a - n}"], f"{a - n} years old"


@shape(
    "age_multiple",
    plan="We multiply the age of {name} by {k}.",
    slots={"name": NAME, "friend": NAME, "a": ints(2, 15), "k": ints(2, 5)},
    where=lambda name, friend: name != friend,
    ask=[
        "{name} is {a} years old. {friend} is {k} times as old. How old is {friend}?",
        "{friend} is {k} times as old as {name}, who is {a}. How old is {friend}?",
        "How old is {friend}, who is {k} times as old as the {a}-year-old {name}?",
        "{name} is {a}. {friend}'s age is {k} times that. What is {friend}'s age?",
        "If {name} is {a} and {friend} is {k} times as old, how old is {friend}?",
        "Find {friend}'s age: {friend} is {k} times as old as {name}, and {name} is {a}.",
    ],
)
def _(a: int, k: int) -> Solution:
    return [f"{a} x {k} = {a * k}"], f"{a * k} years old"


@shape(
    "age_sum",
    plan="First we find the age of {friend}, then we add both ages.",
    slots={"name": NAME, "friend": NAME, "a": ints(3, 60), "n": ints(2, 20)},
    where=lambda name, friend: name != friend,
    ask=[
        "{name} is {a} years old and {friend} is {n} years older. How old are they together?",
        "{friend} is {n} years older than {name}, who is {a}. What is the sum of their ages?",
        "{name} is {a}. {friend} is {n} years older. Add their ages.",
        "What is the total age of {name}, who is {a}, and {friend}, who is {n} years older?",
        "If {name} is {a} and {friend} is {n} years older, what do their ages add up to?",
        "Find the sum of the ages of {name} ({a}) and {friend}, who is {n} years older.",
    ],
)
def _(a: int, n: int) -> Solution:
    return [f"{a} + {n} = {a + n}", f"{a} + {a + n} = {a + a + n}"], f"{a + a + n} years"


@shape(
    "birth_year",
    plan="We add the age to the year of birth.",
    slots={"name": NAME, "year": ints(1950, 2015), "n": ints(2, 30)},
    ask=[
        "{name} was born in {year}. In which year does {name} turn {n}?",
        "In what year does {name}, born in {year}, turn {n}?",
        "{name}'s year of birth is {year}. When is {name} {n} years old?",
        "Born in {year}, {name} celebrates birthday number {n} in which year?",
        "If {name} was born in {year}, in which year is the {n}th birthday?",
        "When does {name} turn {n} with the birth year {year}?",
    ],
)
def _(year: int, n: int) -> Solution:
    return [f"{year} + {n} = {year + n}"], year + n


@shape(
    "packs_needed",
    plan="We divide the number of {item} by the number in one pack.",
    slots={"item": ITEM, "k": ints(2, 12), "q": ints(2, 12)},
    derive=lambda k, q: {"n": k * q},
    ask=[
        "{item} come in packs of {k}. How many packs give {n} {item}?",
        "How many packs of {k} {item} are needed for {n} {item}?",
        "A pack holds {k} {item}. How many packs do you need for {n} {item}?",
        "You need {n} {item} and each pack has {k}. How many packs must you buy?",
        "If there are {k} {item} in a pack, how many packs make {n} {item}?",
        "{n} {item} are packed {k} to a pack. How many packs are there?",
    ],
)
def _(n: int, k: int, q: int) -> Solution:
    return [f"{n} / {k} = {q}"], f"{q} packs"


@shape(
    "cheaper_by",
    plan="The difference is the higher price minus the lower price.",
    slots={"item": ITEM, "a": ints(5, 99), "b": ints(2, 90), "cur": MONEY},
    where=lambda a, b: a > b + 1,
    ask=[
        "A box of {item} costs {a} {cur} in one shop and {b} {cur} in another. How much cheaper is the second shop?",
        "The old price of the {item} was {a} {cur}, the new price is {b} {cur}. By how much did it fall?",
        "How much do you save on {item} at {b} {cur} instead of {a} {cur}?",
        "The {item} cost {a} {cur} yesterday and {b} {cur} today. What is the difference?",
        "What is the difference in price between {item} for {a} {cur} and {item} for {b} {cur}?",
        "Instead of {a} {cur} the {item} now cost {b} {cur}. How much less is that?",
    ],
)
def _(a: int, b: int, cur: str) -> Solution:
    return [f"{a} - {b} = {a - b}"], f"{a - b} {cur}"


@shape(
    "profit",
    plan="First we find the gain on one {one}, then the gain on all {item}.",
    slots={"name": NAME, "item": ITEM, "n": ints(2, 12), "p": ints(1, 8), "g": ints(1, 6), "cur": MONEY},
    derive=lambda p, g: {"q": p + g},
    ask=[
        "{name} buys {n} {item} at {p} {cur} each and sells them at {q} {cur} each. What is the profit?",
        "Each {one} is bought for {p} {cur} and sold for {q} {cur}. What does {name} gain on {n} {item}?",
        "{name} sells {n} {item} for {q} {cur} each after paying {p} {cur} each. How much profit is that?",
        "What profit does {name} make on {n} {item} bought at {p} {cur} and sold at {q} {cur} each?",
        "If {item} cost {p} {cur} each and {name} sells {n} of them at {q} {cur} each, what is gained?",
        "Find {name}'s profit: {n} {item}, bought at {p} {cur} each, sold at {q} {cur} each.",
    ],
)
def _(n: int, p: int, q: int, g: int, cur: str) -> Solution:
    return [f"{q} - {p} = {g}", f"{n} x {g} = {n * g}"], count(n * g, cur)


@shape(
    "fraction_of_group",
    plan="To find 1/{d} of the {who}, we divide by {d}.",
    slots={"d": ints(2, 8), "q": ints(2, 12), "who": pick(("pupils", "players", "guests", "workers"))},
    derive=lambda d, q: {"n": d * q},
    ask=[
        "There are {n} {who}. 1/{d} of them are new. How many new {who} are there?",
        "1/{d} of {n} {who} come by bike. How many {who} is that?",
        "Out of {n} {who}, 1/{d} wear a hat. How many {who} wear a hat?",
        "In a group of {n} {who}, 1/{d} stay at home. How many {who} stay at home?",
        "How many are 1/{d} of a group of {n} {who}?",
        "A group has {n} {who} and 1/{d} of them are late. How many {who} are late?",
    ],
)
def _(n: int, d: int, q: int, who: str) -> Solution:
    return [f"{n} / {d} = {q}"], f"{q} {who}"


@shape(
    "legs",
    plan="Each of the {x} has 4 legs, and each of the {y} has 2 legs.",
    slots={
        "a": ints(2, 20),
        "b": ints(2, 20),
        "x": pick(("dogs", "cows", "cats")),
        "y": pick(("hens", "ducks", "geese")),
    },
    ask=[
        "How many legs do {a} {x} and {b} {y} have?",
        "A farm has {a} {x} and {b} {y}. How many legs is that?",
        "Count the legs of {a} {x} and {b} {y}.",
        "There are {a} {x} and {b} {y} in the yard. How many legs are there?",
        "If you see {a} {x} and {b} {y}, how many legs do you see?",
        "What is the total number of legs of {a} {x} and {b} {y}?",
    ],
)
def _(a: int, b: int, x: str, y: str) -> Solution:
    return [
        f"{a} {x} have {a} x 4 = {4 * a} legs.",
        f"{b} {y} have {b} x 2 = {2 * b} legs.",
        f"{4 * a} + {2 * b} = {4 * a + 2 * b}",
    ], f"{4 * a + 2 * b} legs"
