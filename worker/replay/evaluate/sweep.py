"""What other thresholds would have alerted: records are scored once, each setting only compares anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.model.store.bundle import Bundle
from worker.pipeline import by_partition
from worker.records import Outcome, Partition
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL
from worker.replay.run.lines import Line
from worker.replay.run.loop import Observer
from worker.texts import significant
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold


@dataclass(slots=True)
class _Variant:
    factory: ThresholdFactory
    thresholds: dict[Partition, PartitionThreshold] = field(default_factory=dict)
    alerts: int = 0
    true_alerts: int = 0
    false_alerts: int = 0


class Sweep(Observer):
    """Compares every outcome's scores with the thresholds of each named variant.

    variants   what makes the thresholds, by the value of the setting that is swept
    bundle     the model that the replay begins with; thresholds start from its scores
    """

    def __init__(self, variants: Mapping[str, ThresholdFactory], bundle: Bundle) -> None:
        self._variants = {name: _Variant(factory) for name, factory in variants.items()}
        self._bundle = bundle
        self._normal = 0
        self._anomalies = 0

    @override
    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        scores = outcome.scores
        self._normal += int((groups == NORMAL).sum())
        self._anomalies += int((groups == ANOMALOUS).sum())
        for partition, index in by_partition(scores.messages):
            score, times, labels = scores.score[index], scores.event_time_ms[index], groups[index]
            for variant in self._variants.values():
                threshold = variant.thresholds.get(partition)
                if threshold is None:
                    bundle = self._bundle
                    threshold = variant.factory.make(bundle.calibration, bundle.training, bundle.rule)
                    variant.thresholds[partition] = threshold
                with np.errstate(invalid="ignore"):
                    alert = score > threshold.compare(score, times)
                alerted = labels[alert]
                variant.alerts += len(alerted)
                variant.true_alerts += int((alerted == ANOMALOUS).sum())
                variant.false_alerts += int((alerted == NORMAL).sum())

    def rows(self, days: float | None) -> list[dict[str, Any]]:
        """One row per variant, in the order given; what needs labels is null without them."""
        return [
            {
                "setting": name,
                "alerts": variant.alerts,
                "alerts_per_day": None if days is None else round(variant.alerts / days, 3),
                "precision": _share(variant.true_alerts, variant.true_alerts + variant.false_alerts),
                "recall": _share(variant.true_alerts, self._anomalies),
                "false_alert_rate": _share(variant.false_alerts, self._normal),
            }
            for name, variant in self._variants.items()
        ]


def _share(part: int, whole: int) -> float | None:
    return significant(part / whole, 6) if whole else None
