"""Dates in many spellings, translated to ISO 8601: "the 3rd of March, 1987" → "1987-03-03".

The items are the days of 1900 to 2099. A spelling is drawn for each: the order of day, month and year, names in full or
short, ordinals, the weekday in front, capital or small letters. Day and month as numbers are written only where they
cannot be exchanged: day above 12, or the two equal. Years of two digits are those of POSIX: 69 to 99 of the 20th
century, 00 to 68 of the 21st.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

import numpy as np

from models.tasks.recall import Batch
from models.tasks.translation import Characters, held_out, padded

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
HELD_OUT = 512  # spellings in the evaluation, each of another item
MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
VOCABULARY = Characters("0123456789 ,./-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# Parts of a spelling: d, dd and dth are the day as 3, 03 and 3rd; m and mm the month as 3 and 03, and name in letters;
# yyyy and yy the year.
WRITTEN = [
    "the {dth} of {name}, {yyyy}",
    "{dth} of {name} {yyyy}",
    *(
        spelling.replace("day", day)
        for spelling in ("{day} {name} {yyyy}", "{name} {day}, {yyyy}", "{name} {day} {yyyy}", "{yyyy} {name} {day}")
        for day in ("d", "dd", "dth")
    ),
]
YEAR_FIRST = ["{yyyy}-{mm}-{dd}", "{yyyy}/{mm}/{dd}", "{yyyy}{mm}{dd}"]
NUMERIC = [
    "{d}/{m}/{yyyy}",
    "{m}/{d}/{yyyy}",
    "{dd}/{mm}/{yyyy}",
    "{mm}/{dd}/{yyyy}",
    "{d}.{m}.{yyyy}",
    "{dd}-{mm}-{yyyy}",
]
TWO_DIGITS = ["{dd}/{mm}/{yy}", "{mm}/{dd}/{yy}", "{d}.{m}.{yy}"]


def ordinal(n: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, … 11th, 12th, 13th, …."""
    return f"{n}{'th' if n // 10 == 1 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def spell(rng: np.random.Generator, day: date) -> str:
    """Return one of the spellings of a day: three in four have the month's name, and of those a third the weekday."""
    d, m, y = day.day, day.month, day.year
    numbers = {"d": d, "dd": f"{d:02}", "dth": ordinal(d), "m": m, "mm": f"{m:02}", "yyyy": y, "yy": f"{y % 100:02}"}
    if rng.random() < 0.75:
        month, weekday = MONTHS[m - 1], WEEKDAYS[day.weekday()]
        names = (month, month[:3], month if len(month) == 3 else month[:3] + ".")
        text = _choice(rng, WRITTEN).format(name=_choice(rng, names), **numbers)
        if rng.random() < 1 / 3:
            text = _choice(rng, (weekday, weekday[:3])) + _choice(rng, (", ", " ")) + text
        return _choice(rng, (text, text, text.lower(), text.upper()))
    spellings = YEAR_FIRST
    if d > 12 or d == m:
        spellings = spellings + NUMERIC + (TWO_DIGITS if 1969 <= y <= 2068 else [])
    return _choice(rng, spellings).format(**numbers)


def _choice(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


@cache
def items(evaluated: bool) -> list[date]:
    """Return the days that are held out, or those to train on."""
    days = (FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1))
    return [day for day in days if held_out(day.isoformat()) == evaluated]


@dataclass(frozen=True)
class Dates:
    """The task: (source, target) of a spelling and the day in ISO 8601."""

    characters: Characters = VOCABULARY
    digest: str = ""  # nothing to read: every text is drawn

    @property
    def vocabulary(self) -> int:
        """Return the number of tokens."""
        return self.characters.size

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (source, target) of days to train on."""
        days = items(False)
        return self.pairs(rng, [days[i] for i in rng.integers(len(days), size=batch)])

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return 512 spellings, each of another day that is held out."""
        days = items(True)
        return {"dates": self.pairs(rng, [days[i] for i in rng.permutation(len(days))[:HELD_OUT]])}

    def pairs(self, rng: np.random.Generator, days: list[date]) -> Batch:
        """Return (source, target) of these days, each in a spelling drawn for it."""
        encode = self.characters.encode
        return padded([encode(spell(rng, day)) for day in days], [encode(day.isoformat()) for day in days])

    def question(self, text: str) -> list[int]:
        """Return the source of a text, as `batch` has it. Raises UserError for a character outside the vocabulary."""
        return self.characters.encode(text)
