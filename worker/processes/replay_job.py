"""Wires one replay: schema, model, pipeline, what-if questions, results."""

import argparse
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from worker.cli.progress import fit_progress
from worker.cli.replay_progress import tracked
from worker.errors import BundleError, UsageError
from worker.features.image import Image
from worker.features.infer import infer_schema
from worker.features.schema import Schema, load_schema
from worker.model.learn import fit_bundle
from worker.model.store.bundle import Bundle
from worker.processes.replay_input import Input, check_labels, open_input, peek, warn
from worker.processes.replay_refits import Refits
from worker.processes.wiring import (
    fit_options,
    for_tables,
    make_decoder,
    make_pipeline,
    model_builder,
    model_store,
    threshold_factory,
    utc_now,
)
from worker.replay.evaluate.compare import Comparison
from worker.replay.evaluate.sweep import Sweep
from worker.replay.report.report import Facts, render
from worker.replay.report.sections import compare_section, refits_section, sweep_section
from worker.replay.run.lines import Line
from worker.replay.run.loop import Observer, Result, replay, split_for_fit
from worker.replay.run.outputs import METRICS_FILE, REPORT_FILE
from worker.replay.run.planted import plant_into
from worker.settings import Settings, ThresholdSettings, leaves, shown
from worker.sources.files import reads_tables
from worker.thresholds.factory import ThresholdFactory

PEEK = 50_000  # records looked at first where schema or model are missing
AUTO_FIT = 10_000  # records to fit on where nobody said how many; at most a fifth of those looked at
SAMPLE_FIT = 20_000

_RULE_VALUES = ("fixed", "training_quantile", "contamination")  # settings that are the one number of a rule

Batches = Iterator[list[Line]]


