"""Every metric of the worker, in one place: kind, meaning, unit. `Metrics` holds one process's values."""

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from worker.errors import ErrorCode
from worker.records import Partition

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DELAY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)


class Metrics:
    """The metrics of one process, in a registry of their own. Cheap to update; call once per batch, not per record."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._input()
        self._results()
        self._model()
        self._trials()
        self._faults()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _input(self) -> None:
        r = self.registry
        # counter, records: taken from the input topic
        self.records_consumed = Counter("worker_records_consumed", "Records taken from the input topic", registry=r)
        # counter, records: with a null value, skipped
        self.tombstones = Counter("worker_tombstones", "Records with a null value, which are skipped", registry=r)
        # gauge, records, per partition: between the position and the end of the log
        self.lag_records = Gauge(
            "worker_lag_records", "Records between the position and the end", ["topic", "partition"], registry=r
        )
        # gauge, partitions: assigned to this process
        self.partitions_assigned = Gauge("worker_partitions_assigned", "Partitions of this process", registry=r)
        # counter, rebalances: times that partitions came or went
        self.rebalances = Counter("worker_rebalances", "Times that partitions were gained or lost", registry=r)
        # histogram, records: size of each batch
        self.batch_records = Histogram("worker_batch_records", "Records in a batch", buckets=_BATCH_RECORDS, registry=r)
        # histogram, seconds, per stage: time that a batch spent in it
        self.batch_seconds = Histogram(
            "worker_batch_seconds", "Time of a batch in each stage", ["stage"], buckets=_STAGE_SECONDS, registry=r
        )

    def _results(self) -> None:
        r = self.registry
        # counter, records: scored
        self.records_scored = Counter("worker_records_scored", "Records that got a score", registry=r)
        # counter, alerts, per severity: published and acknowledged
        self.alerts = Counter("worker_alerts", "Alerts published", ["severity"], registry=r)
        # counter, alerts, per rule: kept back by a silences rule
        self.alerts_silenced = Counter(
            "worker_alerts_silenced", "Alerts kept back by a rule of the silences file", ["rule"], registry=r
        )
        # counter, alerts: counted in an episode instead of published
        self.alerts_grouped = Counter(
            "worker_alerts_grouped", "Alerts counted in an episode instead of published", registry=r
        )
        # counter, alerts: kept back by the rate cap
        self.alerts_rate_limited = Counter("worker_alerts_rate_limited", "Alerts kept back by the rate cap", registry=r)
        # counter, records, per code: published to the dead letters
        self.dead_letters = Counter("worker_dead_letters", "Records that could not be scored", ["code"], registry=r)
        for code in ErrorCode:
            self.dead_letters.labels(code.value)  # present from the start, so that a rate exists at the first one
        # histogram, seconds: from a record's Kafka timestamp to the acknowledgement of its alert
        self.alert_delay_seconds = Histogram(
            "worker_alert_delay_seconds", "From a record's timestamp to its alert", buckets=_DELAY_SECONDS, registry=r
        )
        # gauge, score, per partition: threshold in force
        self.threshold = Gauge("worker_threshold", "Threshold in force", ["topic", "partition"], registry=r)
        # gauge, seconds since the epoch: the last commit of offsets
        self.last_commit_seconds = Gauge(
            "worker_last_commit_timestamp_seconds", "When offsets were committed last", registry=r
        )

    def _model(self) -> None:
        r = self.registry
        # gauge, 1 for the version in force
        self.model_info = Gauge("worker_model_info", "1 for the model version in force", ["version"], registry=r)
        # counter, swaps: a new version taken into use while running
        self.model_swaps = Counter("worker_model_swaps", "Model versions taken into use while running", registry=r)
        # counter, versions: refused when they were about to be used
        self.model_refusals = Counter("worker_model_refusals", "Model versions that could not be used", registry=r)
        # gauge, 1 while the version in force has to prove itself
        self.model_on_canary = Gauge("worker_model_on_canary", "1 during a canary", registry=r)
        # counter, canaries, per result: the version stayed, or this worker went back
        self.model_canaries = Counter("worker_model_canaries", "Probations that have ended", ["result"], registry=r)
        for result in ("passed", "rolled_back"):
            self.model_canaries.labels(result)
        # counter, times: the model store did not answer
        self.store_outages = Counter("worker_model_store_outages", "Times that the store was away", registry=r)

    def _trials(self) -> None:
        r = self.registry
        # counter, records: scored by the shadow, too
        self.shadow_records = Counter("worker_shadow_records", "Sampled records that the shadow scored", registry=r)
        # counter, records, per side: of these, above the threshold of the model in force, of the shadow, of both
        self.shadow_alerts = Counter("worker_shadow_alerts", "Sampled records above a threshold", ["by"], registry=r)
        for side in ("current", "shadow", "both"):
            self.shadow_alerts.labels(side)
        # gauge, -1 to 1: rank correlation of the scores of both, over the latest report
        self.shadow_rank_correlation = Gauge(
            "worker_shadow_rank_correlation", "Rank correlation of both models' scores", registry=r
        )

    def _faults(self) -> None:
        r = self.registry
        # counter, batches: published records that were not acknowledged; the batch is read again
        self.delivery_failures = Counter("worker_delivery_failures", "Batches not acknowledged", registry=r)
        # counter, batches: offsets refused, since the group has moved on
        self.commit_failures = Counter("worker_commit_failures", "Batches whose offsets were refused", registry=r)
        # counter, partitions, per result: thresholds of new partitions, continued from saved state or begun again
        self.state_restores = Counter("worker_state_restores", "Thresholds of new partitions", ["result"], registry=r)
        for result in ("restored", "rebuilt"):
            self.state_restores.labels(result)
        # counter, attempts: waits for a broker that did not answer
        self.broker_retries = Counter("worker_broker_retries", "Waits for a broker that did not answer", registry=r)

    def use_model(self, version: str) -> None:
        """Make `version` the one that `worker_model_info` shows."""
        self.model_info.clear()
        self.model_info.labels(version).set(1)

    def forget(self, partition: Partition) -> None:
        """Drop the series of a partition that this process no longer has."""
        for gauge in (self.lag_records, self.threshold):
            with suppress(KeyError):
                gauge.remove(partition.topic, str(partition.partition))
