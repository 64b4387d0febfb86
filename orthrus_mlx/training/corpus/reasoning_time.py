"""Question shapes about weekdays, months, dates and clock times."""

from __future__ import annotations

from orthrus_mlx.training.corpus.core import ints, pick
from orthrus_mlx.training.corpus.shape import Solution, shape
from orthrus_mlx.training.corpus.words import FIRST_NAMES, MONTH_DAYS, MONTHS, WEEKDAYS, count

NAME = pick(FIRST_NAMES)
EVENT = pick(
    ("lesson", "film", "concert", "meeting", "match", "show", "trip", "walk", "play", "course", "talk", "party")
)


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24}:{minutes % 60:02d}"


def _weekday_solution(day: str, n: int, sign: int) -> Solution:
    index = WEEKDAYS.index(day)
    rest = n % 7
    word = "after" if sign > 0 else "before"
    result = WEEKDAYS[(index + sign * rest) % 7]
    steps = []
    if n >= 7:
        weeks = n // 7 * 7
        steps.append(f"{n} - {weeks} = {rest}, and {weeks} days are whole weeks.")
    if rest:
        walk = [WEEKDAYS[(index + sign * step) % 7] for step in range(1, rest + 1)]
        steps.append(f"Count {count(rest, 'days')} {word} {day}: {', '.join(walk)}.")
    else:
        steps.append(f"The weekday stays {day}.")
    return steps, result


@shape(
    "weekday_after",
    plan="After 7 days the same weekday comes again.",
    slots={"day": pick(WEEKDAYS), "n": ints(2, 30)},
    ask=[
        "Today is {day}. What day is it in {n} days?",
        "If today is {day}, which weekday is it in {n} days?",
        "What day of the week comes {n} days after {day}?",
        "It is {day} now. Which day will it be {n} days from now?",
        "Which weekday is {n} days after a {day}?",
        "Starting on {day}, what day is it {n} days later?",
        "{day} plus {n} days: which weekday is that?",
    ],
    vary={"n": "it is {n} days"},
    weight=1.5,
)
def _(day: str, n: int) -> Solution:
    return _weekday_solution(day, n, 1)


@shape(
    "weekday_before",
    plan="Every 7 days the same weekday comes again.",
    slots={"day": pick(WEEKDAYS), "n": ints(2, 20)},
    ask=[
        "Today is {day}. What day was it {n} days ago?",
        "If today is {day}, which weekday was it {n} days ago?",
        "What day of the week comes {n} days before {day}?",
        "It is {day} now. Which day was it {n} days earlier?",
        "Which weekday is {n} days before a {day}?",
        "Going back {n} days from {day}, what day is it?",
    ],
    weight=1.5,
)
def _(day: str, n: int) -> Solution:
    return _weekday_solution(day, n, -1)


@shape(
    "weekday_neighbour",
    plan="The days of the week follow each other in a fixed order.",
    slots={"name": NAME, "day": pick(WEEKDAYS), "word": pick(("after", "before"))},
    ask=[
        "Which day comes right {word} {day}, {name} asks?",
        "{name} wants to know the day {word} {day}. What is it?",
        "What is the day {word} {day}? {name} forgot it.",
        "{name} has a test on the day {word} {day}. Which day is that?",
        "The party of {name} is one day {word} {day}. On which weekday is it?",
        "Tell {name} which weekday comes directly {word} {day}.",
    ],
)
def _(day: str, word: str) -> Solution:
    other = WEEKDAYS[(WEEKDAYS.index(day) + (1 if word == "after" else -1)) % 7]
    return [f"The day {word} {day} is {other}."], other


@shape(
    "month_after",
    plan="We count the months of the year from 1 to 12.",
    slots={"month": pick(MONTHS), "n": ints(2, 11)},
    ask=[
        "It is {month}. Which month is it in {n} months?",
        "Which month comes {n} months after {month}?",
        "If it is {month} now, what month will it be in {n} months?",
        "Starting in {month}, which month is it {n} months later?",
        "What month is {n} months after {month}?",
        "{month} plus {n} months: which month is that?",
    ],
    vary={"n": "it is {n} months"},
)
def _(month: str, n: int) -> Solution:
    number = MONTHS.index(month) + 1
    steps = [f"{month} is month {number}.", f"{number} + {n} = {number + n}"]
    if number + n > 12:
        steps.append(f"{number + n} - 12 = {number + n - 12}")
    target = (number + n - 1) % 12
    return steps, MONTHS[target]


@shape(
    "month_number",
    plan="We count the months of the year, starting with January as 1.",
    slots={"name": NAME, "month": pick(MONTHS)},
    ask=[
        "{name} asks: which number does the month {month} have?",
        "What number is {month} among the months of the year? {name} wants to know.",
        "{name} was born in {month}. Which month of the year is that, as a number?",
        "For a form {name} needs the number of the month {month}. What is it?",
        "{name} writes {month} as a number. Which number is it?",
        "Counting from January as 1, what number is {month}, asks {name}?",
    ],
)
def _(month: str) -> Solution:
    number = MONTHS.index(month) + 1
    return [f"{month} is month {number} of the year."], number


