"""Every metric of the worker and of the trainer, once each: kind, name, meaning with its unit, labels.

All are cheap to update: once a batch or a check, never once a record. `devtools.tables` makes the table of the page.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from worker.errors import ErrorCode
from worker.records import Partition
from worker.texts import quoted

_STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DELAY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
_PARTITION = ("topic", "partition")


class Metrics:
    """What one `worker run` process counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        counter, gauge = partial(Counter, registry=r), partial(Gauge, registry=r)
        histogram = partial(Histogram, registry=r)

        self.records_consumed = counter("worker_records_consumed", "records taken from the input topic")
        self.records_scored = counter("worker_records_scored", "records that got a score")
        self.tombstones = counter("worker_tombstones", "records without a value, which are skipped")
        self.dead_letters = counter("worker_dead_letters", "records that could not be scored, by error code", ["code"])
        self.unexpected_values = counter(
            "worker_unexpected_values", "values of scored records that their field can't read, by field", ["field"]
        )
        self.records_unreadable = counter(
            "worker_records_unreadable", "records passed over because they can't be read; the log names each"
        )
        self.lag_records = gauge(
            "worker_lag_records", "records between position and end of the log; NaN while no broker answers", _PARTITION
        )
        self.partitions_assigned = gauge("worker_partitions_assigned", "partitions of this process")
        self.rebalances = counter("worker_rebalances", "times that partitions came or went")
        self.batch_records = histogram("worker_batch_records", "records in a batch", buckets=_BATCH_RECORDS)
        self.batch_seconds = histogram(
            "worker_batch_seconds", "seconds of a batch in a stage", ["stage"], buckets=_STAGE_S
        )

        self.alerts = counter("worker_alerts", "alerts published and acknowledged", ["severity"])
        self.alerts_silenced = counter("worker_alerts_silenced", "alerts that a silence kept back", ["rule"])
        self.alerts_grouped = counter("worker_alerts_grouped", "alerts counted in their group instead of published")
        self.alerts_rate_limited = counter("worker_alerts_rate_limited", "alerts that the rate limit kept back")
        self.alert_delay_seconds = histogram(
            "worker_alert_delay_seconds",
            "seconds from a record's timestamp to its acknowledged alert",
            buckets=_DELAY_S,
        )
        self.threshold = gauge("worker_threshold", "score above which a record is an exceedance", _PARTITION)
        self.last_commit_seconds = gauge(
            "worker_last_commit_timestamp_seconds", "last commit of offsets, seconds since 1970"
        )

        self.model_info = gauge("worker_model_info", "1 for the current model version", ["version"])
        self.model_swaps = counter("worker_model_swaps", "versions taken into use while running")
        self.model_refusals = counter("worker_model_refusals", "versions that could not be used")
        self.model_on_canary = gauge("worker_model_on_canary", "1 while the current version is a canary")
        self.model_canaries = counter("worker_model_canaries", "ended canaries: passed or rolled_back", ["result"])
        self.store_outages = counter("worker_model_store_outages", "times that the model store did not answer")
        self.shadow_records = counter("worker_shadow_records", "sampled records that the shadow scored")
        self.shadow_alerts = counter(
            "worker_shadow_alerts", "of these, above the threshold of current, shadow, both", ["by"]
        )
        self.shadow_rank_correlation = gauge(
            "worker_shadow_rank_correlation", "rank correlation of both versions' scores, -1 to 1"
        )

        self.delivery_failures = counter("worker_delivery_failures", "batches not acknowledged, read again")
        self.commit_failures = counter("worker_commit_failures", "batches whose offsets were refused after a rebalance")
        self.checkpoint_restores = counter(
            "worker_checkpoint_restores", "thresholds of new partitions: restored or rebuilt", ["result"]
        )
        self.broker_retries = counter("worker_broker_retries", "waits for a broker that did not answer")
        self.registry_retries = counter(
            "worker_registry_retries", "waits for a schema registry that did not answer, with the batch held"
        )
        self.last_contact_seconds = gauge(
            "worker_last_contact_seconds", "seconds since a broker last answered, for the client that waits longest"
        )

        # Present from the start, so that a rate exists at the first one.
        for metric, values in (
            (self.dead_letters, [code.value for code in ErrorCode]),
            (self.model_canaries, ["passed", "rolled_back"]),
            (self.shadow_alerts, ["current", "shadow", "both"]),
            (self.checkpoint_restores, ["restored", "rebuilt"]),
        ):
            for value in values:
                metric.labels(value)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=r)

    def use_model(self, version: str) -> None:
        """Make `version` the one that `worker_model_info` shows."""
        self.model_info.clear()
        self.model_info.labels(version).set(1)

    def forget_lag(self) -> None:
        """Nobody knows it: the ends of the log are as old as the last answer."""
        for sample in next(iter(self.lag_records.collect())).samples:
            self.lag_records.labels(**sample.labels).set(math.nan)

    def forget(self, partition: Partition) -> None:
        """Drop the series of a partition that this process no longer has."""
        for gauge in (self.lag_records, self.threshold):
            with suppress(KeyError):
                gauge.remove(partition.topic, str(partition.partition))


class TrainerMetrics:
    """What one `worker train` process counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        counter, gauge = partial(Counter, registry=r), partial(Gauge, registry=r)
        self.records_read = counter("worker_trainer_records_read", "records read from the input topic")
        self.records_passed_over = counter(
            "worker_trainer_records_passed_over", "records left out, since more came than are read"
        )
        self.records_unreadable = counter(
            "worker_trainer_records_unreadable", "records passed over because they can't be read; the log names each"
        )
        self.checks = counter("worker_trainer_checks", "checks of the traffic, by decision", ["decision"])
        self.check_seconds = gauge("worker_trainer_check_seconds", "seconds of the last check, with its fit")
        self.drift_state = gauge(
            "worker_trainer_drift_state", "1 for the state of traffic at the last check", ["state"]
        )
        self.drifted_share = gauge(
            "worker_trainer_drifted_share", "share of the inliers that the calibration does not explain, 0 to 1"
        )
        self.field_drift = gauge(
            "worker_trainer_field_drift", "distance of a field that has drifted, 0 to 1", ["field"]
        )
        self.current = gauge("worker_trainer_current_info", "1 for the current model version", ["version"])
        self.last_contact_seconds = gauge(
            "worker_trainer_last_contact_seconds",
            "seconds since a broker last answered, for the client that waits longest",
        )
        ProcessCollector(registry=r)

    def show_current(self, version: str) -> None:
        """Make `version` the one that is shown as current."""
        self.current.clear()
        self.current.labels(version).set(1)

    def show_drift(self, distances: Mapping[str, float]) -> None:
        """The fields that have drifted now; the others lose their series."""
        self.field_drift.clear()
        for name, distance in distances.items():
            self.field_drift.labels(quoted(name)).set(distance)
