"""Numbers as people and programs write them into strings: read by a form, and the form that reads a whole sample."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from worker.records import FloatArray

MAX_NUMBER = 64  # characters of a number in a string, with the spaces around it; what is longer is none
DECIMALS = (".", ",")
THOUSANDS = (",", ".", " ", "'", "_")
MAX_UNIT = 8  # characters; what is longer is a word

MIN_NUMBERS, MAX_WORDS, MIN_DISTINCT = 0.8, 3, 10  # in a field where a few words say that there is no number
HEAD = 100  # values that a form has to read before it is tried on all of them

_BEYOND = 2**1024 - 2**970  # the first whole number that rounds to no double
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CODE = re.compile(r"[+-]?0[0-9]|\+[0-9]{6}")  # a zip code, an account, a telephone number: what arithmetic would spoil
_SIGN = "[+\\-\u2212]"
_SPACE = "[ \t\u00a0]*"
_BODY = "(?:[0-9][0-9.,_'\u2019 \u00a0\u202f\u2009]*)?[.,]?[0-9](?:[eE][+-]?[0-9]+)?"
_MONEY = "$€£¥₹₽₩₺₪₫฿₴₦"
_UNIT = f"(?:[^\\W0-9_]|[%‰°/²³{_MONEY}])*"
_CURRENCIES = (
    f"[{_MONEY}]|US\\$|R\\$|USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|BRL|SEK|NOK|DKK|PLN|CZK|HUF|TRY|KRW|MXN|ZAR|SGD"
)
_WITH_UNIT = re.compile(f"{_SIGN}?\\s*(?P<before>{_CURRENCIES})?\\s*{_SIGN}?{_BODY}\\s*(?P<after>{_UNIT})")
_DIGIT = re.compile("[0-9]")
_NO_UNITS = frozenset(("am", "pm", "st", "nd", "rd", "th", "e", "x"))
_GROUPS = {" ": "[ \u00a0\u202f\u2009]", "'": "['\u2019]"}  # what else stands for these two
_UNGROUPED = re.compile(f"{_SIGN}?[0-9]{{4}}")
_MAYBE_THOUSANDS = re.compile(f"{_SIGN}?(?:[0-9]{{1,3}}|[1-9][0-9]{{0,2}}[.,][0-9]{{3}})")


class NumberForm(NamedTuple):
    """How numbers are written.

    decimal     what begins the fraction, one of DECIMALS
    thousands   what stands between groups of digits, one of THOUSANDS; empty = nothing
    unit        what may stand before or behind the digits, such as EUR or ms; empty = nothing
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    def read(self, text: str) -> float:
        """The number that a text is, spaces around it allowed: infinite beyond the range of a double, NaN for any
        other.

        More lenient than JSON, for strings come from all sorts of writers: +1, .5, 5. and 007 are numbers. 0x10, nan,
        infinity and the digits of other scripts are none.

        >>> NumberForm().read(" -12.50 "), NumberForm().read("1_000")
        (-12.5, nan)
        >>> NumberForm(",", ".", "€").read("-1.234,50 €")
        -1234.5
        """
        text = text.strip() if len(text) <= MAX_NUMBER else "?"
        if self == PLAIN:
            return float(text) if _NUMBER.fullmatch(text) else np.nan
        match = _pattern(self).fullmatch(text)
        if match is None:
            return np.nan
        before, sign, whole, fraction, exponent = match.groups("")
        whole = whole if whole.isdecimal() else re.sub("[^0-9]", "", whole)
        if (before and sign) or not (whole or fraction.strip(self.decimal)):
            return np.nan
        negative = "-" if (before or sign) in ("-", "\u2212") else ""
        return float(f"{negative}{whole or 0}.{fraction[1:] or 0}{exponent}")

    def read_all(self, texts: Sequence[str]) -> FloatArray:
        """`read` of many texts, float64 (B,); ten times as fast where all are numbers of JSON's grammar."""
        numbers = _read_json(self, texts)
        if numbers is not None:
            return numbers
        return np.array([self.read(text) for text in texts], np.float64)

    def scaled(self, text: str, factor: float) -> str:
        """A number times a factor, written as it was: with its unit, as many decimals, and no separators.

        >>> NumberForm(",", ".", "€").scaled("1.234,50 €", 100)
        '123450,00 €'
        """
        number = self.read(text) * factor
        fraction = re.search(f"{re.escape(self.decimal)}([0-9]*)", text)
        written = f"{number:.{len(fraction[1]) if fraction else 0}f}"
        if not np.isclose(float(written), number, rtol=1e-9):  # a number with an exponent
            written = repr(number)
        written = written.replace(".", self.decimal)
        if not self.unit or self.unit not in text:
            return written
        is_before = text.strip(" +-\u2212").startswith(self.unit)
        return f"{self.unit} {written}" if is_before else f"{written} {self.unit}"

    def options(self) -> dict[str, Any]:
        """The options of the schema file that name it."""
        return {name: value for name, value in self._asdict().items() if value != getattr(PLAIN, name)}


