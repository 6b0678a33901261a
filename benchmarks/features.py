"""Time of decode and vectorize on 8 fields of ~150-byte JSON, batches of 8192: python -m benchmarks.features."""

import random
import time
from collections.abc import Callable

import orjson

from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.formats.json_objects import JsonDecoder
from worker.records import Message

BATCH = 8192
REPEATS = 30
SCHEMA = """
[fields.time]
kind = "timestamp"
[fields.customer]
kind = "categorical"
max_values = 10000
[fields.terminal]
kind = "categorical"
[fields.country]
kind = "categorical"
[fields.amount]
kind = "numeric"
[fields.items]
kind = "numeric"
[fields.rate]
kind = "numeric"
[fields.online]
kind = "boolean"
"""


def make_messages(count: int) -> list[Message]:
    """Card payments with 8 fields, ~150 bytes each."""
    draw = random.Random(0)
    values = (
        {
            "time": f"2026-03-{1 + i % 28:02d}T{i % 24:02d}:{i % 60:02d}:31.{i % 1000:03d}Z",
            "customer": f"c-{draw.randrange(5000)}",
            "terminal": draw.randrange(900),
            "country": draw.choice(["DE", "FR", "US", "PL"]),
            "amount": round(draw.lognormvariate(3, 1), 2),
            "items": draw.randrange(12),
            "rate": round(draw.random(), 4),
            "online": draw.random() < 0.5,
        }
        for i in range(count)
    )
    return [Message("payments", 0, i, 0, None, orjson.dumps(value)) for i, value in enumerate(values)]


def best(function: Callable[[], object]) -> float:
    """Seconds of the fastest of `REPEATS` calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Print microseconds a record: the bare JSON parser, decode, vectorize, both."""
    messages = make_messages(BATCH)
    values = [message.value or b"" for message in messages]
    schema = parse_schema(SCHEMA)
    decoded = JsonDecoder(1_000_000).decode(messages)
    vectorizer = Vectorizer(fit_vectorizer(schema, decoded.rows))
    steps: dict[str, Callable[[], object]] = {
        "orjson alone": lambda: list(map(orjson.loads, values)),
        "decode": lambda: JsonDecoder(1_000_000).decode(messages),
        "vectorize": lambda: vectorizer.transform(decoded),
        "decode + vectorize": lambda: vectorizer.transform(JsonDecoder(1_000_000).decode(messages)),
    }
    print(f"{sum(map(len, values)) / BATCH:.0f} bytes a record, {BATCH} records a batch")
    for name, step in steps.items():
        print(f"{name:20s} {best(step) / BATCH * 1e6:6.3f} us a record")


if __name__ == "__main__":
    main()
