"""The same pipeline over the same records, undisturbed: what the thresholds must have been."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from devtools import traffic
from tests.chaos.oracle import Place
from worker.pipeline import Model, Pipeline
from worker.processes.wiring import threshold_factory
from worker.records import RawMessage
from worker.settings.tree import ThresholdSettings

THRESHOLD = ThresholdSettings(quantile=0.98, window=500, stride=32)


class Shadow:
    """Scores every input record once, in order, and compares what was published with it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # as in the workers: the last bits of a score depend on it
        self._pipeline = Pipeline(Model(traffic.bundle(0)), threshold_factory=threshold_factory(THRESHOLD))
        self._expected: dict[Place, tuple[float, float | None]] = {}

    def follow(self, messages: Sequence[RawMessage]) -> None:
        """The next input records: offset order within a partition."""
        if not messages:
            return
        scores = self._pipeline.process(messages).scores
        for message, score, threshold in zip(scores.messages, scores.score, scores.threshold, strict=True):
            known = None if np.isnan(threshold) else float(threshold)
            self._expected[Place(message.partition, message.offset)] = (float(score), known)

    def differing(self, published: Mapping[Place, tuple[float, float | None]]) -> tuple[list[Place], list[Place]]:
        """Records whose published score, and those whose threshold, is not that of the undisturbed run."""
        both = [place for place in published if place in self._expected]
        scores = sorted(place for place in both if published[place][0] != self._expected[place][0])
        thresholds = sorted(place for place in both if published[place][1] != self._expected[place][1])
        return scores, thresholds
