"""Events of the rooms below as log lines and metrics: a table with a row an event, instead of a method each.

    class ModelSignals(Signals[Metrics], RolloutEvents):
        refused = signal("error", "model refused", lambda on, _: on.metrics.model_refusals.inc())

The interface stays the typed one of the room (here RolloutEvents): a row stands in the place of its method, and the
parameters of that method are the fields of the log line. An event whose values have to be worked out first is written
as a method.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from worker.ops.health import Health
from worker.records import Partition

M = TypeVar("M")
Fields = Mapping[str, Any]
"""An event's parameters by name, as the room below has passed them."""


class Signals(Generic[M]):
    """Where a process is seen from outside: its metrics, its health, its log."""

    def __init__(self, metrics: M, health: Health) -> None:
        self.metrics = metrics
        self.health = health
        self.log = structlog.get_logger()


def signal(level: str, event: str, measure: Callable[[Any, Fields], object] | None = None) -> Any:
    """A row of the table.

    level     debug, info, warning or error
    event     what the log line says; "" logs nothing
    measure   brings metrics and health up to date; called with the Signals and the event's fields
    """
    return _Signal(level, event, measure)


class _Signal:
    def __init__(self, level: str, event: str, measure: Callable[[Any, Fields], object] | None) -> None:
        self._level = level
        self._event = event
        self._measure = measure
        self._parameters: list[str] = []

    def __set_name__(self, owner: type, name: str) -> None:
        method = next(vars(base)[name] for base in owner.__mro__[1:] if name in vars(base))
        self._parameters = list(inspect.signature(method).parameters)[1:]

    def __get__(self, instance: Signals[Any], _: type) -> Callable[..., None]:
        return partial(self._signal, instance)

    def _signal(self, signals: Signals[Any], *values: object, **named: object) -> None:
        fields = {**dict(zip(self._parameters, values, strict=False)), **named}
        if self._measure is not None:
            self._measure(signals, fields)
        if self._event:
            entry = {name: shown(value) for name, value in fields.items()}
            if isinstance(fields.get("error"), Exception):
                entry["kind"] = type(fields["error"]).__name__
            getattr(signals.log, self._level)(self._event, **entry)


def shown(value: Any) -> Any:
    """A value as logs have it: a partition as `topic-0`, collections as lists, seconds and shares rounded."""
    if isinstance(value, Partition):
        return f"{value.topic}-{value.partition}"
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, set | frozenset):
        return [shown(part) for part in sorted(value)]
    if isinstance(value, list | tuple):
        return [shown(part) for part in value]
    return value
