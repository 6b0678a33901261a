"""What the trainer does, as metrics, health and log lines: one line a check."""

from collections.abc import Mapping

from typing_extensions import override

from worker.errors import Hint
from worker.ops.health import Health
from worker.ops.metrics import TrainerMetrics
from worker.processes.signals import Fields, Signals, signal
from worker.trainer.drift import DriftState
from worker.trainer.sidecar import TrainerEvents
from worker.trainer.trainer import Decision, TrainerVerdict

NEWS: Mapping[DriftState, tuple[str, Hint | None]] = {
    DriftState.STABLE: ("traffic is stable again", None),
    DriftState.DRIFTED: ("normal traffic has drifted", None),
    DriftState.REPLACED: ("all traffic was replaced", Hint.ADOPT_OR_VETO_NOW),
    DriftState.NEW_POPULATION: ("a part of the traffic is a new population", Hint.ADOPT_OR_VETO_ONCE_HELD),
}


def _count_read(on: "TrainerSignals", event: Fields) -> None:
    on.health.beat()
    on.metrics.records_read.inc(event["records"])


class TrainerSignals(Signals[TrainerMetrics], TrainerEvents):
    """Where `worker train` is seen from outside."""

    def __init__(self, metrics: TrainerMetrics, health: Health) -> None:
        super().__init__(metrics, health)
        self._state = DriftState.STABLE
        self._drifted_fields: set[str] = set()

    read = signal("info", "", _count_read)
    passed_over = signal("info", "", lambda on, event: on.metrics.records_passed_over.inc(event["records"]))
    current_changed = signal("info", "current version", lambda on, event: on.metrics.show_current(event["version"]))
    vetoed = signal("info", "vetoed, nothing is learned until traffic is stable")
    outrun = signal("warning", "another process changed the current version first")
    state_lost = signal("warning", "the trainer's saved state can't be used, it begins anew")
    state_not_saved = signal("error", "the trainer's state can't be saved")

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
        if state is not self._state:
            self._state = state
            event, hint = NEWS[state]
            self.log.warning(event, state=state.value, **({"hint": hint} if hint is not None else {}))
        new = sorted(drifted_fields.keys() - self._drifted_fields)
        if new:
            self.log.warning("fields have drifted", **{name: drifted_fields[name] for name in new})
        self._drifted_fields = set(drifted_fields)
