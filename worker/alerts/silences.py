"""Alerts that are not to be published, by the silences of a file; each silenced one is counted by its silence.

    [silences.month-end]               # the name under which it is counted
    field = "amount"                   # alone: the field that explains most of the alert is this one
    direction = "above"                # ... and its value is above (below) the expected one
    values = ["DE", 5]                 # or: the record's `field` has one of these values, whatever explains the alert
    daily = "22:00-06:00"              # event time, UTC; the end is not included, "24:00" is midnight
    from = 2026-05-01T00:00:00Z        # event time; included
    until = 2026-06-01T00:00:00Z       # event time; not included

All that a silence says must hold; of several that fit, the first one in the file counts. A record without an event
time is out of every time window.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from worker.alerts.explain import Exceedance
from worker.errors import SettingsError
from worker.features.paths import value_of
from worker.formats.base import Row
from worker.records import NO_TIME, Reason

DAY_MS = 86_400_000
MINUTE_MS = 60_000
KEYS = ("field", "values", "direction", "daily", "from", "until")
_DAILY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24(?=:00)):([0-5]\d)")

Explain = Callable[[Sequence[int]], Sequence[Sequence[Reason]]]
"""The reasons of the exceedances in these rows of the batch, largest share first."""


@dataclass(frozen=True, slots=True)
class Silence:
    """One table of the file; what is None does not matter.

    values         equal where the JSON values are: 1 is 1.0, true is not 1
    daily          start and end, milliseconds since midnight, UTC
    begin, until   milliseconds since the epoch
    """

    name: str
    field: str | None = None
    values: frozenset[tuple[str, Any]] | None = None
    direction: str | None = None
    daily: tuple[int, int] | None = None
    begin: int | None = None
    until: int | None = None

    @property
    def needs_reason(self) -> bool:
        """Whether it depends on what explains the alert."""
        return self.field is not None and (self.values is None or self.direction is not None)

    def fits(self, record: Row, event_time_ms: int) -> bool:
        """Whether everything holds that needs no reason."""
        if self.values is not None and self.field and _typed(value_of(record, self.field)) not in self.values:
            return False
        if event_time_ms == NO_TIME:
            return self.daily is None and self.begin is None and self.until is None
        start, end = self.daily or (0, DAY_MS)
        time_ms = event_time_ms % DAY_MS
        return (
            (self.begin is None or event_time_ms >= self.begin)
            and (self.until is None or event_time_ms < self.until)
            and (start <= time_ms < end if start < end else time_ms >= start or time_ms < end)  # or past midnight
        )

    def fits_reason(self, reason: Reason) -> bool:
        """Whether the first reason of the alert is what the silence is about."""
        if reason.field != self.field or self.direction is None:
            return reason.field == self.field
        observed, expected = reason.observed, reason.expected
        if not (_is_number(observed) and _is_number(expected)):
            return False
        return bool(observed > expected if self.direction == "above" else observed < expected)


class Silences:
    """All silences, in the order of the file; none by default."""

    def __init__(self, silences: Sequence[Silence] = ()) -> None:
        self.silences = tuple(silences)

    def apply(self, exceedances: Sequence[Exceedance], explain: Explain) -> tuple[Sequence[Exceedance], Counter[str]]:
        """The exceedances that no silence fits, and how many each silence took, by its name.

        explain   called at most once, for the exceedances whose reasons matter
        """
        silenced: Counter[str] = Counter()
        if not self.silences:
            return exceedances, silenced
        fitting = [
            (one, [silence for silence in self.silences if silence.fits(one.record, one.event_time_ms)])
            for one in exceedances
        ]
        # Reasons are dear, and only matter where the first silence that may fit is about one.
        rows = [one.row for one, silences in fitting if silences and silences[0].needs_reason]
        first = {row: reasons[0] for row, reasons in zip(rows, explain(rows) if rows else (), strict=True)}
        loud = []
        for one, silences in fitting:
            for silence in silences:
                if not silence.needs_reason or silence.fits_reason(first[one.row]):
                    silenced[silence.name] += 1
                    break
            else:
                loud.append(one)
        return loud, silenced

    def require_fields(self, fields: Collection[str]) -> None:
        """Raises SettingsError where a silence is about the reason of a field that no alert can be explained by."""
        for silence in self.silences:
            if silence.needs_reason and silence.field not in fields:
                raise SettingsError(
                    f"silence {silence.name!r}: the model has no field {silence.field!r}, "
                    f"it has {', '.join(sorted(fields))}"
                )


def load_silences(path: str | Path) -> Silences:
    """The silences of a file. Raises SettingsError, which names the file and the silence."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"silences file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"silences file {path}: not valid TOML: {error}") from None
    tables = document.get("silences")
    if not isinstance(tables, dict) or set(document) != {"silences"}:
        raise SettingsError(f"silences file {path}: must hold tables named [silences.NAME] and nothing else")
    silences = []
    for name, table in tables.items():
        try:
            if not isinstance(table, dict):
                raise ValueError(f"must be a table, [silences.{name}]")  # noqa: TRY004, TRY301  # caught as all others
            silences.append(_parse(name, table))
        except ValueError as error:
            raise SettingsError(f"silences file {path}: silence {name!r}: {error}") from None
    return Silences(silences)


def _parse(name: str, table: dict[str, Any]) -> Silence:
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}, allowed are {', '.join(KEYS)}")
    field, values, direction = (table.get(key) for key in ("field", "values", "direction"))
    if field is not None and not (isinstance(field, str) and field):
        raise ValueError(f"field = {field!r}: must be the name of a field")
    is_list = isinstance(values, list) and values and all(isinstance(value, str | int | float) for value in values)
    if values is not None and not is_list:
        raise ValueError(f"values = {values!r}: must be a list of strings, numbers or booleans")
    if direction not in (None, "above", "below"):
        raise ValueError(f"direction = {direction!r}: must be above or below")
    if field is None and (values is not None or direction is not None):
        raise ValueError("values and direction need a field")
    if not table:
        raise ValueError("would silence every alert: give it a field or a time window")
    begin, until = _moment(table, "from"), _moment(table, "until")
    if begin is not None and until is not None and begin >= until:
        raise ValueError("from must lie before until")
    typed = None if values is None else frozenset(map(_typed, values))
    return Silence(name, field, typed, direction, _daily(table.get("daily")), begin, until)


def _daily(hours: Any) -> tuple[int, int] | None:
    if hours is None:
        return None
    parts = _DAILY.fullmatch(hours) if isinstance(hours, str) else None
    if parts is None:
        raise ValueError(f'daily = {hours!r}: must be hours of the day in UTC, such as "22:00-06:00"')
    hour, minute, end_hour, end_minute = map(int, parts.groups())
    start, end = (hour * 60 + minute) * MINUTE_MS, (end_hour * 60 + end_minute) * MINUTE_MS
    if start == end:
        raise ValueError(f"daily = {hours!r}: is empty; the whole day is 00:00-24:00")
    return start, end


def _moment(table: dict[str, Any], key: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if type(value) is date:
        value = datetime.combine(value, time(), UTC)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{key} = {value}: must be a time with an offset, such as 2026-05-01T00:00:00Z")
    return round(value.timestamp() * 1000)


def _typed(value: Any) -> tuple[str, Any]:
    # With its type: True == 1 in Python, not in JSON. Lists and objects can't be hashed, and no silence names one.
    if isinstance(value, dict | list):
        return "other", None
    return ("number" if _is_number(value) else "other"), value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
