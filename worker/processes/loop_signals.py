"""The loop's events as metrics, health and log lines: one line every ten seconds of work, nothing per record."""

import gc
import time
from collections.abc import Collection
from itertools import groupby

import structlog

from worker.broker.base import Consumer
from worker.errors import DeliveryError, TransientError
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Pipeline
from worker.records import Alert, Outcome, Partition
from worker.stream.events import Events

REPORT_EVERY_S = 10.0
GARBAGE_OBJECTS = 5_000
"""New objects from which on garbage is collected between two batches, about 10 ms: left to itself the collector waits
for twenty times as many (worker.processes.wiring) and stops the loop for 0.1 to 0.2 s, in the middle of a delivery."""

OLDER_EVERY = 50
"""Collections of new objects between two of older ones."""


class Observer(Events):
    """Where `worker run` is seen from outside."""

    def __init__(self, consumer: Consumer, pipeline: Pipeline, metrics: Metrics, health: Health) -> None:
        self._consumer = consumer
        self._pipeline = pipeline
        self._metrics = metrics
        self._health = health
        self._log = structlog.get_logger()
        self._reported = time.monotonic()
        self._records = self._alerts = self._dead_letters = 0
        self._collections = 0

    def beat(self) -> None:
        """See Events."""
        self._health.beat()
        if self._consumer.is_member():
            self._health.ready("group")
        else:
            self._health.waiting("group", "not a member of the consumer group now")
        if time.monotonic() - self._reported >= REPORT_EVERY_S:
            self.report()

    def report(self) -> None:
        """The canonical log line: what was done since the last one. Silent when nothing was."""
        elapsed = time.monotonic() - self._reported
        lag = self._consumer.lag()
        for partition, records in lag.items():
            self._metrics.lag_records.labels(*_labels(partition)).set(records)
        if self._records:
            self._log.info(
                "progress",
                records=self._records,
                records_per_s=round(self._records / elapsed),
                alerts=self._alerts,
                dead_letters=self._dead_letters,
                lag=sum(lag.values()),
                model=self._pipeline.model.bundle.version,
            )
        self._reported = time.monotonic()
        self._records = self._alerts = self._dead_letters = 0

    def tidy(self) -> None:
        """Collect garbage now, between two batches, where there is enough of it."""
        if gc.get_count()[0] < GARBAGE_OBJECTS:
            return
        self._collections += 1
        gc.collect(1 if self._collections % OLDER_EVERY == 0 else 0)

    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        """See Events."""
        self.tidy()
        metrics, scored = self._metrics, len(outcome.scores.messages)
        records = scored + len(outcome.dead_letters) + outcome.skipped
        self._records += records
        self._alerts += len(outcome.alerts)
        self._dead_letters += len(outcome.dead_letters)
        metrics.records_consumed.inc(records)
        metrics.records_scored.inc(scored)
        metrics.tombstones.inc(outcome.skipped)
        metrics.batch_records.observe(records)
        metrics.batch_seconds.labels("process").observe(process_s)
        metrics.batch_seconds.labels("deliver").observe(deliver_s)
        metrics.last_commit_seconds.set_to_current_time()
        for dead in outcome.dead_letters:
            metrics.dead_letters.labels(dead.error_code.value).inc()
        self._count_alerts(outcome.alerts)
        for rule, count in outcome.silenced.items():
            metrics.alerts_silenced.labels(rule).inc(count)
        metrics.alerts_grouped.inc(outcome.grouped)
        metrics.alerts_rate_limited.inc(outcome.rate_limited)
        for partition in outcome.next_offsets:
            threshold = self._pipeline.threshold(partition).policy.threshold()
            if threshold is not None:
                metrics.threshold.labels(*_labels(partition)).set(threshold)

    def _count_alerts(self, alerts: Collection[Alert]) -> None:
        now_ms = time.time() * 1000
        for alert in alerts:
            if alert.message.timestamp >= 0 and alert.of_one_record:
                self._metrics.alert_delay_seconds.observe(max(0.0, now_ms - alert.message.timestamp) / 1000)
        for severity, group in groupby(sorted(alert.severity for alert in alerts)):
            self._metrics.alerts.labels(severity).inc(len(list(group)))

    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        """See Events."""
        self._metrics.rebalances.inc()
        for partition in revoked:
            self._metrics.forget(partition)
        self._metrics.partitions_assigned.set(len(self._consumer.assignment()))
        self._log.info("rebalanced", assigned=_names(assigned), revoked=_names(revoked))

    def state_restored(self, partition: Partition, next_offset: int) -> None:
        """See Events."""
        self._metrics.state_restores.labels("restored").inc()
        self._log.info("threshold restored", partition=_name(partition), next_offset=next_offset)

    def state_rebuilt(self, partition: Partition, why: str) -> None:
        """See Events."""
        self._metrics.state_restores.labels("rebuilt").inc()
        self._log.warning("threshold starts again from the calibration", partition=_name(partition), why=why)

    def swapped(self, old: str, new: str) -> None:
        """See Events."""
        self._metrics.model_swaps.inc()
        self._metrics.use_model(new)
        self._log.info("model swapped", old=old, new=new)

    def retrying(self, error: TransientError, attempt: int) -> None:
        """See Events."""
        failed = isinstance(error, DeliveryError)
        (self._metrics.delivery_failures if failed else self._metrics.broker_retries).inc()
        self._log.warning("retrying, nothing is lost", attempt=attempt, error=str(error), kind=type(error).__name__)

    def dropped(self, records: int, why: str) -> None:
        """See Events."""
        self._metrics.commit_failures.inc()
        self._log.warning("open batch dropped before its commit, its owner reads it again", records=records, why=why)

    def shortened(self, records: int) -> None:
        """See Events."""
        self._log.warning("results larger than the broker takes were cut down and marked", records=records)

    def slowed(self, records: int, seconds: float) -> None:
        """See Events."""
        self._log.warning("a batch took too long, the next ones are smaller", seconds=round(seconds, 1), most=records)


def _labels(partition: Partition) -> tuple[str, str]:
    return partition.topic, str(partition.partition)


def _names(partitions: Collection[Partition]) -> list[str]:
    return [_name(partition) for partition in sorted(partitions)]


def _name(partition: Partition) -> str:
    return f"{partition.topic}-{partition.partition}"
