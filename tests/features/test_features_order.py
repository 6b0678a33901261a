import math
import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest

from worker.features.order import _count_series, describe_growth

N = 2_000
DRAW = random.Random(3)


def counters(hosts: int, count: int) -> list[int]:
    """Counters of several hosts, each from a start of its own, as they come mixed in one topic."""
    draw = random.Random(hosts)
    at = [draw.randrange(10**6) for _ in range(hosts)]
    values = []
    for _ in range(count):
        host = draw.randrange(hosts)
        at[host] += draw.randrange(1, 50)
        values.append(at[host])
    return values


GROWING: dict[str, list[Any]] = {
    "a sequence number": list(range(N)),
    "no more than 20 rows": list(range(20)),
    "a process id of several lines": [24_200 + n // 3 for n in range(N)],
    "lines that overtake each other": [n // 3 + DRAW.randrange(-20, 20) for n in range(N)],
    "with strays": [n if n % 30 else DRAW.randrange(10**6) for n in range(N)],
    "with gaps": [n if n % 3 else None for n in range(N)],
    "cumulative bytes": list(accumulate(DRAW.randrange(10**6) for _ in range(N))),
    "cumulative energy": list(accumulate(DRAW.random() for _ in range(N))),
    "far more growth than noise": [n / 50 + DRAW.gauss(0, 1) for n in range(N)],
    "bytes that are left": list(accumulate((-DRAW.randrange(10**6) for _ in range(N)), initial=10**12)),
    "two counters, mixed": counters(2, N),
    "fifteen counters, mixed": counters(15, N),
    "twenty-five counters, mixed": counters(25, 20_000),
    "a counter that begins again and goes further": [n for length in (200, 500, 1300) for n in range(length)],
    "a counter that wraps around": [(20_000 + 13 * n) % 32_768 for n in range(N)],
    "dates as text": [f"2026-03-{1 + 9 * n // N:02d}" for n in range(N)],
    "three dates of six digits": [f"0811{9 + 3 * n // N:02d}" for n in range(N)],
    "a number with a prefix": [f"order-{n // 4}" for n in range(N)],
    "texts that sort": [f"{'abcdefgh'[8 * n // N]}{n:06d}" for n in range(N)],
    "counters with the name of their host": [f"host{n % 3}-{n // 3:06d}" for n in range(N)],
}

STEADY: dict[str, list[Any]] = {
    "fewer than 20 rows": list(range(19)),
    "nothing": [],
    "a constant": [5] * N,
    "chance": [DRAW.random() for _ in range(N)],
    "amounts that double over the sample": [DRAW.lognormvariate(3, 1) * (1 + n / N) for n in range(N)],
    "a few numbers": [DRAW.choice([200, 404, 500]) for _ in range(N)],
    "a few numbers, one of them mostly": [int(DRAW.random() < 0.01) for _ in range(N)],
    "one change": ["v1.2" if n < N / 2 else "v1.3" for n in range(N)],
    "a counter that begins again and again": [n for length in (300, 800, 500, 400) for n in range(length)],
    "seconds of two days": [second % 86_400 for second in sorted(DRAW.sample(range(172_800), N))],
    "eight digits that come again": [f"{n % 50:08d}" for n in range(200)],
    "hours of two days, one an hour": [n % 24 for n in range(48)],
    "hours of two days": [24 * n * 2 // N % 24 for n in range(N)],
    "a saw": [n % 100 for n in range(N)],
    "temperatures of three days": [10 + 5 * math.sin(3 * math.tau * n / N) for n in range(N)],
    "noisy temperatures of one day": [10 + 5 * math.sin(math.tau * n / N) + DRAW.gauss(0, 1) for n in range(N)],
    "names in alphabetical order": sorted(DRAW.choice(["at", "de", "fr", "us"]) for _ in range(N)),
    "addresses": [f"10.0.{DRAW.randrange(255)}.{DRAW.randrange(255)}" for _ in range(N)],
    "truth values": [n > N / 3 for n in range(N)],
    "numbers and texts": [n if n % 2 else str(n) for n in range(N)],
}


@pytest.mark.parametrize("name", GROWING)
def test_what_only_grows_is_known_by_the_order_of_its_values(name: str) -> None:
    assert describe_growth(GROWING[name]) is not None


@pytest.mark.parametrize("name", STEADY)
def test_what_comes_again_does_not_grow(name: str) -> None:
    assert describe_growth(STEADY[name]) is None


@pytest.mark.parametrize("count", [20, 40, 200, N])
def test_neither_chance_nor_a_random_walk_grows(count: int) -> None:
    draw = random.Random(count)
    chance = [[draw.random() for _ in range(count)] for _ in range(60)]
    walks = [list(accumulate(draw.gauss(0, 1) for _ in range(count))) for _ in range(60)]

    assert [values for values in chance + walks if describe_growth(values) is not None] == []


def slow_count_series(values: Sequence[int]) -> int:
    """The length of the longest falling subsequence, by comparing all pairs."""
    lengths: list[int] = []
    for at, value in enumerate(values):
        lengths.append(1 + max((lengths[i] for i in range(at) if values[i] > value), default=0))
    return max(lengths, default=0)


def test_the_number_of_rising_series_is_the_length_of_the_longest_falling_one() -> None:
    for seed in range(50):
        draw = random.Random(seed)
        values = [draw.randrange(1 + seed) for _ in range(60)]

        assert _count_series(values) == slow_count_series(values)
