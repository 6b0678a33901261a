"""Threshold policies on seeded score streams: `python -m benchmarks.thresholds` prints tables for docs/measurements.md.

Recall of planted anomalies / false alert rate at quantile .99 (nominal .010), window 20,000; worst of the seeds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np

from devtools.score_streams import ACCEPTANCE, BEYOND, WINDOW, ScoreStream
from worker.records import FloatArray, TimeArray
from worker.thresholds.budget import DAY_MS, HOUR_MS, PERIODS, AlertBudget
from worker.thresholds.partition import PartitionThreshold, ThresholdPolicy
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile

QUANTILE = 0.99
BUDGET = 50
"""Alerts a day."""

TOLERANCE = 0.3
"""A day counts as within the budget when it is off by at most this share."""


class Excluded(SlidingQuantile):
    """Flagged scores stay out of the window."""

    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:  # noqa: ARG002
        """Only scores up to the threshold enter."""
        threshold = self.threshold()
        self.window.push(scores if threshold is None else scores[scores <= threshold])


class Capped(SlidingQuantile):
    """Flagged scores enter the window as the threshold."""

    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:  # noqa: ARG002
        """No score enters above the threshold."""
        threshold = self.threshold()
        self.window.push(scores if threshold is None else np.minimum(scores, threshold))


Make = Callable[[FloatArray, float, int], ThresholdPolicy]
POLICIES: dict[str, Make] = {
    "plain": SlidingQuantile,
    "flagged excluded": Excluded,
    "flagged capped": Capped,
    "inlier (default)": InlierQuantile,
}

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "log-normal": lambda random, count: random.lognormal(0, 0.5, count),
    "exponential": lambda random, count: random.exponential(1, count),
    "Pareto": lambda random, count: random.pareto(2, count) + 1,
    "mean square of 10": lambda random, count: (random.normal(0, 1, (count, 10)) ** 2).mean(1),
}

ByHour = Callable[[FloatArray], FloatArray]
"""Something per hour, from hours since the start (H,)."""

TRAFFIC: dict[str, tuple[ByHour, ByHour]] = {  # records an hour and level of their scores, as factors
    "day and night": (np.ones_like, np.ones_like),
    "scores follow the hour by 30%": (np.ones_like, lambda hour: 1 + 0.3 * np.sin(2 * np.pi * hour / 24)),
    "half the traffic at weekends": (lambda hour: np.where(hour // 24 % 7 < 5, 1.0, 0.5), np.ones_like),
    "traffic doubles": (lambda hour: np.where(hour < 480, 1.0, 2.0), np.ones_like),
    "scores triple over six weeks": (np.ones_like, lambda hour: 3.0 ** (hour / 1_008)),
}


def recall_and_false_alerts(stream: ScoreStream, make: Make) -> tuple[float, float]:
    """Share of judged anomalies above their threshold, and of judged benign scores."""
    alert = stream.score > PartitionThreshold(make(stream.calibration, QUANTILE, WINDOW)).compare(stream.score)
    return float(alert[stream.judged & stream.anomaly].mean()), float(alert[stream.judged & ~stream.anomaly].mean())


def policy_table(seeds: int) -> Iterable[str]:
    """Rows of policies against streams."""
    yield f"| stream | {' | '.join(POLICIES)} |"
    yield "|---|" + "---|" * len(POLICIES)
    for make_stream in (*ACCEPTANCE, *BEYOND):
        streams = [make_stream(seed) for seed in range(seeds)]
        cells = []
        for make in POLICIES.values():
            rates = [recall_and_false_alerts(stream, make) for stream in streams]
            cells.append(f"{min(recall for recall, _ in rates):.2f} / {max(false for _, false in rates):.3f}")
        yield f"| {streams[0].name} | {' | '.join(cells)} |"


def tail_table() -> Iterable[str]:
    """Observed share of held-out scores whose predicted probability is at most .01 and .001."""
    yield "| scores | predicted .01 | predicted .001 |"
    yield "|---|---|---|"
    for name, draw in DISTRIBUTIONS.items():
        random = np.random.default_rng(0)
        policy = InlierQuantile(draw(random, 500), QUANTILE)
        PartitionThreshold(policy).compare(draw(random, 25_600))
        predicted = policy.tail_probability(draw(random, 400_000))
        yield f"| {name} | {(predicted <= 0.01).mean():.4f} | {(predicted <= 0.001).mean():.5f} |"


def budget_table(days: int = 42) -> Iterable[str]:
    """Days near a budget after the first week, with 9,600 records a day before the traffic changes."""
    yield f"| traffic | days within {BUDGET} ± {TOLERANCE:.0%} | alerts a day | min | max |"
    yield "|---|---|---|---|---|"
    for name, (rate, level) in TRAFFIC.items():
        random = np.random.default_rng(0)
        hours = np.arange(float(days * 24))
        counts = random.poisson(400 * rate(hours) * (1 + 0.8 * np.sin(2 * np.pi * hours / 24)))
        hour = np.repeat(np.arange(days * 24), counts)
        times = np.sort(hour * HOUR_MS + random.integers(0, HOUR_MS, len(hour)))
        score = random.lognormal(0, 0.5, len(hour)) * level(hours)[hour]
        judge = PartitionThreshold(AlertBudget(random.lognormal(0, 0.5, 500), BUDGET))
        alert = score > judge.compare(score, times)
        daily = np.bincount(times // DAY_MS, weights=alert)[PERIODS:]
        near = (np.abs(daily - BUDGET) <= TOLERANCE * BUDGET).mean()
        yield f"| {name} | {near:.0%} | {daily.mean():.0f} | {daily.min():.0f} | {daily.max():.0f} |"


def cost_table(repeats: int = 3) -> Iterable[str]:
    """Microseconds per record, the best of some runs."""
    stream = ACCEPTANCE[0](0)
    yield "| policy | µs per record |"
    yield "|---|---|"
    for name, make in POLICIES.items():
        best = np.inf
        for _ in range(repeats):
            judge = PartitionThreshold(make(stream.calibration, QUANTILE, WINDOW))
            start = time.perf_counter()
            judge.compare(stream.score)
            best = min(best, time.perf_counter() - start)
        yield f"| {name} | {best / len(stream.score) * 1e6:.2f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="streams of each kind, 3 by default")
    seeds = parser.parse_args().seeds
    tables = (
        (f"Recall / false alert rate at quantile {QUANTILE}, worst of {seeds} seeds", policy_table(seeds)),
        ("Observed rates of predicted tail probabilities, held-out scores", tail_table()),
        (f"A budget of {BUDGET} alerts a day over six weeks, from the second on", budget_table()),
        ("Cost at a stride of 256, window 20,000", cost_table()),
    )
    for title, rows in tables:
        sys.stdout.write(f"### {title}\n")
        for row in rows:
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
