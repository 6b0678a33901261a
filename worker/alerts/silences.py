"""Alerts that nobody wants, by rules from a file; every silenced one is counted by its rule.

    [rules.month-end]                  # the name under which it is counted
    field = "amount"                   # alone: the field that explains most of the alert is this one
    direction = "above"                # ... and its value is above (below) the expected one
    values = ["DE", 5]                 # or: the record's `field` has one of these values, whatever explains the alert
    daily = "22:00-06:00"              # event time, UTC; the end is not included, "24:00" is midnight
    from = 2026-05-01T00:00:00Z        # event time; included
    until = 2026-06-01T00:00:00Z       # event time; not included

All that a rule says must hold; of several rules that fit, the first one in the file counts. A record without an event
time is out of every time window.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from worker.errors import SettingsError
from worker.features.columns import value_of
from worker.formats.base import Row
from worker.records import Reason
from worker.thresholds.partition import NO_TIME

DAY_MS = 86_400_000
MINUTE_MS = 60_000
DIRECTIONS = ("above", "below")
KEYS = ("field", "values", "direction", "daily", "from", "until")
_DAILY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24(?=:00)):([0-5]\d)")

Explain = Callable[[Sequence[int]], Sequence[Sequence[Reason]]]
"""The reasons of the alerts at these places, largest share first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the file. begin, until: milliseconds since the epoch; daily: milliseconds since midnight, UTC."""

    name: str
    field: str | None = None
    values: frozenset[tuple[str, Any]] | None = None
    direction: str | None = None
    daily: tuple[int, int] | None = None
    begin: int | None = None
    until: int | None = None

    @property
    def asks_why(self) -> bool:
        """Whether it depends on what explains the alert."""
        return self.field is not None and (self.values is None or self.direction is not None)

    def fits(self, row: Row, event_time_ms: int) -> bool:
        """Whether everything holds that can be told without an explanation."""
        if self.values is not None and self.field is not None and _typed(value_of(row, self.field)) not in self.values:
            return False
        if self.daily is None and self.begin is None and self.until is None:
            return True
        if event_time_ms == NO_TIME:
            return False
        return (
            (self.begin is None or event_time_ms >= self.begin)
            and (self.until is None or event_time_ms < self.until)
            and (self.daily is None or _is_within(event_time_ms % DAY_MS, *self.daily))
        )

    def fits_reason(self, row: Row, reason: Reason) -> bool:
        """Whether the first reason of the alert is what the rule is about."""
        if reason.field != self.field:
            return False
        if self.direction is None:
            return True
        observed, expected = value_of(row, reason.field), reason.expected  # the reason's own can be redacted
        if not (_is_number(observed) and _is_number(expected)):
            return False
        return bool(observed > expected if self.direction == "above" else observed < expected)


class Silences:
    """All rules, in the order of the file; none by default."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)

    def matches(self, rows: Sequence[Row], event_time_ms: Sequence[int], explain: Explain) -> list[str | None]:
        """The name of the rule that suppresses each of A alerts, None where none does.

        rows, event_time_ms: of the alerts; explain: called at most once, for the alerts whose reasons matter.
        """
        fitting = [
            [rule for rule in self.rules if rule.fits(row, time_ms)]
            for row, time_ms in zip(rows, event_time_ms, strict=True)
        ]
        asked = [place for place, rules in enumerate(fitting) if rules and rules[0].asks_why]
        first = {place: reasons[0] for place, reasons in zip(asked, explain(asked) if asked else (), strict=True)}
        return [
            next(
                (rule.name for rule in rules if not rule.asks_why or rule.fits_reason(rows[place], first[place])),
                None,
            )
            for place, rules in enumerate(fitting)
        ]

    def require_fields(self, fields: Collection[str]) -> None:
        """Raises SettingsError where a rule asks for the reason of a field that no alert can be explained by."""
        for rule in self.rules:
            if rule.asks_why and rule.field not in fields:
                raise SettingsError(
                    f"silences rule {rule.name!r}: the model has no field {rule.field!r}, "
                    f"it has {', '.join(sorted(fields))}"
                )


def load_silences(path: str | Path) -> Silences:
    """The rules of a file. Raises SettingsError, which names the file and the rule."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"silences file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"silences file {path}: not valid TOML: {error}") from None
    rules = document.get("rules")
    if not isinstance(rules, dict) or set(document) != {"rules"}:
        raise SettingsError(f"silences file {path}: must hold tables named [rules.NAME] and nothing else")
    found = []
    for name, table in rules.items():
        try:
            found.append(_parse(name, table))
        except ValueError as error:
            raise SettingsError(f"silences file {path}: rule {name!r}: {error}") from None
    return Silences(found)


def _parse(name: str, table: Any) -> Rule:
    if not isinstance(table, dict):
        raise ValueError(f"must be a table, [rules.{name}]")  # noqa: TRY004  # load_silences catches one kind
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}, allowed are {', '.join(KEYS)}")
    rule = Rule(
        name,
        field=_field(table),
        values=_values(table),
        direction=_direction(table),
        daily=_daily(table),
        begin=_moment(table, "from"),
        until=_moment(table, "until"),
    )
    if rule.field is None and (rule.values is not None or rule.direction is not None):
        raise ValueError("values and direction need a field")
    if rule == Rule(name):
        raise ValueError("would suppress every alert: give it a field or a time window")
    if rule.begin is not None and rule.until is not None and rule.begin >= rule.until:
        raise ValueError("from must lie before until")
    return rule


def _field(table: Mapping[str, Any]) -> str | None:
    field = table.get("field")
    if field is not None and not (isinstance(field, str) and field):
        raise ValueError(f"field = {field!r}: must be the name of a field")
    return field


def _values(table: Mapping[str, Any]) -> frozenset[tuple[str, Any]] | None:
    values = table.get("values")
    if values is None:
        return None
    if not (isinstance(values, list) and values and all(isinstance(value, str | int | float) for value in values)):
        raise ValueError(f"values = {values!r}: must be a list of strings, numbers or booleans")
    return frozenset(map(_typed, values))


def _direction(table: Mapping[str, Any]) -> str | None:
    direction = table.get("direction")
    if direction is not None and direction not in DIRECTIONS:
        raise ValueError(f"direction = {direction!r}: must be above or below")
    return direction


def _daily(table: Mapping[str, Any]) -> tuple[int, int] | None:
    text = table.get("daily")
    if text is None:
        return None
    found = _DAILY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'daily = {text!r}: must be hours of the day in UTC, such as "22:00-06:00"')
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = (hour * 60 + minute) * MINUTE_MS, (end_hour * 60 + end_minute) * MINUTE_MS
    if start == end:
        raise ValueError(f"daily = {text!r}: is empty; the whole day is 00:00-24:00")
    return start, end


def _moment(table: Mapping[str, Any], key: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if type(value) is date:
        value = datetime.combine(value, time(), UTC)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{key} = {value}: must be a time with an offset, such as 2026-05-01T00:00:00Z")
    return round(value.timestamp() * 1000)


def _typed(value: Any) -> tuple[str, Any]:
    """Equal where the JSON values are: 1 is 1.0, true is not 1."""
    if isinstance(value, dict | list):
        return "other", None
    return ("number" if _is_number(value) else "other"), value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_within(time_ms: int, start: int, end: int) -> bool:
    return start <= time_ms < end if start < end else time_ms >= start or time_ms < end
