"""What becomes of model versions, as metrics and log lines."""

from typing_extensions import override

from worker.ops.metrics import Metrics
from worker.processes.signals import Fields, Signals, signal
from worker.rollout.canary import CanaryVerdict
from worker.rollout.rollout import RolloutEvents
from worker.rollout.shadow import ShadowReport


def _count_shadow(on: "ModelSignals", event: Fields) -> None:
    counts = event["counts"]
    on.metrics.shadow_records.inc(counts.sampled)
    on.metrics.shadow_alerts.labels("current").inc(counts.alerts)
    on.metrics.shadow_alerts.labels("shadow").inc(counts.alerts_candidate)
    on.metrics.shadow_alerts.labels("both").inc(counts.alerts_both)


class ModelSignals(Signals[Metrics], RolloutEvents):
    """Where swaps, canaries and the shadow are seen from outside. Used on two threads."""

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
        versions = {"version": verdict.version, "previous": verdict.previous}
        if verdict.passed:
            self.log.info("model has passed its canary", **versions, **verdict.figures)
        else:
            self.log.error(
                "model rolled back: worse than the one before it", why=verdict.why, **versions, **verdict.figures
            )

    @override
    def shadow_reported(self, report: ShadowReport) -> None:
        if report.rank_correlation is not None:
            self.metrics.shadow_rank_correlation.set(report.rank_correlation)
        self.log.info("shadow compared", **report.to_json())