PLAIN = NumberForm()


class Reading(NamedTuple):
    """How the numbers of a sample are read.

    numbers   float64, of the values that are numbers, in their order
    gaps      other strings of the sample, which say that there is no number
    doubt     what could be meant as well; empty where there is nothing
    """

    form: NumberForm
    numbers: FloatArray
    gaps: tuple[str, ...] = ()
    doubt: str = ""


@lru_cache
def _pattern(form: NumberForm) -> re.Pattern[str]:
    decimal, unit = re.escape(form.decimal), re.escape(form.unit)
    separator = _GROUPS.get(form.thousands, re.escape(form.thousands))
    grouped = f"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{2,3}})*{separator}[0-9]{{3}}|" if form.thousands else ""
    body = f"((?:{grouped}[0-9]+)?)({decimal}[0-9]*)?([eE][+-]?[0-9]+)?"
    if not unit:
        return re.compile(f"({_SIGN}?)(){body}")
    return re.compile(f"({_SIGN}?){_SPACE}(?:{unit}{_SPACE})?({_SIGN}?){body}(?:{_SPACE}{unit})?")


@lru_cache
def _lines(form: NumberForm) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]]:
    """What lines with a number each look like, and what makes numbers of JSON of them, by turns."""
    # Possessive: a line that fits is not tried again, which takes a quarter of the time.
    lines = re.compile(f"(?:{_SPACE}{_pattern(form).pattern}{_SPACE}\n)*+")
    removed = f" \t\u00a0{_GROUPS.get(form.thousands, form.thousands).strip('[]')}"
    units = ((form.unit, ""),) if form.unit else ()
    return lines, (*units, *((mark, "") for mark in removed), (form.decimal, "."), ("\u2212", "-"), ("\n", ","))


def _as_json(form: NumberForm, texts: Sequence[str]) -> str:
    """Texts as numbers of JSON with commas between them; something else where one is no number of this form."""
    if form == PLAIN:
        return ",".join(texts)
    lines, replacements = _lines(form)
    joined = "\n".join([*texts, ""])
    if not lines.fullmatch(joined):
        return "?"
    joined = joined[:-1]
    for mark, replacement in replacements:
        joined = joined.replace(mark, replacement)
    return joined


def _read_json(form: NumberForm, texts: Sequence[str]) -> FloatArray | None:
    """The numbers of texts of this form that become numbers of JSON's grammar; None where one does not."""
    if not len(texts) or max(map(len, texts)) > MAX_NUMBER:
        return None
    try:
        numbers = orjson.loads(f"[{_as_json(form, texts)}]")
    except (orjson.JSONDecodeError, UnicodeEncodeError):  # a lone surrogate
        return None
    # Each comma within a text would be one number more, so where there are as many, each text is one of them.
    is_each = len(numbers) == len(texts) and set(map(type, numbers)) <= {int, float}
    return doubles(numbers) if is_each else None


def doubles(values: Sequence[Any]) -> FloatArray:
    """Numbers as float64 (B,), NaN for None; infinite where a whole number is beyond the range of a double."""
    try:
        return np.array(values, np.float64)
    except OverflowError:  # from a source that isn't JSON
        return np.array([np.inf if abs(value or 0) >= _BEYOND else value for value in values], np.float64)


def read_values(values: Sequence[Any], form: NumberForm) -> FloatArray:
    """Numbers, and strings that hold them, as float64 (B,): NaN where a string is no number, anything for None."""
    is_text = np.fromiter((type(value) is str for value in values), bool, len(values))
    x = np.empty(len(values))
    x[is_text] = form.read_all([value for value in values if type(value) is str])
    x[~is_text] = doubles([value for value in values if type(value) is not str])
    return x


