"""What a record is known to be: read from the record or from a list of ids, before the model sees anything.

A label is a short text: "" for a normal record, else the kind of anomaly; None where nothing is known.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from worker.errors import DataError
from worker.features.columns import value_of
from worker.formats.base import Row

Label = str | None
NORMAL = ""

_MOST_KNOWN = 1000
_NORMAL_WORDS = frozenset(
    {"", "0", "0.0", "false", "no", "n", "f", "normal", "normal.", "benign", "ok", "none", "legit"}
)
_UNNAMED = {"1": "anomaly", "1.0": "anomaly", "true": "anomaly", "yes": "anomaly", "y": "anomaly", "t": "anomaly"}


class Labels(Protocol):
    """Where labels come from."""

    field: str
    """The field to look at; dots reach into nested objects."""

    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        """The labels of parsed records; a row is None where the record has no fields."""


def read_label(value: Any) -> Label:
    """A label value as text: None for null, "" for 0, false, "normal", "benign" and the like, else the kind."""
    if value is None:
        return None
    word = str(value).strip()
    lower = word.lower()
    return NORMAL if lower in _NORMAL_WORDS else _UNNAMED.get(lower, word)


def pick(row: Row | None, field: str) -> Any:
    """The value of a field that may be dotted, None where there is none."""
    return None if row is None else value_of(row, field)


class FieldLabels:
    """Labels that stand in the records themselves."""

    def __init__(self, field: str) -> None:
        self.field = field
        self._known = _Known()

    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        """The labels of parsed records."""
        values = _values(rows, self.field)
        try:
            return [self._known[value] for value in values]
        except TypeError:  # an array or an object: no label, but readable as one
            return [read_label(value) for value in values]


class _Known(dict[Any, Label]):
    """What each label value means; 0 and false, 1 and true are one key, and mean the same."""

    def __missing__(self, value: Any) -> Label:
        label = read_label(value)
        if len(self) < _MOST_KNOWN:
            self[value] = label
        return label


def _values(rows: Sequence[Row | None], field: str) -> list[Any]:
    try:
        return [row[field] for row in rows]  # type: ignore[index]  # None and a missing key go the slow way
    except (KeyError, TypeError):
        return [pick(row, field) for row in rows]


class IdLabels:
    """Labels from a file: the ids of all anomalies, one a line, each with its kind after a comma where it has one.

    A record whose id isn't listed is normal; one without an id is unknown.
    """

    def __init__(self, path: str, field: str) -> None:
        self.field = field
        self._kinds = _read_ids(path)

    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        """The labels of parsed records."""
        values = _values(rows, self.field)
        return [None if value is None else self._kinds.get(str(value), NORMAL) for value in values]


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