@shape(
    "days_in_months",
    slots={"name": NAME, "a": ints(0, 10)},
    derive=lambda a: {"x": MONTHS[a], "y": MONTHS[a + 1]},
    ask=[
        "How many days do {x} and {y} have together in a common year, {name} asks?",
        "In a common year {name} travels for all of {x} and {y}. How many days is that?",
        "Help {name} add the days of {x} and {y} in a common year.",
        "{name} counts the days of {x} and {y} of a common year. How many are there?",
        "What is the total number of days of {x} and {y} in a common year? {name} wants to know.",
        "{name} works in {x} and {y} of a year that is not a leap year. How many days do both months have?",
    ],
    weight=0.4,
)
def _(a: int, x: str, y: str) -> Solution:
    p, q = MONTH_DAYS[a], MONTH_DAYS[a + 1]
    return [f"{x} has {p} days.", f"{y} has {q} days.", f"{p} + {q} = {p + q}"], f"{p + q} days"


@shape(
    "date_later",
    plan="We add the {n} days to the date {month} {d}.",
    slots={"month": pick(MONTHS), "d": ints(1, 26), "n": ints(2, 25)},
    where=lambda d, n: d + n <= 28,
    ask=[
        "Today is {month} {d}. What is the date in {n} days?",
        "Which date is {n} days after {month} {d}?",
        "If it is {month} {d}, what date is it {n} days later?",
        "A trip starts on {month} {d} and ends {n} days later. On which date does it end?",
        "What is the date {n} days after {month} {d}?",
        "Count {n} days on from {month} {d}. Which date is it?",
    ],
    vary={"n": "it is {n} days"},
)
def _(month: str, d: int, n: int) -> Solution:
    return [f"{d} + {n} = {d + n}"], f"{month} {d + n}"


@shape(
    "date_across_month",
    plan="We add the days and go on with the next month when {month} is over.",
    slots={"a": ints(0, 10), "d": ints(20, 30), "n": ints(3, 25)},
    where=lambda a, d, n: d <= MONTH_DAYS[a] < d + n and a != 1 and n < 26,
    derive=lambda a: {"month": MONTHS[a]},
    ask=[
        "Today is {month} {d}. What is the date in {n} days?",
        "Which date is {n} days after {month} {d}?",
        "If it is {month} {d}, what date is it {n} days later?",
        "A trip starts on {month} {d} and ends {n} days later. On which date does it end?",
        "What is the date {n} days after {month} {d}?",
        "Count {n} days on from {month} {d}. Which date is it?",
    ],
)
def _(a: int, month: str, d: int, n: int) -> Solution:
    days = MONTH_DAYS[a]
    return [
        f"{d} + {n} = {d + n}",
        f"{month} has {days} days.",
        f"{d + n} - {days} = {d + n - days}",
    ], f"{MONTHS[a + 1]} {d + n - days}"


@shape(
    "days_between",
    plan="Both dates are in {month}, so we subtract the days.",
    slots={"month": pick(MONTHS), "a": ints(1, 20), "b": ints(4, 28)},
    where=lambda a, b: b > a + 1,
    ask=[
        "How many days are there from {month} {a} to {month} {b}?",
        "How many days after {month} {a} is {month} {b}?",
        "Today is {month} {a}. How many days is it until {month} {b}?",
        "Find the number of days between {month} {a} and {month} {b}.",
        "A show opens on {month} {b}. It is {month} {a}. How many days are left?",
        "If it is {month} {a}, in how many days is it {month} {b}?",
    ],
)
def _(a: int, b: int) -> Solution:
    return [f"{b} - {a} = {b - a}"], f"{b - a} days"


@shape(
    "clock_add_minutes",
    plan="We add the minutes to {start}, and 60 minutes make an hour.",
    slots={"h": ints(6, 21), "m": ints(0, 55, 5), "n": ints(5, 55, 5), "event": EVENT},
    derive=lambda h, m: {"start": _clock(60 * h + m)},
    ask=[
        "A {event} starts at {start} and lasts {n} minutes. When does it end?",
        "It is {start}. What time is it in {n} minutes?",
        "The {event} begins at {start} and takes {n} minutes. At what time is it over?",
        "What time is it {n} minutes after {start}?",
        "If a {event} of {n} minutes starts at {start}, when is it finished?",
        "Now it is {start}. A {event} of {n} minutes begins. When does it end?",
    ],
    vary={"n": "it is {n} minutes"},
    weight=1.5,
)
def _(h: int, m: int, n: int) -> Solution:
    total = m + n
    steps = [f"{m} + {n} = {total}"]
    if total >= 60:
        steps += [f"{total} - 60 = {total - 60}, so one hour is carried over.", f"{h} + 1 = {h + 1}"]
    return steps, _clock(60 * h + total)