def find_reading(values: Sequence[Any]) -> Reading | None:
    """How to read a sample of numbers and strings; None where they are something else.

    The form has to read all strings but one word, such as "unknown", or up to three in up to a fifth of them: they
    become `gaps`. Codes are none: digits that begin with a zero, telephone numbers. It works badly where a text
    could mean two numbers, such as 1.234: `doubt` says so where no other value of the sample decides.

    >>> reading = find_reading(["1.234,50 €", "0,99 €"])
    >>> reading.form, reading.numbers.tolist()
    (NumberForm(decimal=',', thousands='.', unit='€'), [1234.5, 0.99])
    """
    texts = [value for value in values if type(value) is str]
    plain = _read_json(PLAIN, texts)
    if plain is not None and len(plain) == len(values) and not _may_group(texts):  # as most
        return Reading(PLAIN, plain)
    if len({text for text in texts[:HEAD] if not _DIGIT.search(text)}) > MAX_WORDS:
        return None
    words = Counter(text for text in texts if not _DIGIT.search(text))
    if words:
        are_many = len(words) > 1 and words.total() > (1 - MIN_NUMBERS) * len(values)
        if len(words) > MAX_WORDS or are_many or len(set(values)) - len(words) < MIN_DISTINCT:
            return None
        values = [value for value in values if value not in words]
        texts = [text for text in texts if text not in words]
    form, doubt = (PLAIN, "") if not texts else _form_of(texts) or (None, "")
    if form is None:
        return None
    numbers = read_values(values, form)
    if not len(numbers) or not np.isfinite(numbers).all():
        return None
    if words:
        share = 100 * words.total() / (words.total() + len(values))  # no word is quoted: the field may be redacted
        doubt = "; ".join(filter(None, (doubt, f"{share:.2g}% are words, listed and read as missing")))
    return Reading(form, numbers, tuple(words), doubt)


def _form_of(texts: Sequence[str]) -> tuple[NumberForm, str] | None:
    """The form of all these texts, and what they could mean instead."""
    unit = ""
    if not all(map(_NUMBER.fullmatch, map(str.strip, texts[:HEAD]))):
        split = [_WITH_UNIT.fullmatch(text.strip()) for text in texts[:HEAD] if len(text) <= MAX_NUMBER]
        units = {(match["before"] or "", match["after"]) if match else None for match in split}
        if len(units) != 1 or None in units or len(split) < len(texts[:HEAD]):
            return None
        (pair,) = units
        before, after = pair or ("", "")
        unit = before or after
        if (before and after) or len(unit) > MAX_UNIT or unit.lower() in _NO_UNITS:
            return None
    bodies = [text.replace(unit, "").strip() if unit else text.strip() for text in texts]
    if any(map(_CODE.match, bodies)) or (unit and not all(unit in text for text in texts)):
        return None
    return _form_of_bodies(bodies, unit)


def _form_of_bodies(bodies: Sequence[str], unit: str) -> tuple[NumberForm, str] | None:
    forms = [
        NumberForm(decimal, thousands, unit)
        for thousands in ("", *THOUSANDS)
        for decimal in DECIMALS
        if decimal != thousands
    ]
    # A separator may be rarer than one in the head: there it need not occur.
    fits = [form for form in forms if np.isfinite(form.read_all(bodies[:HEAD])).all()]
    fits = [form for form in fits if _reads(form, bodies)]
    if not fits:
        return None
    if not _may_group(bodies):
        return fits[0], ""
    marked = [body for body in bodies if "." in body or "," in body]
    mark = next(mark for mark in DECIMALS if mark in marked[0])
    as_fraction = NumberForm(mark, "", unit)
    as_thousands = NumberForm("," if mark == "." else ".", mark, unit)
    if as_fraction not in fits or as_thousands not in fits:
        return fits[0], ""
    # Three digits behind the point in all values that have one say that zeros are kept: 85 would be written 85.000.
    chosen = as_thousands if mark == "," or len(marked) < len(bodies) else as_fraction
    name = "point" if mark == "." else "comma"
    meant = "thousands" if chosen is as_thousands else "a fraction"
    return chosen, f"three digits behind a {name} could be thousands or a fraction: read as {meant}"


def _may_group(bodies: Sequence[str]) -> bool:
    """Whether there is nothing but 1.234 or 1,234, one mark in each: a fraction of three digits, or thousands."""
    if not all(map(_MAYBE_THOUSANDS.fullmatch, bodies[:HEAD])) or not all(map(_MAYBE_THOUSANDS.fullmatch, bodies)):
        return False
    return any("." in body or "," in body for body in bodies)


def _reads(form: NumberForm, bodies: Sequence[str]) -> bool:
    if form.thousands and not any(form.thousands in body for body in bodies) and form.thousands not in _GROUPS:
        return False
    if form.thousands and any(map(_UNGROUPED.match, bodies)):
        return False  # who groups digits groups all of them
    if form.decimal == "," and not any("," in body for body in bodies):
        return form.thousands == "." and bool(np.isfinite(form.read_all(bodies)).all())
    return bool(np.isfinite(form.read_all(bodies)).all())
