"""The trainer's reservoir is a fading sample that neither batches nor rates bend."""

from collections.abc import Callable

import numpy as np
import pytest

from worker.records import Message
from worker.trainer.drift import MAX_SCORES, ScoreBuffer
from worker.trainer.reservoir import Reservoir, uniform_of

HOUR_MS = 3_600_000


def messages(count: int, first: int = 0, partition: int = 0) -> list[Message]:
    return [Message("t", partition, first + i, -1, None, b"%d" % (first + i)) for i in range(count)]


def filled(count: int, *, size: int = 500, batch: int = 1_000, spacing_ms: int = 1_000, **options: float) -> Reservoir:
    reservoir = Reservoir(size, half_life_s=options.get("half_life_s", 3_600))
    for start in range(0, count, batch):
        part = messages(min(batch, count - start), start)
        times = np.arange(start, start + len(part)) * spacing_ms if spacing_ms else np.full(len(part), -1)
        reservoir.add(part, times)
    return reservoir


@pytest.mark.parametrize("batch", [1, 7, 640, 5_000])
def test_batches_do_not_matter(batch: int) -> None:
    assert filled(5_000, batch=batch).records().values == filled(5_000, batch=1_000).records().values


def test_it_holds_as_many_as_it_may_in_order_of_arrival() -> None:
    records = filled(5_000).records()

    assert len(records) == 500
    assert (np.diff(records.number) > 0).all()
    assert records.values == [b"%d" % number for number in records.number]


def test_all_is_kept_until_it_is_full() -> None:
    assert filled(300).records().values == [b"%d" % number for number in range(300)]


def test_a_record_of_one_half_life_ago_is_half_as_likely_to_be_in_it() -> None:
    records = filled(40_000, size=2_000, spacing_ms=360).records()  # four half-lives

    quarter = np.bincount(records.number // 10_000, minlength=4)

    assert quarter[3] / quarter[2] == pytest.approx(2, rel=0.25)
    assert quarter[2] / quarter[1] == pytest.approx(2, rel=0.35)


def test_without_times_records_age_by_count() -> None:
    records = filled(40_000, size=2_000, spacing_ms=0).records()

    assert np.median(records.number) == pytest.approx(40_000 - 2_000, rel=0.05)


def test_a_busy_hour_does_not_push_out_a_quiet_day() -> None:
    reservoir = Reservoir(1_000, half_life_s=86_400)
    reservoir.add(messages(2_000), np.arange(2_000) * 43_200)  # a day
    reservoir.add(messages(20_000, 2_000), 24 * HOUR_MS + np.arange(20_000) * 180)  # an hour, at 240 times the rate

    assert (reservoir.records().number < 2_000).sum() > 30


def test_its_bytes_are_bounded() -> None:
    reservoir = Reservoir(100, half_life_s=60, max_bytes=5_000)
    reservoir.add([Message("t", 0, i, -1, None, b"x" * 1_000) for i in range(400)], np.arange(400))

    assert sum(map(len, reservoir.records().values)) <= 5_000


def test_draws_are_uniform_and_differ_between_partitions_and_seeds() -> None:
    draws = uniform_of(messages(20_000), 0)

    assert np.histogram(draws, 10, (0, 1))[0] == pytest.approx(2_000, rel=0.1)
    assert not np.isclose(draws, uniform_of(messages(20_000, partition=1), 0)).any()
    assert abs(np.corrcoef(draws, uniform_of(messages(20_000), 1))[0, 1]) < 0.03


@pytest.mark.parametrize("batch", [1, 999, 200_000])
def test_a_long_run_of_scores_is_thinned_out_evenly_whatever_the_batches(batch: int) -> None:
    scores, buffer = np.arange(100_000.0), ScoreBuffer()
    for start in range(0, len(scores), batch):
        buffer.add(scores[start : start + batch])

    kept = buffer.scores

    assert buffer.seen == 100_000
    assert MAX_SCORES < len(kept) <= 2 * MAX_SCORES
    assert set(np.diff(kept)) == {buffer.step}


@pytest.mark.parametrize("batch", [1, 37, 3_000])
@pytest.mark.parametrize(
    "width", [lambda _: 1_000, lambda number: number % 3_000, lambda number: 90_000 if number % 7 else 1]
)
def test_it_is_bounded_in_bytes_whatever_the_batches(batch: int, width: Callable[[int], int]) -> None:
    wide = [Message("t", 0, number, -1, None, bytes(width(number))) for number in range(3_000)]
    reservoirs = [Reservoir(2_000, half_life_s=3_600, max_bytes=1_000_000) for _ in range(2)]
    for reservoir, step in zip(reservoirs, (batch, 500), strict=True):
        for start in range(0, len(wide), step):
            part = wide[start : start + step]
            reservoir.add(part, np.full(len(part), -1))
            assert sum(map(len, reservoir._records.values)) <= 1_250_000
    records, others = (reservoir.records() for reservoir in reservoirs)

    assert sum(map(len, records.values)) <= 1_000_000
    assert records.number.tolist() == others.number.tolist()
    assert max(map(len, records.values)) <= 62_500  # a sixteenth: one record does not push out all others
    assert reservoirs[0].seen == 3_000
