"""The loop's events as metrics, health and log lines: one line every ten seconds of work, nothing per record."""

import time
from collections import Counter
from collections.abc import Collection

from typing_extensions import override

from worker.broker.base import Consumer
from worker.errors import DeliveryError
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Pipeline
from worker.processes.process import Garbage
from worker.processes.signals import Fields, Signals, shown, signal
from worker.records import Alert, Outcome, Partition
from worker.stream.events import Events

REPORT_EVERY_S = 10.0


def _count_retry(on: "LoopSignals", event: Fields) -> None:
    failed = isinstance(event["error"], DeliveryError)
    (on.metrics.delivery_failures if failed else on.metrics.broker_retries).inc()


class LoopSignals(Signals[Metrics], Events):
    """Where `worker run` is seen from outside."""

    def __init__(self, consumer: Consumer, pipeline: Pipeline, metrics: Metrics, health: Health) -> None:
        super().__init__(metrics, health)
        self._consumer = consumer
        self._pipeline = pipeline
        self._garbage = Garbage()
        self._reported = time.monotonic()
        self._done: Counter[str] = Counter()

    checkpoint_restored = signal(
        "info", "threshold restored", lambda on, _: on.metrics.checkpoint_restores.labels("restored").inc()
    )
    checkpoint_rebuilt = signal(
        "warning",
        "threshold starts again from the calibration",
        lambda on, _: on.metrics.checkpoint_restores.labels("rebuilt").inc(),
    )
    retrying = signal("warning", "retrying, nothing is lost", _count_retry)
    dropped = signal(
        "warning",
        "open batch dropped before its commit, its owner reads it again",
        lambda on, _: on.metrics.commit_failures.inc(),
    )
    shortened = signal("warning", "results larger than the broker takes were shortened and marked")
    slowed = signal("warning", "a batch took too long, the next ones are smaller")

    @override
    def swapped(self, old: str, new: str) -> None:
        self.metrics.model_swaps.inc()
        self.metrics.use_model(new)
        self.log.info("model swapped", old=old, new=new)

    @override
    def beat(self) -> None:
        self.health.beat()
        if self._consumer.is_member():
            self.health.ready("group")
        else:
            self.health.waiting("group", "not a member of the consumer group now")
        if time.monotonic() - self._reported >= REPORT_EVERY_S:
            self.report()

    def report(self) -> None:
        """The canonical log line: what was done since the last one. Silent when nothing was."""
        lag = self._consumer.lag()
        for partition, records in lag.items():
            self.metrics.lag_records.labels(partition.topic, str(partition.partition)).set(records)
        records = self._done["records"]
        if records:
            self.log.info(
                "progress",
                records=records,
                records_per_s=round(records / (time.monotonic() - self._reported)),
                alerts=self._done["alerts"],
                dead_letters=self._done["dead_letters"],
                lag=sum(lag.values()),
                model=self._pipeline.model.bundle.version,
            )
        self._reported = time.monotonic()
        self._done.clear()

    @override
    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        self._garbage.collect()
        metrics, scored = self.metrics, len(outcome.scores.messages)
        records = scored + len(outcome.dead_letters) + outcome.skipped
        self._done.update(records=records, alerts=len(outcome.alerts), dead_letters=len(outcome.dead_letters))
        metrics.records_consumed.inc(records)
        metrics.records_scored.inc(scored)
        metrics.tombstones.inc(outcome.skipped)
        metrics.batch_records.observe(records)
        metrics.batch_seconds.labels("process").observe(process_s)
        metrics.batch_seconds.labels("deliver").observe(deliver_s)
        metrics.last_commit_seconds.set_to_current_time()
        for code, count in Counter(dead.error_code.value for dead in outcome.dead_letters).items():
            metrics.dead_letters.labels(code).inc(count)
        self._count_alerts(outcome.alerts)
        for rule, count in outcome.silenced.items():
            metrics.alerts_silenced.labels(rule).inc(count)
        metrics.alerts_grouped.inc(outcome.grouped)
        metrics.alerts_rate_limited.inc(outcome.rate_limited)
        for partition in outcome.next_offsets:
            threshold = self._pipeline.threshold(partition).policy.threshold()
            if threshold is not None:
                metrics.threshold.labels(partition.topic, str(partition.partition)).set(threshold)

    def _count_alerts(self, alerts: Collection[Alert]) -> None:
        now_ms = time.time() * 1000
        for alert in alerts:
            if alert.message.timestamp >= 0 and alert.of_one_record:
                self.metrics.alert_delay_seconds.observe(max(0.0, now_ms - alert.message.timestamp) / 1000)
        for severity, count in Counter(alert.severity for alert in alerts).items():
            self.metrics.alerts.labels(severity).inc(count)

    @override
    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        self.metrics.rebalances.inc()
        for partition in revoked:
            self.metrics.forget(partition)
        self.metrics.partitions_assigned.set(len(self._consumer.assignment()))
        self.log.info("rebalanced", assigned=shown(sorted(assigned)), revoked=shown(sorted(revoked)))
