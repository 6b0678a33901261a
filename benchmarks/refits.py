"""The trainer on seeded streams: `python -m benchmarks.refits` prints the table of docs/measurements.md.

For each stream: refits that took over, and before -> after, without the trainer -> with it, on the records that count.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from devtools.refit_streams import SCHEMA, STREAMS, Stream
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.pipeline import Model, Pipeline
from worker.ranking import roc_auc_of_scores
from worker.records import BoolArray, FloatArray
from worker.thresholds.factory import ThresholdFactory
from worker.trainer.reservoir import Reservoir
from worker.trainer.trainer import Decision, Trainer, TrainerVerdict

QUANTILE = 0.99
EVERY = 5_000
CREATED = "2026-01-01T00:00:00.000Z"


@dataclass(slots=True)
class Run:
    """What came of a stream.

    score, alert   of each record, (T,)
    verdicts       one a check
    swapped        records at which a version took over
    """

    score: FloatArray
    alert: BoolArray
    verdicts: list[TrainerVerdict] = field(default_factory=list)
    swapped: list[int] = field(default_factory=list)

    def recall(self, stream: Stream, start: int, end: int | None = None) -> float:
        """Share of the anomalies between two records that were alerted."""
        return float(self.alert[start:end][stream.truth[start:end] != ""].mean())

    def false_alerts(self, stream: Stream, start: int, end: int | None = None) -> float:
        """Share of the normal records between two records that were alerted."""
        return float(self.alert[start:end][stream.truth[start:end] == ""].mean())

    def ranking(self, stream: Stream, start: int, end: int | None = None) -> float:
        """ROC-AUC between two records."""
        anomalous = stream.truth[start:end] != ""
        return roc_auc_of_scores(self.score[start:end][~anomalous], self.score[start:end][anomalous])


def first_model(stream: Stream, steps: int) -> Model:
    """Fitted on the rows that the stream gives for it."""
    return Model(fit_bundle(SCHEMA, stream.fit_on, FitOptions(steps=steps), created_at=CREATED))


def run(stream: Stream, model: Model, *, trainer: Callable[[Model], Trainer] | None = None, every: int = EVERY) -> Run:
    """The stream through the pipeline; a check every so many records where there is a trainer."""
    pipeline = Pipeline(
        model,
        threshold_factory=ThresholdFactory(quantile=QUANTILE),
    )
    watching = trainer(model) if trainer is not None else None
    messages = list(stream.messages())
    outcome = Run(np.empty(len(messages)), np.zeros(len(messages), np.bool_))
    for start in range(0, len(messages), every):
        scores = pipeline.process(messages[start : start + every]).scores
        outcome.score[start : start + every], outcome.alert[start : start + every] = scores.score, scores.alert
        if watching is None:
            continue
        watching.observe(scores)
        verdict, candidate = watching.check(CREATED)
        outcome.verdicts.append(verdict)
        if verdict.decision is Decision.PROMOTED and candidate is not None:
            outcome.swapped.append(start + every)
            pipeline.swap(candidate)
            watching.use(candidate)
    return outcome


def make_trainer(steps: int) -> Callable[[Model], Trainer]:
    """As by default."""
    return lambda model: Trainer(
        model,
        Model,
        options=FitOptions(steps=steps),
        reservoir=Reservoir(100_000, half_life_s=86_400),
        decoder=JsonDecoder(),
    )


def table(seeds: int, steps: int, names: list[str]) -> Iterable[str]:
    """A row for each stream and seed."""
    yield "| stream | seed | took over at | part | recall | false alert rate | ROC-AUC |"
    yield "|---|---|---|---|---|---|---|"
    for make in STREAMS:
        if names and make.__name__ not in names:
            continue
        for seed in range(seeds):
            stream = make(seed)
            model = first_model(stream, steps)
            without, with_it = run(stream, model), run(stream, model, trainer=make_trainer(steps))
            swaps = ", ".join(f"{record:,}" for record in with_it.swapped) or "never"
            for part, (start, end) in stream.parts.items():
                cells = [
                    " → ".join(f"{getattr(side, name)(stream, start, end):{shape}}" for side in (without, with_it))
                    for name, shape in (("recall", ".2f"), ("false_alerts", ".4f"), ("ranking", ".3f"))
                ]
                yield f"| {stream.name} | {seed} | {swaps} | {part} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="streams of each kind, 3 by default")
    parser.add_argument("--steps", type=int, default=3_000, help="of each fit")
    parser.add_argument("--streams", nargs="*", default=[], help=f"of {', '.join(make.__name__ for make in STREAMS)}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for row in table(args.seeds, args.steps, args.streams):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
