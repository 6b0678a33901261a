"""Every metric of the worker and of the trainer, once each: kind, name, meaning with its unit, labels.

`python -m worker.ops.metrics` prints them as a table; `--write FILE` puts it between that file's markers. All are
cheap to update: once a batch or a check, never once a record.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from worker.errors import ErrorCode
from worker.markdown import row, table_command
from worker.records import Partition

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DELAY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
_PARTITION = ("topic", "partition")


class Metrics:
    """What one `worker run` process counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()

        self.records_consumed = Counter("worker_records_consumed", "records taken from the input topic", registry=r)
        self.records_scored = Counter("worker_records_scored", "records that got a score", registry=r)
        self.tombstones = Counter("worker_tombstones", "records without a value, which are skipped", registry=r)
        self.dead_letters = Counter(
            "worker_dead_letters", "records that could not be scored, by error code", ["code"], registry=r
        )
        self.lag_records = Gauge(
            "worker_lag_records", "records between the position and the end of the log", _PARTITION, registry=r
        )
        self.partitions_assigned = Gauge("worker_partitions_assigned", "partitions of this process", registry=r)
        self.rebalances = Counter("worker_rebalances", "times that partitions came or went", registry=r)
        self.batch_records = Histogram("worker_batch_records", "records in a batch", buckets=_BATCH_RECORDS, registry=r)
        self.batch_seconds = Histogram(
            "worker_batch_seconds", "seconds of a batch in each stage", ["stage"], buckets=_STAGE_SECONDS, registry=r
        )

        self.alerts = Counter("worker_alerts", "alerts published and acknowledged", ["severity"], registry=r)
        self.alerts_silenced = Counter(
            "worker_alerts_silenced", "alerts that a rule of the silences file kept back", ["rule"], registry=r
        )
        self.alerts_grouped = Counter(
            "worker_alerts_grouped", "alerts counted in their group instead of published", registry=r
        )
        self.alerts_rate_limited = Counter(
            "worker_alerts_rate_limited", "alerts that the rate limit kept back", registry=r
        )
        self.alert_delay_seconds = Histogram(
            "worker_alert_delay_seconds",
            "seconds from a record's Kafka timestamp to the acknowledgement of its alert",
            buckets=_DELAY_SECONDS,
            registry=r,
        )
        self.threshold = Gauge(
            "worker_threshold", "score above which a record is an exceedance", _PARTITION, registry=r
        )
        self.last_commit_seconds = Gauge(
            "worker_last_commit_timestamp_seconds", "when offsets were committed last, seconds since 1970", registry=r
        )

        self.model_info = Gauge("worker_model_info", "1 for the current model version", ["version"], registry=r)
        self.model_swaps = Counter("worker_model_swaps", "versions taken into use while running", registry=r)
        self.model_refusals = Counter("worker_model_refusals", "versions that could not be used", registry=r)
        self.model_on_canary = Gauge("worker_model_on_canary", "1 while the current version is a canary", registry=r)
        self.model_canaries = Counter(
            "worker_model_canaries", "canaries that have ended: passed or rolled_back", ["result"], registry=r
        )
        self.store_outages = Counter(
            "worker_model_store_outages", "times that the model store did not answer", registry=r
        )
        self.shadow_records = Counter("worker_shadow_records", "sampled records that the shadow scored", registry=r)
        self.shadow_alerts = Counter(
            "worker_shadow_alerts",
            "of these, exceedances of the current version, of the shadow, of both",
            ["by"],
            registry=r,
        )
        self.shadow_rank_correlation = Gauge(
            "worker_shadow_rank_correlation",
            "rank correlation of both versions' scores in the last report, -1 to 1",
            registry=r,
        )

        self.delivery_failures = Counter(
            "worker_delivery_failures", "batches that were not acknowledged and are read again", registry=r
        )
        self.commit_failures = Counter(
            "worker_commit_failures", "batches whose offsets were refused, since the group has moved on", registry=r
        )
        self.checkpoint_restores = Counter(
            "worker_checkpoint_restores", "thresholds of new partitions: restored or rebuilt", ["result"], registry=r
        )
        self.broker_retries = Counter("worker_broker_retries", "waits for a broker that did not answer", registry=r)

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

    def forget(self, partition: Partition) -> None:
        """Drop the series of a partition that this process no longer has."""
        for gauge in (self.lag_records, self.threshold):
            with suppress(KeyError):
                gauge.remove(partition.topic, str(partition.partition))


class TrainerMetrics:
    """What one `worker train` process counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.records_read = Counter("worker_trainer_records_read", "records read from the input topic", registry=r)
        self.records_passed_over = Counter(
            "worker_trainer_records_passed_over", "records left out, since more came than are read", registry=r
        )
        self.checks = Counter("worker_trainer_checks", "checks of the traffic, by decision", ["decision"], registry=r)
        self.check_seconds = Gauge(
            "worker_trainer_check_seconds", "seconds of the last check, with its fit", registry=r
        )
        self.condition = Gauge(
            "worker_trainer_condition", "1 for the state of traffic at the last check", ["condition"], registry=r
        )
        self.drifted_share = Gauge(
            "worker_trainer_drifted_share",
            "share of the inliers that the calibration does not explain, 0 to 1",
            registry=r,
        )
        self.field_drift = Gauge(
            "worker_trainer_field_drift", "distance of a field that has drifted, 0 to 1", ["field"], registry=r
        )
        self.current = Gauge("worker_trainer_current_info", "1 for the current model version", ["version"], registry=r)
        ProcessCollector(registry=r)

    def show_current(self, version: str) -> None:
        """Make `version` the one that is shown as current."""
        self.current.clear()
        self.current.labels(version).set(1)

    def show_drift(self, distances: Mapping[str, float]) -> None:
        """The fields that have drifted now; the others lose their series."""
        self.field_drift.clear()
        for name, distance in distances.items():
            self.field_drift.labels(name).set(distance)


def metrics_table() -> str:
    """Every metric as a Markdown table, from the metrics themselves: name, kind, labels, meaning with its unit."""
    return "\n".join([row("metric", "kind", "labels", "what"), row(*["---"] * 4), *_rows()])


def _rows() -> Iterator[str]:
    for metrics in (Metrics(), TrainerMetrics()):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                name = f"{family.name}_total" if family.type == "counter" else family.name
                labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - has no public name
                yield row(f"`{name}`", family.type, labels, family.documentation)


if __name__ == "__main__":
    table_command("python -m worker.ops.metrics", "metrics", metrics_table)
