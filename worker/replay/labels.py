"""What a record is known to be: read from the record or from a list of ids, before the model sees anything.

A label is a short text: "" for a normal record, else the kind of anomaly; None where nothing is known.
"""

from pathlib import Path
from typing import Any, Protocol

import orjson

from worker.errors import DataError
from worker.features.columns import value_of

Label = str | None
NORMAL = ""

_NORMAL_WORDS = frozenset(
    {"", "0", "0.0", "false", "no", "n", "f", "normal", "normal.", "benign", "ok", "none", "legit"}
)
_UNNAMED = {"1": "anomaly", "1.0": "anomaly", "true": "anomaly", "yes": "anomaly", "y": "anomaly", "t": "anomaly"}


class Labels(Protocol):
    """Where labels come from."""

    field: str
    """The field to look at; dots reach into nested objects."""

    def __call__(self, row: dict[str, Any] | None) -> Label:
        """The label of one parsed record; `row` is None where the record is no JSON object."""


def read_label(value: Any) -> Label:
    """A label value as text: None for null, "" for 0, false, "normal", "benign" and the like, else the kind."""
    if value is None:
        return None
    word = str(value).strip()
    lower = word.lower()
    return NORMAL if lower in _NORMAL_WORDS else _UNNAMED.get(lower, word)


def pick(row: dict[str, Any] | None, field: str) -> Any:
    """The value of a field that may be dotted, None where there is none."""
    return None if row is None else value_of(row, field)


class FieldLabels:
    """Labels that stand in the records themselves."""

    def __init__(self, field: str) -> None:
        self.field = field
        self._known: dict[Any, Label] = {}

    def __call__(self, row: dict[str, Any] | None) -> Label:
        """The label of one parsed record."""
        value = pick(row, self.field)
        if not isinstance(value, str | int | float):
            return read_label(value)
        if value not in self._known:
            if len(self._known) > 1000:  # a field of free text, not of labels: still right, only slower
                return read_label(value)
            self._known[value] = read_label(value)
        return self._known[value]


class IdLabels:
    """Labels from a file: the ids of all anomalies, one a line, each with its kind after a comma where it has one.

    A record whose id isn't listed is normal; one without an id is unknown.
    """

    def __init__(self, path: str, field: str) -> None:
        self.field = field
        self._kinds = _read_ids(path)

    def __call__(self, row: dict[str, Any] | None) -> Label:
        """The label of one parsed record."""
        value = pick(row, self.field)
        return None if value is None else self._kinds.get(str(value), NORMAL)


def _read_ids(path: str) -> dict[str, str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of ids: {error}") from error
    kinds = {}
    for line in text.splitlines():
        name, _, kind = line.partition(",")
        if name.strip():
            kinds[name.strip()] = kind.strip() or "anomaly"
    if not kinds:
        raise DataError(f"{path}: lists no ids")
    return kinds


def parse_row(value: bytes | None) -> dict[str, Any] | None:
    """A record's JSON object, or None where it isn't one."""
    if not value:
        return None
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
