"""The trainer inside a replay: what `worker train` would have done beside this traffic."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.cli.wiring import make_trainer, utc_now
from worker.model.bundle import Bundle
from worker.pipeline import Model, Pipeline
from worker.records import Outcome
from worker.replay.read import Line
from worker.settings import Settings
from worker.trainer.trainer import Decision


class Refits:
    """Lets the trainer look every so many records, and the pipeline go on with what it promotes.

    An observer of the replay; its batches must end where looks are due: see `batches`.
    """

    def __init__(self, settings: Settings, pipeline: Pipeline, build: Callable[[Bundle], Model], every: int) -> None:
        self._pipeline = pipeline
        self._every = every
        self._records = 0
        self._trainer = make_trainer(settings, pipeline.model, build)
        self.verdicts: list[dict[str, Any]] = []
        self.promoted: list[Bundle] = []

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
        if self._records % self._every:
            return
        look = self._trainer.look(utc_now())
        self.verdicts.append(look.verdict.to_json() | {"record": self._records})
        if look.verdict.decision is Decision.PROMOTED and look.candidate is not None:
            self.promoted.append(look.candidate.bundle)
            self._pipeline.swap(look.candidate)
            self._trainer.use(look.candidate)

    def findings(self) -> list[str]:
        """Lines for the summary."""
        counts = dict.fromkeys(Decision, 0)
        for verdict in self.verdicts:
            counts[Decision(verdict["decision"])] += 1
        told = ", ".join(f"{count} {decision.value}" for decision, count in counts.items() if count)
        return [f"refits: {len(self.verdicts)} looks: {told or 'none'}"] + [
            f"  after {verdict['record']:,} records: {verdict['decision']}: {'; '.join(verdict['reasons'])}"
            for verdict in self.verdicts
            if verdict["candidate"]
        ]
