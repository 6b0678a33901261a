"""Which version scores, and what it is compared with: swap, canary, way back, shadow. No I/O, no clock, no threads.

    proven ── swap to a candidate ──> on canary ── passed ──> proven
      ^                                   |
      └────── swap back to previous ──────┘ failed

    1. `promote` announces a candidate; at the next `swap`, between two batches, it becomes current
    2. the previous version goes on scoring a sample of what `observe` is given, after the delivery: no alert waits
    3. the canary finds fault: at the next `swap` the previous version takes over again, with its own thresholds
    4. the canary is over: the previous version is let go

A candidate that comes during a canary is compared with the last proven version, not with the one it follows: else a
bad version could pass beside another bad one. The record loop and a replay with refits drive the same object.
"""

from collections.abc import Collection
from typing import NamedTuple

from worker.errors import StoreError, WorkerError
from worker.pipeline import Model, Pipeline
from worker.records import Outcome, Partition
from worker.rollout.canary import Canary, CanaryVerdict
from worker.rollout.paired import Pairing, Shadow, ShadowCounts, ShadowReport, Thresholds


class RolloutEvents:
    """What becomes of model versions. Must not block; this one ignores everything.

    The first three are called on the watcher's thread, the others on the loop's.
    """

    def refused(self, version: str, error: WorkerError) -> None:
        """A version can't be used, the current one stays; "?" where the store can't even say which."""

    def store_unavailable(self, error: StoreError) -> None:
        """The store is away; it is asked again."""

    def rolled_back_in_store(self, left: str, current: str) -> None:
        """The store names the previous version as the current one, in the place of one that failed its canary."""

    def canary_began(self, version: str, previous: str) -> None:
        """A version is compared with the last proven one."""

    def canary_ended(self, verdict: CanaryVerdict) -> None:
        """The version stays, or the previous one takes over again at the next swap."""

    def canary_dropped(self, version: str) -> None:
        """A version that needs no canary has taken over in the middle of this one's."""

    def shadow_began(self, candidate: str, current: str) -> None:
        """A candidate is compared with the current version from here on."""

    def shadow_ended(self, candidate: str) -> None:
        """The candidate is the current version itself: there is nothing to compare."""

    def shadow_scored(self, counts: ShadowCounts) -> None:
        """The sample of a batch was scored by the candidate, too."""

    def shadow_reported(self, report: ShadowReport) -> None:
        """Enough was sampled for a report."""


class Promotion(NamedTuple):
    """A version to make current. needs_canary: whether it has yet to prove itself against the one that it follows."""

    model: Model
    needs_canary: bool = True


class Rollout:
    """The state of one worker's model.

    current    the version that scores
    pairing    how two versions are compared; None: not at all, and what is promoted stays
    previous   what `current` has to prove itself against right from the start
    """

    def __init__(
        self,
        current: Model,
        pairing: Pairing | None = None,
        *,
        events: RolloutEvents | None = None,
        previous: Model | None = None,
    ) -> None:
        self.current = current
        self._pairing = pairing
        self._events = events or RolloutEvents()
        self._promotion: Promotion | None = None
        self._canary: Canary | None = None
        self._failed: Canary | None = None  # it leads back at the next swap
        self._candidate: Model | None = None  # in the shadow
        self._shadow: Shadow | None = None
        if previous is not None:
            self._begin_canary(previous, {})

    def promote(self, promotion: Promotion) -> None:
        """Make a version current at the next swap, in the place of one that still waits for it."""
        self._promotion = promotion

    def swap(self, pipeline: Pipeline) -> bool:
        """Between two batches: change the pipeline's model where another is to score; whether it was changed.

        A way back goes first, whatever was promoted since: the promotion then follows the version that is proven.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            return self._change(pipeline, failed.previous, failed.thresholds)
        promotion, self._promotion = self._promotion, None
        if promotion is None:
            return False
        canary, model = self._canary, promotion.model
        if canary is not None and model.bundle.version == canary.previous.bundle.version:  # somebody else went back
            return self._change(pipeline, canary.previous, canary.thresholds)
        return self._change(pipeline, model, needs_canary=promotion.needs_canary)

    def _change(
        self, pipeline: Pipeline, model: Model, thresholds: Thresholds | None = None, *, needs_canary: bool = False
    ) -> bool:
        previous, canary = pipeline.model, self._canary
        if model.bundle.version == previous.bundle.version:
            return False
        previous_thresholds = pipeline.swap(model, thresholds)
        self.current, self._canary = model, None
        if needs_canary and canary is not None:
            self._begin_canary(canary.previous, canary.thresholds or {})
        elif needs_canary:
            self._begin_canary(previous, previous_thresholds)
        elif canary is not None:
            self._events.canary_dropped(canary.current.bundle.version)
        self._begin_shadow()
        return True

    def _begin_canary(self, previous: Model, thresholds: Thresholds) -> None:
        if self._pairing is None or self._pairing.canary_records == 0:
            return
        self._canary = Canary(self.current, previous, self._pairing, thresholds)
        self._events.canary_began(self.current.bundle.version, previous.bundle.version)

    def observe(self, outcome: Outcome) -> CanaryVerdict | None:
        """Take a batch that was delivered; the verdict where it ends a canary."""
        canary = self._canary
        verdict = canary.observe(outcome) if canary is not None else None
        if verdict is not None:
            self._canary, self._failed = None, None if verdict.passed else canary
            self._events.canary_ended(verdict)
        if self._shadow is not None:
            counts, report = self._shadow.observe(outcome)
            self._events.shadow_scored(counts)
            if report is not None:
                self._events.shadow_reported(report)
        return verdict

    def shadow(self, candidate: Model) -> None:
        """Compare a candidate with whatever version is current from here on."""
        self._candidate = candidate
        self._begin_shadow()

    def _begin_shadow(self) -> None:
        candidate, current = self._candidate, self.current.bundle.version
        if candidate is None or self._pairing is None:
            return
        if candidate.bundle.version == current:
            self._shadow = None
            self._events.shadow_ended(current)
        else:
            self._shadow = Shadow(self.current, candidate, self._pairing)
            self._events.shadow_began(candidate.bundle.version, current)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that are not this process's any more."""
        for comparison in (self._canary, self._shadow):
            if comparison is not None:
                comparison.paired.forget(partitions)
