"""Traffic with bursts, and a pipeline that groups its alerts."""

from functools import cache

import orjson

from devtools import traffic
from worker.alerts.grouping import GroupingOptions
from worker.alerts.silences import Silences
from worker.pipeline import Model, Pipeline
from worker.records import Message

GROUPING = GroupingOptions(("merchant.country",), cooldown_s=120, max_per_minute=4)


@cache
def model(seed: int = 0) -> Model:
    return Model(traffic.bundle(seed))


def make(silences: Silences | None = None, grouping: GroupingOptions = GROUPING) -> Pipeline:
    return Pipeline(
        model(),
        threshold_factory=traffic.plain_threshold(window=20_000),
        grouping=grouping,
        silences=silences or Silences(),
    )


def bursts(count: int = 1500, partitions: int = 2) -> list[Message]:
    """Traffic in event time, a record every half second, with minutes of bursts, pigeons and some wrong clocks."""
    messages = []
    for number, record in enumerate(traffic.rows(count, seed=3)):
        at_ms = 36_000_000 + number * 500
        if number % 500 >= 400:
            record |= {"amount": 5e6 + number, "merchant": {"country": "DE" if number % 9 else "US"}}
        if number % 37 == 5:
            record["channel"] = "carrier pigeon"
        if number % 101 == 7:
            at_ms += 10**9
        record["at"] = f"2026-01-{9 + at_ms // 86_400_000:02d}T" + _clock(at_ms % 86_400_000)
        place = number % partitions
        key = None if number % 3 else str(number % 5).encode()
        messages.append(Message("in", place, number // partitions, 1_767_225_600_000, key, orjson.dumps(record)))
    return messages


def _clock(ms: int) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}Z"
