"""Where the loop gets its model from, and what runs beside it: a canary after each swap, a candidate in the shadow.

    1. the watcher has a new current version ready: it takes over between two batches, and its predecessor goes on
       scoring a sample
    2. the canary finds fault: between the next two batches the predecessor takes over again, with its own
       thresholds; the watcher writes that into the store, as soon as it can
    3. the canary is over: the predecessor is let go

A batch is tried after it was delivered, so no alert waits for it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from worker.formats.base import Decoder
from worker.model.store.pointer import Mark, Status
from worker.pipeline import Model
from worker.records import Outcome, Partition
from worker.rollout.canary import Canary, CanaryVerdict
from worker.rollout.events import ModelEvents
from worker.rollout.shadow import Shadow
from worker.rollout.watcher import ModelWatcher, Ready
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

Thresholds = Mapping[Partition, PartitionThreshold]
MakeCanary = Callable[[Model, Model, Thresholds], Canary | None]
"""Of a new model against an old one with its thresholds."""


class Change(NamedTuple):
    """The model to go on with. thresholds: its own, where it has been in force before; None = from the calibration."""

    model: Model
    thresholds: Thresholds | None = None


class Models:
    """Asked by the loop on its own thread; must not block. This one has no other model and tries nothing."""

    def take(self) -> Change | None:
        """What to go on with, asked between two batches; None = as before."""
        return None

    def swapped(self, old: Model, thresholds: Thresholds) -> None:
        """What was taken is in force. old: the model that left; thresholds: those that it had."""

    def observe(self, outcome: Outcome) -> None:
        """A batch was delivered."""

    def forget(self, partitions: Collection[Partition]) -> None:
        """These partitions are not this process's any more."""


class TriedModels(Models):
    """The store's current version, as far as it proves itself.

    make_canary: None where there is none. threshold_factory: for the shadow, which sees a sample. before: what the
    model in force has to prove itself against, right from the start.
    """

    def __init__(
        self,
        watcher: ModelWatcher,
        current: Model,
        *,
        make_canary: MakeCanary,
        threshold_factory: ThresholdFactory,
        decoder: Decoder,
        events: ModelEvents,
        wall_clock: Callable[[], str],
        before: Model | None = None,
    ) -> None:
        self._watcher = watcher
        self._current = current
        self._make_canary = make_canary
        self._threshold_factory = threshold_factory
        self._decoder = decoder
        self._events = events
        self._wall_clock = wall_clock
        self._taken: Ready | None = None
        self._way_back: Change | None = None
        self._canary: Canary | None = None
        self._candidate: Model | None = None
        self._shadow: Shadow | None = None
        if before is not None:
            self._begin(before, {})

    def take(self) -> Change | None:
        """See Models."""
        if self._way_back is not None:
            change, self._way_back = self._way_back, None
            self._taken = Ready(change.model, needs_canary=False)
            return change
        ready = self._watcher.take()
        if ready is None:
            return None
        trial = self._canary
        if trial is not None and ready.model.bundle.version == trial.old.bundle.version:
            self._taken = Ready(trial.old, needs_canary=False)  # somebody else went back
            return Change(trial.old, trial.thresholds)
        self._taken = ready
        return Change(ready.model)

    def swapped(self, old: Model, thresholds: Thresholds) -> None:
        """See Models."""
        taken, trial = self._taken, self._canary
        self._taken = self._canary = None
        if taken is None:
            return
        self._current = taken.model
        if taken.needs_canary and trial is not None:
            self._begin(trial.old, trial.thresholds or {})  # old has not proved itself yet
        elif taken.needs_canary:
            self._begin(old, thresholds)
        elif trial is not None:
            self._events.canary_dropped(trial.new.bundle.version)
        self._stand_beside()

    def _begin(self, before: Model, thresholds: Thresholds) -> None:
        self._canary = self._make_canary(self._current, before, thresholds)
        if self._canary is not None:
            self._events.canary_began(self._current.bundle.version, before.bundle.version)

    def observe(self, outcome: Outcome) -> None:
        """See Models."""
        if self._canary is not None:
            verdict = self._canary.observe(outcome)
            if verdict is not None:
                self._end(self._canary, verdict)
        candidate = self._watcher.take_shadow()
        if candidate is not None:
            self._candidate = candidate
            self._stand_beside()
        if self._shadow is not None:
            tally, difference = self._shadow.observe(outcome)
            self._events.shadowed(tally)
            if difference is not None:
                self._events.compared(difference)

    def _end(self, trial: Canary, verdict: CanaryVerdict) -> None:
        self._canary = None
        self._events.canary_ended(verdict)
        if verdict.passed:
            return
        self._way_back = Change(trial.old, trial.thresholds)
        mark = Mark(Status.ROLLED_BACK, self._wall_clock(), "worker", verdict.why, dict(verdict.figures))
        self._watcher.reject(verdict.version, mark, current=verdict.before)

    def _stand_beside(self) -> None:
        """Begin to compare the candidate with the model in force; there is nothing to compare once it is that."""
        if self._candidate is None:
            return
        same = self._candidate.bundle.version == self._current.bundle.version
        self._shadow = None
        if not same:
            self._shadow = Shadow(
                self._current, self._candidate, threshold_factory=self._threshold_factory, decoder=self._decoder
            )
        self._events.shadow_began(self._candidate.bundle.version, None if same else self._current.bundle.version)

    def forget(self, partitions: Collection[Partition]) -> None:
        """See Models."""
        for trial in (self._canary, self._shadow):
            if trial is not None:
                trial.forget(partitions)
