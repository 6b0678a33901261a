"""Seeded score streams that a threshold has to survive: benign scores are log-normal, anomalies are planted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.records import BoolArray, FloatArray
from worker.thresholds.partition import PartitionThreshold, ThresholdState

WINDOW = 20_000
"""Records in the window of every policy that the streams are made for."""

RECORDS = 120_000
"""Records in a stream: six windows."""

CALIBRATION = 500
"""Calibration scores, from the benign scores at the start of the stream."""

SPREAD = 0.5
"""Standard deviation of the logarithm of a benign score."""

BENIGN_99 = float(np.exp(2.3263 * SPREAD))
"""The 99% quantile of benign scores of level 1."""

ANOMALY_FACTOR = 2.2
"""Median score of an anomaly, in 99% quantiles of the benign scores around it."""

ANOMALY_SPREAD = 0.25
"""Standard deviation of the logarithm of an anomaly's score."""

PLANTED = 0.005
"""Share of anomalies in calm traffic."""


@dataclass(frozen=True)
class ScoreStream:
    """One stream: score, anomaly, judged (T,); calibration (N,); records before `judged` is True do not count."""

    name: str
    calibration: FloatArray
    score: FloatArray
    anomaly: BoolArray
    judged: BoolArray


Share = Callable[[NDArray[np.int64]], FloatArray]
Level = Callable[[NDArray[np.int64]], FloatArray]


def make_stream(  # a stream is a level and a share of anomalies over time
    name: str, seed: int, level: Level | None = None, share: Share | None = None, calibration_level: float = 1.0
) -> ScoreStream:
    """Benign scores of a level that moves, anomalies of a share that moves; deterministic for a seed."""
    random = np.random.default_rng(seed)
    at = np.arange(RECORDS)
    levels = np.ones(RECORDS) if level is None else level(at)
    shares = np.full(RECORDS, PLANTED) if share is None else share(at)
    anomaly = random.random(RECORDS) < shares
    benign = random.lognormal(0, SPREAD, RECORDS)
    planted = ANOMALY_FACTOR * BENIGN_99 * random.lognormal(0, ANOMALY_SPREAD, RECORDS)
    score = np.where(anomaly, planted, benign) * levels
    calibration = random.lognormal(0, SPREAD, CALIBRATION) * calibration_level
    return ScoreStream(name, calibration, score, anomaly, np.ones(RECORDS, np.bool_))


def stationary(seed: int) -> ScoreStream:
    """Nothing changes."""
    return make_stream("stationary", seed)


def slow_drift(seed: int) -> ScoreStream:
    """Scores grow threefold over four windows, then stay."""
    return make_stream("slow drift", seed, level=lambda at: 3.0 ** np.minimum(at / (4 * WINDOW), 1.0))


def level_shift(seed: int, factor: float = 3.0) -> ScoreStream:
    """Scores jump by a factor after two windows, for good; the half window after the jump does not count."""
    jump = 2 * WINDOW
    stream = make_stream(f"level shift x{factor:.2g}", seed, level=lambda at: np.where(at < jump, 1.0, factor))
    stream.judged[jump : jump + WINDOW // 2] = False
    return stream


def season(seed: int, period: int = 2 * WINDOW) -> ScoreStream:
    """Scores swing by 50% both ways, with a period of two windows: the slowest that no window averages out."""
    return make_stream(f"season of {period}", seed, level=lambda at: 1 + 0.5 * np.sin(2 * np.pi * at / period))


def bursts(seed: int, share: float = 0.02, length: int = 2_000) -> ScoreStream:
    """Anomalies come in bursts of 80% that make up 2% of all records."""
    every = int(length * 0.8 / share)
    return make_stream(f"bursts {share:.0%}", seed, share=lambda at: np.where(at % every >= every - length, 0.8, 0.0))


def slow_bursts(seed: int) -> ScoreStream:
    """4% of anomalies, in bursts of 14,000 records at 16%."""
    return make_stream("slow bursts 4%", seed, share=lambda at: np.where(at % 56_000 >= 42_000, 0.16, 0.0))


def flood(seed: int, share: float = 0.5) -> ScoreStream:
    """After a calm window and a half, anomalies make up a share of 30,000 records."""
    return make_stream(
        f"flood {share:.0%}", seed, share=lambda at: np.where((at >= 30_000) & (at < 60_000), share, PLANTED)
    )


def low_calibration(seed: int) -> ScoreStream:
    """The calibration scores are 40% too low."""
    return make_stream("calibration -40%", seed, calibration_level=0.6)


ACCEPTANCE: tuple[Callable[[int], ScoreStream], ...] = (stationary, slow_drift, level_shift, season, bursts, flood)
"""The streams that the default policy has to pass."""

BEYOND: tuple[Callable[[int], ScoreStream], ...] = (
    lambda seed: level_shift(seed, 10.0),
    lambda seed: level_shift(seed, 1 / 3),
    lambda seed: season(seed, 4_000),
    lambda seed: season(seed, 200_000),
    slow_bursts,
    lambda seed: flood(seed, 0.9),
    low_calibration,
)
"""Harder or further streams, shown beside them."""


def state_of(threshold: PartitionThreshold) -> ThresholdState:
    """The whole state, as a checkpoint holds it."""
    return ThresholdState(threshold.head(), threshold.policy.slots())
