"""What the trainer does, as metrics, health and log lines: one line a look."""

import structlog

from worker.ops.health import Health
from worker.ops.metrics import TrainerMetrics
from worker.records import Partition
from worker.trainer.events import Reports
from worker.trainer.trainer import Decision, Verdict

NEWS = {
    "moved": "ordinary traffic has moved",
    "gone": "all traffic was replaced: worker models adopt or veto decides at once, else it becomes the new ordinary",
    "apart": "a part of the traffic stands apart: worker models adopt or veto once a candidate is held",
    "settled": "traffic is settled again",
}


class TrainerObserver(Reports):
    """Where `worker train` is seen from outside."""

    def __init__(self, metrics: TrainerMetrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._log = structlog.get_logger()
        self._condition = "settled"
        self._drifted: set[str] = set()

    def read(self, records: int) -> None:
        """See Reports."""
        self._health.beat()
        self._metrics.records_read.inc(records)

    def passed_over(self, partition: Partition, records: int) -> None:  # noqa: ARG002
        """See Reports."""
        self._metrics.records_passed_over.inc(records)

    def looked(self, verdict: Verdict, seconds: float) -> None:
        """See Reports."""
        self._metrics.checks.labels(verdict.decision.value).inc()
        self._metrics.check_seconds.set(seconds)
        need, drift = verdict.figures.get("need"), verdict.figures.get("drift", {})
        if need is None:
            return
        self._metrics.drifted_share.set(need["moved"])
        self._metrics.condition.clear()
        self._metrics.condition.labels(need["condition"]).set(1)
        self._metrics.show_drift(drift)
        fields = {"decision": verdict.decision.value, "reasons": verdict.reasons, "candidate": verdict.candidate}
        level = self._log.info if verdict.decision in {Decision.NOT_NEEDED, Decision.PROMOTED} else self._log.warning
        level("looked", **fields, seconds=round(seconds, 2), **verdict.figures)
        self._announce(need["condition"], drift)

    def _announce(self, condition: str, drift: dict[str, float]) -> None:
        if condition != self._condition:
            self._condition = condition
            self._log.warning(NEWS[condition], condition=condition)
        fresh = sorted(drift.keys() - self._drifted)
        if fresh:
            self._log.warning("fields have drifted", **{name: drift[name] for name in fresh})
        self._drifted = set(drift)

    def champion(self, version: str, why: str) -> None:
        """See Reports."""
        self._metrics.show_current(version)
        self._log.info("current version", version=version, why=why)

    def vetoed(self, version: str, why: str) -> None:
        """See Reports."""
        self._log.info("vetoed, nothing is learned until traffic is settled", version=version, why=why)

    def outrun(self, version: str, why: str) -> None:
        """See Reports."""
        self._log.warning("another process changed the current version first", candidate=version, why=why)

    def forgot(self, why: str) -> None:
        """See Reports."""
        self._log.warning("the trainer's saved window can't be used, it begins anew", why=why)

    def not_saved(self, why: str) -> None:
        """See Reports."""
        self._log.error("the trainer's window can't be saved", why=why)
