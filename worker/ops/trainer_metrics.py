"""Every metric of the trainer, in one place: kind, meaning, unit."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector


class TrainerMetrics:
    """The metrics of one `worker train` process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        # counter, records: read from the input topic
        self.records_read = Counter("worker_trainer_records_read", "Records read from the input topic", registry=r)
        # counter, records: left out, since more came than a step reads
        self.records_passed_over = Counter(
            "worker_trainer_records_passed_over", "Records left out, since more came than are read", registry=r
        )
        # counter, looks, per decision
        self.looks = Counter("worker_trainer_looks", "Looks at the traffic", ["decision"], registry=r)
        # gauge, seconds: how long the last look took, with its fit
        self.look_seconds = Gauge("worker_trainer_look_seconds", "Time of the last look", registry=r)
        # gauge, 1 for the condition that the last look found: settled, moved, gone, apart
        self.condition = Gauge("worker_trainer_condition", "1 for the last condition", ["condition"], registry=r)
        # gauge, share in [0, 1]: ordinary traffic that the calibration does not explain
        self.moved = Gauge("worker_trainer_moved_share", "Ordinary traffic that has moved", registry=r)
        # gauge, distance in [0, 1], per field that has drifted
        self.field_drift = Gauge("worker_trainer_field_drift", "Distance of drifted fields", ["field"], registry=r)
        # gauge, 1 for the version that is current
        self.champion = Gauge("worker_trainer_champion_info", "1 for the current version", ["version"], registry=r)
        ProcessCollector(registry=r)

    def show_champion(self, version: str) -> None:
        """Make `version` the one that is shown as current."""
        self.champion.clear()
        self.champion.labels(version).set(1)

    def show_drift(self, distances: Mapping[str, float]) -> None:
        """The fields that have drifted now; the others lose their series."""
        self.field_drift.clear()
        for name, distance in distances.items():
            self.field_drift.labels(name).set(distance)
