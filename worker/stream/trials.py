"""Where the loop gets its model from, and what runs beside it: a probation after each swap, a candidate in the shadow.

    1. the watcher has a new current version ready: it takes over between two batches, and its predecessor goes on
       scoring a sample
    2. the probation finds fault: between the next two batches the predecessor takes over again, with its own
       thresholds; the watcher writes that into the store, as soon as it can
    3. the probation is over: the predecessor is let go

A batch is tried after it was delivered, so no alert waits for it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from worker.detect.threshold import PartitionThreshold
from worker.model.pointer import Mark, Status
from worker.pipeline import MakeThreshold, Model
from worker.records import Outcome, Partition
from worker.stream.events import ModelEvents
from worker.stream.models import ModelWatcher, Ready
from worker.trial.probation import Probation, Verdict
from worker.trial.shadow import Shadow

Thresholds = Mapping[Partition, PartitionThreshold]
MakeProbation = Callable[[Model, Model, Thresholds], Probation | None]
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

    make_probation: None where there is none. make_threshold: for the shadow, which sees a sample. before: what the
    model in force has to prove itself against, right from the start.
    """

    def __init__(
        self,
        watcher: ModelWatcher,
        in_force: Model,
        *,
        make_probation: MakeProbation,
        make_threshold: MakeThreshold,
        events: ModelEvents,
        wall_clock: Callable[[], str],
        before: Model | None = None,
    ) -> None:
        self._watcher = watcher
        self._in_force = in_force
        self._make_probation = make_probation
        self._make_threshold = make_threshold
        self._events = events
        self._wall_clock = wall_clock
        self._taken: Ready | None = None
        self._way_back: Change | None = None
        self._probation: Probation | None = None
        self._candidate: Model | None = None
        self._shadow: Shadow | None = None
        if before is not None:
            self._begin(before, {})

    def take(self) -> Change | None:
        """See Models."""
        if self._way_back is not None:
            change, self._way_back = self._way_back, None
            self._taken = Ready(change.model, on_probation=False)
            return change
        ready = self._watcher.take()
        if ready is None:
            return None
        trial = self._probation
        if trial is not None and ready.model.bundle.version == trial.old.bundle.version:
            self._taken = Ready(trial.old, on_probation=False)  # somebody else went back
            return Change(trial.old, trial.thresholds)
        self._taken = ready
        return Change(ready.model)

    def swapped(self, old: Model, thresholds: Thresholds) -> None:
        """See Models."""
        taken, trial = self._taken, self._probation
        self._taken = self._probation = None
        if taken is None:
            return
        self._in_force = taken.model
        if taken.on_probation and trial is not None:
            self._begin(trial.old, trial.thresholds or {})  # old has not proved itself yet
        elif taken.on_probation:
            self._begin(old, thresholds)
        elif trial is not None:
            self._events.probation_dropped(trial.new.bundle.version)
        self._stand_beside()

    def _begin(self, before: Model, thresholds: Thresholds) -> None:
        self._probation = self._make_probation(self._in_force, before, thresholds)
        if self._probation is not None:
            self._events.probation_began(self._in_force.bundle.version, before.bundle.version)

    def observe(self, outcome: Outcome) -> None:
        """See Models."""
        if self._probation is not None:
            verdict = self._probation.observe(outcome)
            if verdict is not None:
                self._end(self._probation, verdict)
        candidate = self._watcher.take_shadow()
        if candidate is not None:
            self._candidate = candidate
            self._stand_beside()
        if self._shadow is not None:
            tally, difference = self._shadow.observe(outcome)
            self._events.shadowed(tally)
            if difference is not None:
                self._events.compared(difference)

    def _end(self, trial: Probation, verdict: Verdict) -> None:
        self._probation = None
        self._events.probation_ended(verdict)
        if verdict.passed:
            return
        self._way_back = Change(trial.old, trial.thresholds)
        mark = Mark(Status.ROLLED_BACK, self._wall_clock(), "worker", verdict.why, dict(verdict.figures))
        self._watcher.reject(verdict.version, mark, in_force=verdict.before)

    def _stand_beside(self) -> None:
        """Begin to compare the candidate with the model in force; there is nothing to compare once it is that."""
        if self._candidate is None:
            return
        same = self._candidate.bundle.version == self._in_force.bundle.version
        self._shadow = None if same else Shadow(self._in_force, self._candidate, make_threshold=self._make_threshold)
        self._events.shadow_began(self._candidate.bundle.version, None if same else self._in_force.bundle.version)

    def forget(self, partitions: Collection[Partition]) -> None:
        """See Models."""
        for trial in (self._probation, self._shadow):
            if trial is not None:
                trial.forget(partitions)
