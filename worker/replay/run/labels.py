"""What a record is known to be: read from the record or from a list of ids, before the model sees anything.

A label is a short text: "" for a normal record, else the kind of anomaly; None where nothing is known.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from worker.errors import DataError
from worker.features.schema import value_of
from worker.formats.base import Row

Label = str | None
NORMAL = ""

_NORMAL_WORDS = frozenset(
    {"", "0", "0.0", "false", "no", "n", "f", "normal", "normal.", "benign", "ok", "none", "legit"}
)
_UNNAMED = {"1": "anomaly", "1.0": "anomaly", "true": "anomaly", "yes": "anomaly", "y": "anomaly", "t": "anomaly"}


class Labels(Protocol):
    """Where labels come from.

    field   the field to look at; dots reach into nested objects
    """

    field: str

    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        """The labels of parsed records; a row is None where the record has no fields."""


def read_label(value: Any) -> Label:
    """A label value as text: None for null, "" for 0, false, "normal", "benign" and the like, else the kind."""
    if value is None:
        return None
    word = str(value).strip()
    lower = word.lower()
    return NORMAL if lower in _NORMAL_WORDS else _UNNAMED.get(lower, word)


_read_known_label = lru_cache(maxsize=1000)(read_label)  # a label has few values, and there is one in each record


class FieldLabels(Labels):
    """Labels that stand in the records themselves."""

    def __init__(self, field: str) -> None:
        self.field = field

    @override
    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        values = values_of(rows, self.field)
        try:
            return list(map(_read_known_label, values))
        except TypeError:  # an array or an object: no label, but readable as one
            return list(map(read_label, values))


class IdLabels(Labels):
    """Labels from a file: the ids of all anomalies, one a line, each with its kind after a comma where it has one.

    A record whose id isn't listed is normal; one without an id is unknown. DataError where the file lists no ids.
    """

    def __init__(self, path: str, field: str) -> None:
        self.field = field
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a list of ids: {error}") from error
        entries = [line.partition(",") for line in text.splitlines()]
        self._kinds = {name.strip(): kind.strip() or "anomaly" for name, _, kind in entries if name.strip()}
        if not self._kinds:
            raise DataError(f"{path}: lists no ids")

    @override
    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        values = values_of(rows, self.field)
        return [None if value is None else self._kinds.get(str(value), NORMAL) for value in values]


def values_of(rows: Sequence[Row | None], field: str) -> list[Any]:
    """The values of a field that may be dotted; None where there is none."""
    try:
        return [row[field] for row in rows]  # type: ignore[index]  # None and a missing key go the slow way
    except (KeyError, TypeError):
        return [None if row is None else value_of(row, field) for row in rows]
