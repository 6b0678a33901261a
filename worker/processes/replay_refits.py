"""The trainer inside a replay, and the canary that follows: what both would have done with this traffic."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.model.store.bundle import Bundle
from worker.pipeline import Model, Pipeline
from worker.processes.wiring import make_canary, make_trainer, utc_now
from worker.records import Outcome
from worker.replay.run.lines import Line
from worker.rollout.canary import Canary
from worker.rollout.canary import CanaryVerdict as Ended
from worker.settings import Settings
from worker.trainer.trainer import Decision

ROLLED_BACK = "rolled back"


class Refits:
    """Lets the trainer look every so many records, and the pipeline go on with what it promotes.

    An observer of the replay; its batches must end where looks are due: see `batches`.
    """

    def __init__(
        self, settings: Settings, pipeline: Pipeline, build: Callable[[Bundle], Model], every: int, partitions: int = 1
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._pipeline = pipeline
        self._every = every
        self._records = 0
        self._canary: Canary | None = None
        self._trainer = make_trainer(settings, pipeline.model, build)
        self.verdicts: list[dict[str, Any]] = []

    def batches(self, source: Iterable[list[Line]]) -> Iterator[list[Line]]:
        """The same lines, with a batch ending at each look."""
        place = 0
        for lines in source:
            start = 0
            while start < len(lines):
                end = min(len(lines), start + self._every - place % self._every)
                yield lines[start:end]
                place, start = place + end - start, end

    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:  # noqa: ARG002
        """See Observer."""
        self._trainer.observe(outcome.scores)
        self._records += len(lines)
        trial = self._canary
        ended = trial.observe(outcome) if trial is not None else None
        if trial is not None and ended is not None:
            self._end(trial, ended)
        if self._records % self._every == 0:
            self._look()

    def _look(self) -> None:
        look = self._trainer.look(utc_now())
        self.verdicts.append(look.verdict.to_json() | {"record": self._records})
        if look.verdict.decision is Decision.PROMOTED and look.candidate is not None:
            self._promote(look.candidate)

    def _promote(self, model: Model) -> None:
        old, trial = self._pipeline.model, self._canary
        left = self._pipeline.swap(model)
        self._trainer.use(model)
        if trial is not None:  # old has not proved itself yet
            old, left = trial.old, trial.thresholds or {}
        self._canary = make_canary(self._settings, model, old, left, self._partitions)

    def _end(self, trial: Canary, ended: Ended) -> None:
        self._canary = None
        if ended.passed:
            return
        version = trial.new.bundle.version
        self._pipeline.swap(trial.old, trial.thresholds)
        self._trainer.use(trial.old)
        self._trainer.veto()
        self.verdicts.append(
            {
                "look": self._trainer.looks,
                "record": self._records,
                "champion": trial.old.bundle.version,
                "decision": ROLLED_BACK,
                "reasons": [ended.why],
                "candidate": version,
                "figures": {"canary": dict(ended.figures)},
            }
        )

    def findings(self) -> list[str]:
        """Lines for the summary."""
        counts = Counter(verdict["decision"] for verdict in self.verdicts)
        told = ", ".join(f"{count} {decision}" for decision, count in counts.items())
        return [f"looks of the trainer: {told or 'none, the input is too short'}"] + [
            f"  after {verdict['record']:,} records: {verdict['decision']}: {'; '.join(verdict['reasons'])}"
            for verdict in self.verdicts
            if verdict["candidate"]
        ]
