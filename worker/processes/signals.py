"""Events of the rooms below as metrics, health and log lines: a table with a row an event, instead of a method each.

    class ModelSignals(Signals[Metrics], RolloutEvents):
        refused = signal("error", "model refused", lambda on, _: on.metrics.model_refusals.inc())

The interface stays the typed one of the room (here RolloutEvents): a row stands in the place of its method, and the
parameters of that method are the fields of the log line. An event whose values have to be worked out first is written
as a method. One line every ten seconds of work, and one a check: nothing is logged for a record.
"""

import gc
import inspect
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import structlog
from typing_extensions import override

from worker.broker.base import Consumer
from worker.errors import DeliveryError, Hint, RegistryUnavailable, TransientError
from worker.ops.health import Health
from worker.ops.metrics import Metrics, TrainerMetrics
from worker.pipeline import Pipeline
from worker.processes.first_records import FirstRecords
from worker.records import Outcome, Partition
from worker.rollout.canary import CanaryVerdict
from worker.rollout.paired import ShadowReport
from worker.rollout.rollout import RolloutEvents
from worker.stream.events import Events
from worker.texts import quoted
from worker.trainer.drift import DriftState
from worker.trainer.sidecar import TrainerEvents
from worker.trainer.trainer import Decision, TrainerVerdict

M = TypeVar("M")
Fields = Mapping[str, Any]
"""An event's parameters by name, as the room below has passed them."""

REPORT_EVERY_S = 10.0
GARBAGE_OBJECTS = 5_000  # new ones from which on garbage is collected between two batches: about 10 ms
OLDER_EVERY = 50  # collections of new objects between two of older ones
GARBAGE_BYTES = 64 << 20  # of polled records after which older ones are collected, too: few objects can hold them all
DRIFT_NEWS: Final[Mapping[DriftState, tuple[str, dict[str, Hint]]]] = {
    DriftState.STABLE: ("traffic is stable again", {}),
    DriftState.DRIFTED: ("normal traffic has drifted", {}),
    DriftState.REPLACED: ("all traffic was replaced", {"hint": Hint.ADOPT_OR_VETO_NOW}),
    DriftState.NEW_POPULATION: (
        "a part of the traffic is a new population",
        {"hint": Hint.ADOPT_OR_VETO_ONCE_HELD},
    ),
}


class Signals(Generic[M]):
    """Where a process is seen from outside: its metrics, its health, its log."""

    def __init__(self, metrics: M, health: Health) -> None:
        self.metrics = metrics
        self.health = health
        self.log = structlog.get_logger()


def signal(level: str, event: str, measure: Callable[[Any, Fields], object] | None = None) -> Any:
    """A row of the table. Any, because it stands in the place of a method with a signature of its own.

    level     debug, info, warning or error
    event     what the log line says; "" logs nothing
    measure   brings metrics and health up to date; called with the Signals and the event's fields
    """
    return _Row(level, event, measure)


@dataclass
class _Row:
    level: str
    event: str
    measure: Callable[[Any, Fields], object] | None
    parameters: Sequence[str] = ()

    def __set_name__(self, owner: type, name: str) -> None:
        # Callers pass some values by position: the interface's method, which this row hides, knows their names.
        method = next(vars(base)[name] for base in owner.__mro__[1:] if name in vars(base))
        self.parameters = list(inspect.signature(method).parameters)[1:]

    def __get__(self, instance: Signals[Any], _: type) -> Callable[..., None]:
        return partial(self._signal, instance)

    def _signal(self, signals: Signals[Any], *values: object, **named: object) -> None:
        fields = {**dict(zip(self.parameters, values, strict=False)), **named}
        if self.measure is not None:
            self.measure(signals, fields)
        if self.event:
            kind = {"kind": type(error).__name__} if isinstance(error := fields.get("error"), Exception) else {}
            entry = {name: shown(value) for name, value in fields.items()}
            getattr(signals.log, self.level)(self.event, **entry, **kind)


