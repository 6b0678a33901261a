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
    alerts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))  # by label


class Sweep(Observer):
    """Compares every outcome's scores with the thresholds of each named variant.

    variants   what makes the thresholds, by the value of the setting that is swept
    bundle     the model that the replay begins with; thresholds start from its scores
    """

    def __init__(self, variants: Mapping[str, ThresholdFactory], bundle: Bundle) -> None:
        self._variants = {name: _Variant(factory) for name, factory in variants.items()}
        self._bundle = bundle
        self._records = np.zeros(3, np.int64)  # by label

    @override
    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        scores = outcome.scores
        self._records += np.bincount(groups, minlength=3)
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
                variant.alerts += np.bincount(labels[alert], minlength=3)

    def rows(self, days: float | None) -> list[dict[str, Any]]:
        """One row per variant, in the order given; what needs labels is null without them."""

        def share(part: int, of: int) -> float | None:
            return significant(part / of, 6) if of else None

        normal, anomalies = int(self._records[NORMAL]), int(self._records[ANOMALOUS])
        rows = []
        for name, variant in self._variants.items():
            alerts, false, true = int(variant.alerts.sum()), int(variant.alerts[NORMAL]), int(variant.alerts[ANOMALOUS])
            rows.append(
                {
                    "setting": name,
                    "alerts": alerts,
                    "alerts_per_day": None if days is None else round(alerts / days, 3),
                    "precision": share(true, true + false),
                    "recall": share(true, anomalies),
                    "false_alert_rate": share(false, normal),
                }
            )
        return rows
