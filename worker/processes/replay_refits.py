"""The trainer in a replay: its checks at fixed records, and what they lead to, as live."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.pipeline import Model, Pipeline
from worker.processes import wiring
from worker.records import Outcome
from worker.replay.lines import Batches, Line
from worker.rollout.rollout import Promotion, Rollout
from worker.settings import Settings
from worker.thresholds.budget import ALONE, PartitionCount
from worker.trainer.trainer import Decision

ROLLED_BACK = "rolled back"


class Refits:
    """Lets the trainer check every so many records, and the pipeline go on with what it promotes.

    An observer of the replay; its batches must end where checks are due: see `batches`.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        build: wiring.Build,
        every: int,
        partitions: PartitionCount = ALONE,
    ) -> None:
        self._pipeline = pipeline
        self._every = every
        self._records = 0
        self._rollout = Rollout(pipeline.model, wiring.make_pairing(settings, partitions))
        self._trainer = wiring.make_trainer(settings, pipeline.model, build)
        self.verdicts: list[dict[str, Any]] = []

    def batches(self, source: Iterable[list[Line]]) -> Batches:
        """The same lines, with a batch ending at each check: so the checks don't depend on the size of a batch."""
        position = 0
        for lines in source:
            start = 0
            while start < len(lines):
                end = min(len(lines), start + self._every - position % self._every)
                yield lines[start:end]
                position, start = position + end - start, end

    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:  # noqa: ARG002
        """Take a batch: as the record loop does after a delivery, and as the trainer when a check is due."""
        self._trainer.observe(outcome.scores)
        self._records += len(lines)
        ended = self._rollout.observe(outcome)
        if ended is not None and not ended.passed:
            self._rollout.swap(self._pipeline)
            self._trainer.use(self._pipeline.model)
            self._trainer.veto()  # what taught it that is still in the traffic
            self.verdicts.append(
                {
                    "check": self._trainer.checks,
                    "record": self._records,
                    "current": ended.previous,
                    "decision": ROLLED_BACK,
                    "reasons": [ended.why],
                    "candidate": ended.version,
                    "figures": {"canary": dict(ended.figures)},
                }
            )
        if self._records % self._every == 0:
            verdict, candidate = self._trainer.check(wiring.utc_now())
            self.verdicts.append(verdict.to_json() | {"record": self._records})
            if verdict.decision is Decision.PROMOTED and candidate is not None:
                self.promote(candidate)

    def promote(self, model: Model) -> None:
        """Go on with another model at once, on canary."""
        self._rollout.promote(Promotion(model))
        self._rollout.swap(self._pipeline)
        self._trainer.use(model)

    def findings(self) -> list[str]:
        """Lines for the summary."""
        counts = Counter(verdict["decision"] for verdict in self.verdicts)
        decisions = ", ".join(f"{count} {decision}" for decision, count in counts.items())
        return [f"checks of the trainer: {decisions or 'none, the input is too short'}"] + [
            f"  after {verdict['record']:,} records: {verdict['decision']}: {'; '.join(verdict['reasons'])}"
            for verdict in self.verdicts
            if verdict["candidate"]
        ]
