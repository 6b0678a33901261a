"""Records as no producer means them: sound traffic with values, keys, headers and timestamps changed by chance."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from devtools import traffic
from worker.broker.record_batch import HeaderName
from worker.records import Headers

WORDS = (
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"1e308", b"-0", b"9223372036854775808", b"0x1F",
    b"18446744073709551616", b"1_000", b"[]", b"{}", b'""', b'"2026-02-30T25:61:61Z"', b'"9999-12-31T23:59:59.999Z"',
    b'"0001-01-01"', b'"\\ud800"', b'"\\u0000"', b'"\xf0\x9f\x98\x80"', b"[[[[1]]]]", b'{"a":{"a":{}}}',
)  # fmt: skip
NAMES = (b"trace", b"", b"\xff\xfe\xfd", b"error.code", b"source.offset", b"\x00", b"\xc3\x28", "größe".encode())
TIMES = (0, 1, 1_700_000_000_000, 4_102_444_800_000, 253_402_300_800_000, (1 << 53) + 1, (1 << 62), (1 << 63) - 1)


class Mutant(NamedTuple):
    """One record to write."""

    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp_ms: int | None


def mutants(count: int, seed: int) -> Iterator[Mutant]:
    """So many records, the same for the same seed. About a third is sound traffic."""
    chance = random.Random(seed)
    sound = [message.value or b"" for message in traffic.messages(2000)]
    for _ in range(count):
        value: bytes | None = chance.choice(sound)
        if chance.random() < 0.65:
            value = _mutated(value or b"", sound, chance)
        headers = []
        if chance.random() < 0.2:
            for _ in range(chance.randrange(1, 6)):
                raw = chance.choice(NAMES) if chance.random() < 0.7 else chance.randbytes(chance.randrange(12))
                headers.append((HeaderName(raw), chance.randbytes(chance.randrange(30))))
        key = None if chance.random() < 0.3 and value is not None else chance.randbytes(chance.choice((0, 1, 8, 300)))
        time = chance.choice(TIMES) if chance.random() < 0.2 else None
        yield Mutant(value, key, headers, time)


def _mutated(value: bytes, sound: list[bytes], chance: random.Random) -> bytes | None:
    raw, kind = bytearray(value), chance.randrange(9)
    at = chance.randrange(len(raw))
    if kind == 0:
        return None
    if kind == 1:
        return chance.randbytes(chance.randrange(400))
    if kind == 2:
        return bytes(raw[:at])
    if kind == 3:  # a piece of another record
        other = chance.choice(sound)
        return bytes(raw[:at]) + other[chance.randrange(len(other)) :]
    if kind == 4:  # a value of another type, or of none
        start = raw.find(b":", at) + 1
        end = raw.find(b",", start)
        return bytes(raw[:start]) + chance.choice(WORDS) + bytes(raw[end:]) if start and end > 0 else b"{"
    if kind == 5:
        return bytes(raw[:at]) + chance.choice(WORDS) + bytes(raw[at:])
    if kind == 6:
        return b'{"deep":' * chance.randrange(1, 300) + bytes(raw) + b"}" * chance.randrange(1, 300)
    for _ in range(chance.randrange(1, 6)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)