def shown(value: Any) -> Any:
    """A value as logs have it: a partition as `topic-0`, collections as lists, seconds and shares rounded."""
    if isinstance(value, Partition):
        return f"{value.topic}-{value.partition}"
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {str(shown(key)): shown(part) for key, part in value.items()}
    if isinstance(value, set | frozenset | list | tuple):
        return [shown(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value


class LoopSignals(Signals[Metrics], Events):
    """Where `worker run` is seen from outside. first_records: says what they spell otherwise; None: nothing does."""

    def __init__(
        self,
        consumer: Consumer,
        pipeline: Pipeline,
        metrics: Metrics,
        health: Health,
        first_records: FirstRecords | None = None,
    ) -> None:
        super().__init__(metrics, health)
        self._first_records = first_records
        self._consumer = consumer
        self._pipeline = pipeline
        self._collections = 0
        self._polled_bytes = 0  # since garbage was collected
        self._reported = time.monotonic()
        self._done: Counter[str] = Counter()
        self._missing: set[str] = set()

    began = signal("info", "partitions begin that nothing is committed of")
    checkpoint_restored = signal(
        "info", "threshold restored", lambda on, _: on.metrics.checkpoint_restores.labels("restored").inc()
    )
    checkpoint_rebuilt = signal(
        "warning",
        "threshold starts again from the calibration",
        lambda on, _: on.metrics.checkpoint_restores.labels("rebuilt").inc(),
    )
    dropped = signal(
        "warning",
        "open batch dropped before its commit, its owner reads it again",
        lambda on, _: on.metrics.commit_failures.inc(),
    )
    unreadable = signal(
        "error",
        "records that can't be read are passed over",
        lambda on, event: on.metrics.records_unreadable.inc(event["last_offset"] - event["first_offset"] + 1),
    )
    shortened = signal("warning", "results larger than the broker takes were shortened and marked")
    slowed = signal("warning", "a batch took too long, the next ones are smaller")

    @override
    def swapped(self, old: str, new: str) -> None:
        self.metrics.model_swaps.inc()
        self.metrics.use_model(new)
        self.log.info("model swapped", old=old, new=new)

    @override
    def retrying(self, error: TransientError, attempt: int) -> None:
        metrics = self.metrics
        reasons = self.health.reasons()
        if isinstance(error, RegistryUnavailable):
            self.health.waiting("registry", error)
            metrics.registry_retries.inc()
            is_known = "registry" in reasons  # it may be away for hours: one line, then the reason of health
        else:
            (metrics.delivery_failures if isinstance(error, DeliveryError) else metrics.broker_retries).inc()
            is_known = "contact" in reasons  # a line a minute says so already
        if not is_known:
            self.log.warning("retrying, nothing is lost", error=error, attempt=attempt, kind=type(error).__name__)

    @override
    def beat(self) -> None:
        self.health.beat()
        self._polled_bytes += self._consumer.polled_bytes()
        if self._consumer.is_member():
            self.health.ready("group")
        else:
            self.health.waiting("group", "not a member of the consumer group now")
        self._tell_missing_topics()
        if time.monotonic() - self._reported >= REPORT_EVERY_S:
            self.report()

    def _tell_missing_topics(self) -> None:
        missing = set(self._consumer.missing_topics())
        for topic in sorted(missing - self._missing):
            self.log.warning("there is no such topic, waiting for it", topic=topic)
        if missing:
            self.health.waiting("topic", f"no such topic: {', '.join(sorted(missing))}; it is read once it is there")
        elif self._missing:
            self.log.info("the topic is there again", topic=", ".join(sorted(self._missing)))
            self.health.ready("topic")
        self._missing = missing

    def report(self) -> None:
        """The canonical log line: what was done since the last one. Silent when nothing was."""
        # Without contact the client remembers ends of the log that are long past.
        lag = self._consumer.lag() if "contact" not in self.health.reasons() else None
        records = self._done["records"]
        for partition, behind in (lag or {}).items():
            self.metrics.lag_records.labels(partition.topic, str(partition.partition)).set(behind)
        if records:
            self.log.info(
                "progress",
                records=records,
                records_per_s=round(records / (time.monotonic() - self._reported)),
                alerts=self._done["alerts"],
                dead_letters=self._done["dead_letters"],
                lag=None if lag is None else sum(lag.values()),
                model=self._pipeline.model.bundle.version,
            )
        self._reported = time.monotonic()
        self._done.clear()

    @override
    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        large = self._polled_bytes >= GARBAGE_BYTES
        if large or gc.get_count()[0] >= GARBAGE_OBJECTS:  # here, where nobody waits: see calm_garbage_collector
            self._collections += 1
            gc.collect(1 if large or self._collections % OLDER_EVERY == 0 else 0)
            self._polled_bytes = 0
        self.health.ready("registry")
        if self._first_records is not None and (note := self._first_records.note(outcome.scores.messages)) is not None:
            self.log.warning("fields of the schema may be misspelt", reason=note)
        metrics, scored = self.metrics, len(outcome.scores.messages)
        records = scored + len(outcome.dead_letters) + outcome.skipped
        self._done.update(records=records, alerts=len(outcome.alerts), dead_letters=len(outcome.dead_letters))
        metrics.records_consumed.inc(records)
        metrics.records_scored.inc(scored)
        metrics.tombstones.inc(outcome.skipped)
        if records:  # else it only commits what lies behind the last one
            metrics.batch_records.observe(records)
        metrics.batch_seconds.labels("process").observe(process_s)
        metrics.batch_seconds.labels("deliver").observe(deliver_s)
        metrics.last_commit_seconds.set_to_current_time()
        now_ms = time.time() * 1000
        for alert in outcome.alerts:
            # The wall clock and the broker's may disagree: a delay below 0 is none.
            if alert.message.timestamp >= 0 and alert.of_one_record:
                metrics.alert_delay_seconds.observe(max(0.0, now_ms - alert.message.timestamp) / 1000)
        for counter, counts in (
            (metrics.dead_letters, Counter(dead.error_code.value for dead in outcome.dead_letters)),
            (metrics.alerts, Counter(alert.severity for alert in outcome.alerts)),
            (metrics.unexpected_values, {quoted(name): count for name, count in outcome.unexpected.items()}),
            (metrics.alerts_silenced, outcome.silenced),
        ):
            for label, count in counts.items():
                counter.labels(label).inc(count)
        metrics.alerts_grouped.inc(outcome.grouped)
        metrics.alerts_rate_limited.inc(outcome.rate_limited)
        for partition in outcome.next_offsets:
            threshold = self._pipeline.threshold(partition).policy.threshold()
            if threshold is not None:
                metrics.threshold.labels(partition.topic, str(partition.partition)).set(threshold)

    @override
    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        self.metrics.rebalances.inc()
        for partition in revoked:
            self.metrics.forget(partition)  # else two members would show a lag and a threshold for it
        self.metrics.partitions_assigned.set(len(self._consumer.assignment()))
        self.log.info("rebalanced", assigned=shown(sorted(assigned)), revoked=shown(sorted(revoked)))


def _count_shadow(on: "ModelSignals", event: Fields) -> None:
    counts = event["counts"]
    on.metrics.shadow_records.inc(counts.sampled)
    on.metrics.shadow_alerts.labels("current").inc(counts.alerts)
    on.metrics.shadow_alerts.labels("shadow").inc(counts.alerts_candidate)
    on.metrics.shadow_alerts.labels("both").inc(counts.alerts_both)


class ModelSignals(Signals[Metrics], RolloutEvents):
    """Where swaps, canaries and the shadow are seen from outside. Used on two threads: no state of its own."""

    refused = signal("error", "model refused, the current one stays", lambda on, _: on.metrics.model_refusals.inc())
    store_unavailable = signal(
        "warning", "the model store is away, the current model stays", lambda on, _: on.metrics.store_outages.inc()
    )
    rolled_back_in_store = signal("info", "model rolled back in the store")
    canary_began = signal("info", "model on canary", lambda on, _: on.metrics.model_on_canary.set(1))
    canary_dropped = signal(
        "info", "canary over: another version was made current", lambda on, _: on.metrics.model_on_canary.set(0)
    )
    shadow_began = signal("info", "shadow")
    shadow_ended = signal("info", "the shadow is the current model: nothing to compare")
    shadow_scored = signal("info", "", _count_shadow)

    @override
    def canary_ended(self, verdict: CanaryVerdict) -> None:
        self.metrics.model_on_canary.set(0)
        self.metrics.model_canaries.labels("passed" if verdict.passed else "rolled_back").inc()
        facts = {"version": verdict.version, "previous": verdict.previous, **verdict.figures}
        if verdict.passed:
            self.log.info("model has passed its canary", **facts)
        else:
            self.log.error("model rolled back: worse than the one before it", why=verdict.why, **facts)

    @override
    def shadow_reported(self, report: ShadowReport) -> None:
        if report.rank_correlation is not None:
            self.metrics.shadow_rank_correlation.set(report.rank_correlation)
        self.log.info("shadow compared", **report.to_json())


class TrainerSignals(Signals[TrainerMetrics], TrainerEvents):
    """Where `worker train` is seen from outside."""

    def __init__(self, metrics: TrainerMetrics, health: Health) -> None:
        super().__init__(metrics, health)
        self._state = DriftState.STABLE
        self._drifted_fields: set[str] = set()

    read = signal("info", "", lambda on, event: (on.health.beat(), on.metrics.records_read.inc(event["records"])))
    unreadable = signal(
        "error",
        "records that can't be read are passed over",
        lambda on, event: on.metrics.records_unreadable.inc(event["last_offset"] - event["first_offset"] + 1),
    )
    passed_over = signal("info", "", lambda on, event: on.metrics.records_passed_over.inc(event["records"]))
    current_changed = signal("info", "current version", lambda on, event: on.metrics.show_current(event["version"]))
    vetoed = signal("info", "vetoed, nothing is learned until traffic is stable")
    outrun = signal("warning", "another process changed the current version first")
    not_cleaned_up = signal("warning", "old model versions can't be removed from the store now")
    state_lost = signal("warning", "the trainer's saved state can't be used, it begins anew")
    state_not_saved = signal("error", "the trainer's state can't be saved")

    @override
    def answered(self, verdict: TrainerVerdict) -> None:
        decision, reasons = verdict.decision.value, list(verdict.reasons)
        self.log.info("check on request", decision=decision, reasons=reasons, candidate=verdict.candidate)

    @override
    def checked(self, verdict: TrainerVerdict, seconds: float) -> None:
        decision, figures = verdict.decision, verdict.figures
        self.metrics.checks.labels(decision.value).inc()
        self.metrics.check_seconds.set(seconds)
        if decision is Decision.WAITING:
            return
        drift, drifted_fields = figures["drift"], figures["drifted_fields"]
        state = DriftState(drift["state"])
        self.metrics.drifted_share.set(drift["drifted_share"])
        self.metrics.drift_state.clear()
        self.metrics.drift_state.labels(state.value).set(1)
        self.metrics.show_drift(drifted_fields)
        log = self.log.info if decision in {Decision.NOT_NEEDED, Decision.PROMOTED} else self.log.warning
        facts = {"decision": decision.value, "reasons": verdict.reasons, "candidate": verdict.candidate}
        log("checked", **facts, seconds=round(seconds, 2), **figures)
        # State and fields are announced once, when they change: the line of each check has them anyway.
        if state is not self._state:
            event, hint = DRIFT_NEWS[state]
            self.log.warning(event, state=state.value, **hint)
        if new := sorted(drifted_fields.keys() - self._drifted_fields):
            # One value: a field's name is data, and a keyword argument of the logger would be a key of the line.
            self.log.warning("fields have drifted", fields={name: drifted_fields[name] for name in new})
        self._state, self._drifted_fields = state, set(drifted_fields)