@shape(
    "clock_add_hours",
    plan="We add the hours to {start}.",
    slots={"h": ints(5, 20), "m": ints(0, 55, 5), "n": ints(2, 9), "event": EVENT},
    derive=lambda h, m: {"start": _clock(60 * h + m)},
    where=lambda h, n: h + n < 24,
    ask=[
        "A {event} starts at {start} and lasts {n} hours. When does it end?",
        "It is {start}. What time is it in {n} hours?",
        "The {event} begins at {start} and takes {n} hours. At what time is it over?",
        "What time is it {n} hours after {start}?",
        "If a {event} of {n} hours starts at {start}, when is it finished?",
        "Now it is {start}. A {event} of {n} hours begins. When does it end?",
    ],
    vary={"n": "it is {n} hours"},
)
def _(h: int, m: int, n: int) -> Solution:
    return [f"{h} + {n} = {h + n}", "The minutes stay the same."], _clock(60 * (h + n) + m)


@shape(
    "clock_difference",
    plan="We subtract the hours and the minutes of {start} from those of {end}.",
    slots={"h": ints(5, 20), "m": ints(0, 30, 5), "dh": ints(1, 6), "dm": ints(0, 25, 5), "event": EVENT},
    where=lambda h, dh: h + dh < 24,
    derive=lambda h, m, dh, dm: {"start": _clock(60 * h + m), "end": _clock(60 * (h + dh) + m + dm)},
    ask=[
        "A {event} starts at {start} and ends at {end}. How long does it last?",
        "How much time passes from {start} to {end}?",
        "The {event} begins at {start} and is over at {end}. How long is it?",
        "How long is it from {start} until {end}?",
        "If a {event} runs from {start} to {end}, how long does it take?",
        "Find the time between {start} and {end}.",
    ],
)
def _(h: int, m: int, dh: int, dm: int) -> Solution:
    steps = [f"{h + dh} - {h} = {dh}", f"{m + dm} - {m} = {dm}"]
    if dm == 0:
        return steps, count(dh, "hours")
    return steps, f"{count(dh, 'hours')} and {dm} minutes"


@shape(
    "clock_earlier",
    plan="We go back {n} minutes from {end}.",
    slots={"name": NAME, "h": ints(6, 22), "m": ints(0, 55, 5), "n": ints(5, 55, 5)},
    derive=lambda h, m: {"end": _clock(60 * h + m)},
    ask=[
        "{name} must be at school at {end} and the way takes {n} minutes. When must {name} leave?",
        "The bus leaves at {end}. {name} needs {n} minutes to the stop. When must {name} start?",
        "{name} arrives at {end} after {n} minutes of walking. When did {name} leave?",
        "A cake is ready at {end} after {n} minutes in the oven. When did {name} put it in?",
        "What time was it {n} minutes before {end}, {name} asks?",
        "{name}'s film ended at {end} and lasted {n} minutes. When did it begin?",
    ],
)
def _(h: int, m: int, n: int) -> Solution:
    if m >= n:
        return [f"{m} - {n} = {m - n}"], _clock(60 * h + m - n)
    return [
        f"{m} + 60 = {m + 60}, so one hour is borrowed.",
        f"{m + 60} - {n} = {m + 60 - n}",
        f"{h} - 1 = {h - 1}",
    ], _clock(60 * h + m - n)


@shape(
    "clock_24",
    plan="A 24-hour clock counts the hours from 0 to 23.",
    slots={"h": ints(1, 11), "m": ints(0, 55, 5), "half": pick(("a.m.", "p.m."))},
    derive=lambda h, m: {"t": _clock(60 * h + m)},
    ask=[
        "Write {t} {half} as 24-hour time.",
        "What is {t} {half} on a 24-hour clock?",
        "Convert {t} {half} to 24-hour time.",
        "How is {t} {half} written on a 24-hour clock?",
        "Change {t} {half} into the 24-hour format.",
        "In 24-hour time, what is {t} {half}?",
    ],
)
def _(h: int, m: int, half: str) -> Solution:
    if half == "a.m.":
        return ["In the morning the hour stays the same."], _clock(60 * h + m)
    return [f"After noon we add 12 hours: {h} + 12 = {h + 12}"], _clock(60 * (h + 12) + m)


@shape(
    "weekly_hours",
    plan="We multiply the hours of one day by the number of days.",
    slots={"name": NAME, "h": ints(2, 9), "d": ints(2, 7), "what": pick(("works", "studies", "trains", "paints"))},
    ask=[
        "{name} {what} {h} hours a day on {d} days a week. How many hours is that per week?",
        "On {d} days of the week {name} {what} {h} hours. How many hours per week?",
        "How many hours a week is it if {name} {what} {h} hours on each of {d} days?",
        "{name} {what} on {d} days, {h} hours each. What is the total of hours?",
        "Every week {name} {what} {d} times for {h} hours. How many hours altogether?",
        "If {name} {what} {h} hours daily for {d} days, how many hours is that?",
    ],
    vary={"d": "it is {d} days"},
)
def _(h: int, d: int) -> Solution:
    return [f"{h} x {d} = {h * d}"], f"{h * d} hours"
