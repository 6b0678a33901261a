"""What becomes of model versions, as metrics and log lines."""

from collections.abc import Mapping
from typing import Any

import structlog

from worker.errors import StoreError, WorkerError
from worker.ops.metrics import Metrics
from worker.rollout.canary import CanaryVerdict
from worker.rollout.events import ModelEvents
from worker.rollout.shadow import ShadowCounts, ShadowReport


class ModelObserver(ModelEvents):
    """Where swaps, canaries and the shadow are seen from outside. Used on two threads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger()

    def refused(self, version: str, error: WorkerError) -> None:
        """See ModelEvents."""
        self._metrics.model_refusals.inc()
        self._log.error("model refused, the one in force stays", version=version, error=error)

    def store_unavailable(self, error: StoreError) -> None:
        """See ModelEvents."""
        self._metrics.store_outages.inc()
        self._log.warning("the model store is away, the model in force stays", error=error)

    def rolled_back_in_store(self, left: str, current: str) -> None:
        """See ModelEvents."""
        self._log.info("model rolled back in the store", left=left, current=current)

    def canary_began(self, version: str, before: str) -> None:
        """See ModelEvents."""
        self._metrics.model_on_canary.set(1)
        self._log.info("model on canary", model=version, before=before)

    def canary_ended(self, verdict: CanaryVerdict) -> None:
        """See ModelEvents."""
        self._metrics.model_on_canary.set(0)
        self._metrics.model_canaries.labels("passed" if verdict.passed else "rolled_back").inc()
        facts: Mapping[str, Any] = {"model": verdict.version, "before": verdict.before, **verdict.figures}
        if verdict.passed:
            self._log.info("model has passed its canary", **facts)
        else:
            self._log.error("model rolled back: worse than the one before it", why=verdict.why, **facts)

    def canary_dropped(self, version: str) -> None:
        """See ModelEvents."""
        self._metrics.model_on_canary.set(0)
        self._log.info("canary over: another version was made current", model=version)

    def shadow_began(self, candidate: str, beside: str | None) -> None:
        """See ModelEvents."""
        if beside is None:
            self._log.info("the shadow is the model in force: nothing to compare", shadow=candidate)
        else:
            self._log.info("shadow", shadow=candidate, beside=beside)

    def shadowed(self, tally: ShadowCounts) -> None:
        """See ModelEvents."""
        self._metrics.shadow_records.inc(tally.sampled)
        for side, count in (("current", tally.current), ("shadow", tally.candidate), ("both", tally.both)):
            self._metrics.shadow_alerts.labels(side).inc(count)

    def compared(self, difference: ShadowReport) -> None:
        """See ModelEvents."""
        if difference.rank_correlation is not None:
            self._metrics.shadow_rank_correlation.set(difference.rank_correlation)
        self._log.info("shadow compared", **difference.to_json())
