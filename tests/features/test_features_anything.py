"""Whatever arrives, every message ends exactly once: as a vector, as a dead letter, or as a counted tombstone."""

from collections.abc import Sequence

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, raw
from worker.features.kinds import Boolean, Categorical, Id, Ignore, Numeric, Text, Timestamp
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.formats.json_objects import JsonDecoder

SCHEMA = Schema(
    (
        Id("i"),
        Timestamp("t"),
        Numeric("n", required=True),
        Categorical("c", max_values=2, hash_buckets=3),
        Boolean("o.b"),
        Text("s"),
        Ignore("gone"),
    )
)
NAMES = st.sampled_from(["i", "t", "n", "c", "o", "b", "o.b", "s", "gone"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["2026-03-01T00:00:00Z", "a", 1e308, 2**64])
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=7))


def to_bytes(value: object) -> bytes:
    """JSON text; integers beyond 64 bits are written out too."""
    return orjson.dumps(value, default=str) if fits(value) else b'{"n":' + str(10**400).encode() + b"}"


def fits(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(fits, value.values()))
    if isinstance(value, list):
        return all(map(fits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


GOOD = b'{"i":1,"t":"2026-03-01T00:00:00Z","n":1.5,"c":"a","o":{"b":true},"s":"all is well 17"}'
VALUES = (
    st.none()
    | st.binary(max_size=60)
    | JSON.map(lambda value: repr(value).encode())
    | st.dictionaries(NAMES, JSON, max_size=7).map(to_bytes)
    | JSON.map(to_bytes)
    | st.just(GOOD)
)
FITTED = fit_vectorizer(SCHEMA, [orjson.loads(GOOD), {"n": 2, "c": "b"}, {"n": 3, "c": 7}, {"n": 3, "c": True}])


@STEADY
@given(st.lists(VALUES, max_size=12))
def test_every_message_ends_exactly_once(values: Sequence[bytes | None]) -> None:
    messages = raw(values)

    decoded = JsonDecoder(100).decode(messages)
    vectors = Vectorizer(FITTED).transform(decoded)

    rejected = [reject.message.offset for reject in [*decoded.rejects, *vectors.rejects]]
    scored = [message.offset for message in vectors.messages]
    tombstones = [message.offset for message in messages if message.value is None]
    assert sorted([*scored, *rejected, *tombstones]) == list(range(len(messages)))
    assert decoded.skipped == len(tombstones)
    assert scored == sorted(scored)
    assert (
        len(vectors.rows)
        == len(vectors.numeric)
        == len(vectors.category_ids)
        == len(vectors.event_time_ms)
        == len(scored)
    )
    assert np.isfinite(vectors.numeric).all()
    assert (vectors.category_ids >= 0).all()
    assert (vectors.category_ids < np.array(FITTED.widths)).all()


@STEADY
@given(st.lists(VALUES, max_size=12), st.lists(st.integers(0, 12), max_size=12))
def test_bad_neighbours_leave_no_trace(noise: Sequence[bytes | None], places: Sequence[int]) -> None:
    good = [GOOD.replace(b"17", str(n).encode()).replace(b"1.5", b"%d.5" % n) for n in range(12)]
    mixed: list[bytes | None] = [*good]
    for place, value in zip(places, noise, strict=False):
        mixed.insert(place, value)
    vectorizer = Vectorizer(FITTED)

    clean = vectorizer.transform(JsonDecoder(100).decode(raw(good)))
    vectors = vectorizer.transform(JsonDecoder(100).decode(raw(mixed)))

    kept = [index for index, message in enumerate(vectors.messages) if message.value in good]
    seen = [(vectors.messages[i].value, vectors.numeric[i].tobytes(), vectors.category_ids[i].tobytes()) for i in kept]
    expected = {
        message.value: (numeric.tobytes(), category_ids.tobytes())
        for message, numeric, category_ids in zip(clean.messages, clean.numeric, clean.category_ids, strict=True)
    }
    assert {value for value, _, _ in seen} == set(good)
    assert all(expected[value] == (numeric, category_ids) for value, numeric, category_ids in seen)