class Job:
    """One replay as the command line asked for it. `findings`: lines for the summary."""

    def __init__(self, settings: Settings, args: argparse.Namespace) -> None:
        self._settings = for_tables(settings) if args.sample or reads_tables(args.file, args.format) else settings
        self._args = args
        self._sweeps = parse_sweep(args.sweep, settings.threshold) if args.sweep else {}
        self._image: Image | None = None
        self.findings: list[str] = []

    def run(self, folder: Path) -> Result:
        """Replay and write all results into `folder`; the error of an input that broke off is in the result."""
        args = self._args
        stored = self._stored_bundle()
        schema = self._known_schema(stored)
        self._image = schema.image if schema is not None else None
        source = open_input(self._settings, args, schema)
        head, batches = peek(source.batches, 1 if stored else PEEK)
        check_labels(head, source.labels, make_decoder(self._settings))
        bundle, fitted, batches = self._choose_model(stored, self._final_schema(schema, head), batches, len(head))
        if args.inject:
            batches = self._plant(batches, bundle.schema)
        labelled = source.labels is not None or bool(args.inject)
        return self._replay(source, bundle, batches, folder, labelled=labelled, fitted=fitted)

    def _stored_bundle(self) -> Bundle | None:
        args = self._args
        if args.fit_first or (args.sample and not args.model):
            return None
        store = model_store(self._settings)
        return store.load(args.model) if args.model or store.current() else None

    def _known_schema(self, stored: Bundle | None) -> Schema | None:
        """The schema that is known before the first record is read."""
        if self._args.schema:
            return load_schema(self._args.schema)
        if stored is not None:
            return stored.schema
        if self._args.sample:
            from worker.demo.traffic import SCHEMA_FILE

            return load_schema(SCHEMA_FILE)
        return load_schema(self._settings.schema_file) if Path(self._settings.schema_file).exists() else None

    def _hidden(self) -> list[str]:
        """Fields that must not reach the model."""
        return [*([self._args.label] if self._args.label else []), *self._args.ignore]

    def _final_schema(self, known: Schema | None, head: list[Line]) -> Schema:
        if known is not None:
            return known
        rows = make_decoder(self._settings).decode(head).rows
        proposal = infer_schema(rows, self._hidden())
        kinds = ", ".join(f"{field.name} ({field.kind})" for field in proposal.schema.encoded)
        warn(f"no schema given, so one was proposed from {len(rows)} records: {kinds}")
        return proposal.schema

    def _choose_model(
        self, stored: Bundle | None, schema: Schema, batches: Batches, head: int
    ) -> tuple[Bundle, int, Batches]:
        """The bundle to score with, how many records it was fitted on here, and the batches that are left."""
        seen = schema.without(self._hidden())
        if stored is not None:
            if stored.schema.fingerprint != schema.fingerprint:
                stored.require_schema(seen)
            require_unseen(stored, self._hidden())
            return stored, 0, batches
        count = self._args.fit_first or (SAMPLE_FIT if self._args.sample else min(AUTO_FIT, max(1, head // 5)))
        if not self._args.fit_first and not self._args.sample:
            warn(
                f"no model in {self._settings.model_store}: fitting one on the first {count} records (see --fit-first)"
            )
        bundle, rest = self._fit(seen, batches, count)
        return bundle, count, rest

    def _fit(self, schema: Schema, batches: Batches, count: int) -> tuple[Bundle, Batches]:
        settings, labelled = self._settings, bool(self._args.label or self._args.labels or self._args.sample)
        chosen, rest = split_for_fit(batches, count, normal_only=labelled and self._args.fit_on == "normal")
        rows = make_decoder(settings).decode(chosen).rows
        options = fit_options(settings.model, settings.seed)
        with fit_progress() as progress:
            return fit_bundle(schema, rows, options, created_at=utc_now(), progress=progress), rest

    def _plant(self, batches: Batches, schema: Schema) -> Batches:
        settings = self._settings
        return plant_into(
            batches,
            schema,
            share=self._args.inject,
            seed=settings.seed,
            batch_size=settings.batch.size,
            decoder=make_decoder(settings, any_size=True),
        )

    def _replay(
        self, source: Input, bundle: Bundle, batches: Batches, folder: Path, *, labelled: bool, fitted: int
    ) -> Result:
        settings, seed = self._settings, self._settings.seed
        build = model_builder(settings, latent=self._args.latent)
        sweep = Sweep(self._sweeps, bundle) if self._sweeps else None
        comparison = self._comparison(folder, labelled=labelled)
        pipeline = make_pipeline(settings, build(bundle), self._args.partitions)
        every, partitions = self._args.refit_every, self._args.partitions
        refits = Refits(settings, pipeline, build, every, partitions) if every else None
        observers: list[Observer] = [entry for entry in (sweep, comparison, refits) if entry is not None]
        with tracked(batches, source.meter) as watched:
            cut = refits.batches(watched) if refits is not None else watched
            result = replay(
                cut, pipeline, folder, labelled=labelled, latent=self._args.latent, observers=observers, seed=seed
            )
        metrics = result.metrics
        metrics |= {"fit_records": fitted, "blank_lines": source.reader.blank_lines}
        sections = []
        if sweep is not None:
            metrics["sweep"] = sweep.rows(metrics["days"])
            sections.append(sweep_section(self._args.sweep.partition("=")[0], metrics["sweep"]))
            self.findings += [f"{row['setting']}: {row['alerts']:,} alerts" for row in metrics["sweep"]]
        if comparison is not None:
            metrics["compare"] = comparison.finish(folder, result.tally, metrics, seed=seed)
            sections.append(compare_section(metrics))
            self.findings.append(metrics["compare"]["verdict"])
        if refits is not None:
            metrics["refits"] = refits.verdicts
            sections.append(refits_section(refits.verdicts))
            self.findings += refits.findings()
        image = self._image or bundle.schema.image
        self._write(result, Facts(source.names, bundle, _shown(settings), _version(), sections, image), folder)
        self._tell(source, metrics)
        return result

    def _comparison(self, folder: Path, *, labelled: bool) -> Comparison | None:
        name = self._args.compare
        if not name:
            return None
        settings = self._settings
        bundle = model_store(settings).load(name)
        require_unseen(bundle, self._hidden())
        place = folder / "compare"
        place.mkdir(exist_ok=True)
        return Comparison(
            make_pipeline(settings, model_builder(settings)(bundle), self._args.partitions), place, labelled=labelled
        )

    def _write(self, result: Result, facts: Facts, folder: Path) -> None:
        (folder / METRICS_FILE).write_bytes(orjson.dumps(result.metrics, option=orjson.OPT_INDENT_2) + b"\n")
        (folder / REPORT_FILE).write_text(render(result, facts, folder), encoding="utf-8")

    def _tell(self, source: Input, metrics: dict[str, Any]) -> None:
        for path in source.empty:
            warn(f"{path} holds no records")
        if metrics["backward_times"]:
            warn(f"time runs backwards: {metrics['backward_times']} records are older than one before them")
        if source.labels is not None and metrics["labelled"] < metrics["scored"]:
            warn(f"{metrics['scored'] - metrics['labelled']} records have no {source.labels.field!r}: not evaluated")


def require_unseen(bundle: Bundle, hidden: Iterable[str]) -> None:
    """BundleError where the model was fitted on a field that it must not see."""
    for name in hidden:
        if bundle.schema.without([name]).encoded != bundle.schema.encoded:
            raise BundleError(
                f"model {bundle.version} was fitted on {name!r}: it would see the answer; fit one without it"
            )


def parse_sweep(text: str, base: ThresholdSettings) -> dict[str, ThresholdFactory]:
    """threshold.NAME=A,B,C as a factory of thresholds for each value; UsageError for anything else."""
    name, _, values = text.partition("=")
    room, _, key = name.partition(".")
    if room != "threshold" or key not in ThresholdSettings.model_fields or not values:
        known = ", ".join(f"threshold.{key}" for key in ThresholdSettings.model_fields)
        raise UsageError(f"--sweep {text}: must be NAME=A,B,C with NAME one of {known}")
    try:
        rule: dict[str, Any] = {"rule": key.replace("_", "-")} if key in _RULE_VALUES else {}
        settings = {
            value: ThresholdSettings(**{**base.model_dump(), key: value, **rule})
            for value in values.split(",")
            if value.strip()
        }
    except ValidationError as error:
        raise UsageError(f"--sweep {text}: {error.errors()[0]['msg']}") from None
    return {value: threshold_factory(chosen) for value, chosen in settings.items()}


def _shown(settings: Settings) -> dict[str, str]:
    """Every setting that bears on a replay, as a person may see it."""
    found = {}
    for variable, path, _ in leaves(Settings):
        value: Any = settings
        for part in path.split("."):
            value = getattr(value, part)
        if not path.startswith(("http", "log", "breaker", "kafka")):
            found[variable] = shown(variable, value)
    return found


def _version() -> str:
    return f"kafka-anomaly-worker {version('kafka-anomaly-worker')}"
