"""Wires one replay: schema, model, pipeline, what-if questions, the trainer where it is asked for, results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from worker.broker.topic_names import topic_names
from worker.errors import BundleError, DataError, UsageError
from worker.features.infer import SAMPLE_ROWS, infer_schema
from worker.features.learned import unexpected_text
from worker.features.schema import Schema, load_schema
from worker.features.unread import unread_note
from worker.formats.base import Decoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.processes import wiring
from worker.processes.rejects import Rejects
from worker.processes.replay_refits import Refits
from worker.replay.lines import (
    PEEK_BYTES,
    Batches,
    FieldLabels,
    IdLabels,
    Labels,
    Line,
    Reader,
    check_labels,
    peek,
    plant_into,
    split_for_fit,
)
from worker.replay.loop import Observer, Result, replay
from worker.replay.outputs import METRICS_FILE, REPORT_FILE
from worker.replay.overlap import FitOverlap, overlap_text
from worker.replay.report import Facts, render
from worker.replay.what_if import Comparison, Sweep
from worker.settings import Settings, ThresholdSettings, leaves, shown
from worker.sources.base import Meter, Source
from worker.texts import quoted
from worker.thresholds.budget import PartitionCount
from worker.thresholds.factory import RULES, ThresholdFactory

MISSPELT_RECORDS = 1_000  # in which redacted fields are looked for that the schema does not have
PEEK_RECORDS = 50_000  # looked at first where schema or model are missing
MAX_AUTO_FIT = 10_000  # records to fit on where no number is given; at most a fifth of those looked at


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What one replay is asked for.

    open_source   makes the source; is given the schema, where one is known before the first record is read
    partitions    of the topic, for a budget; records of files are spread over as many; None: those that the topic has
    key           field with the key of files' records
    schema        its file; None: the model's, the one of the settings, or one that is proposed from the first records
    model         version to score with; None: the current one, or one that is fitted on the first records
    fit_first     number of first records to fit a model on
    fit_on        normal: of those only the ones that are not labelled anomalous
    refit_every   records between two checks of the trainer
    label         field with the label; labels: a file with ids of anomalies instead; label_id: the field they are of
    inject        share of the records into which anomalies are planted
    ignore        fields that the model must not see
    sweep         a threshold setting and its values, NAME=A,B,C
    compare       a second version to compare with
    latent        whether latents are written and drawn
    """

    open_source: Callable[[Schema | None], Source]
    partitions: int | None = None
    key: str | None = None
    schema: str | None = None
    model: str | None = None
    fit_first: int | None = None
    fit_on: str = "normal"
    refit_every: int | None = None
    label: str | None = None
    labels: str | None = None
    label_id: str | None = None
    inject: float | None = None
    ignore: Sequence[str] = ()
    sweep: str | None = None
    compare: str | None = None
    latent: bool = False

    @property
    def hidden(self) -> list[str]:
        """Fields that must not reach a model."""
        return [*([self.label] if self.label else []), *self.ignore]


class Display(Protocol):
    """What a person sees while a replay runs."""

    def note(self, text: str) -> None:
        """One line."""

    def fit(self) -> AbstractContextManager[Progress]:
        """The progress of one fit."""

    def track(self, batches: Batches, meter: Meter) -> AbstractContextManager[Batches]:
        """The same batches, with their progress while they are taken."""


class Job:
    """One replay. `findings`: lines for its summary. UsageError (on creation) for a sweep that makes no sense."""

    def __init__(self, settings: Settings, request: ReplayRequest, display: Display) -> None:
        self._settings = settings
        self._request = request
        self._display = display
        self._sweeps = parse_sweep(request.sweep, settings.threshold) if request.sweep else {}
        self.findings: list[str] = []

    def run(self, folder: Path) -> Result:
        """Replay and write all results into `folder`; the error of an input that broke off is in the result."""
        request, note, store = self._request, self._display.note, wiring.model_store(self._settings)
        stored = store.load(request.model) if not request.fit_first and (request.model or store.current()) else None
        known = self._known_schema(stored)
        source = request.open_source(known)
        self._settings = settings = wiring.for_source(self._settings, source)
        labels = self._labels(known)
        decoder = wiring.make_decoder(settings)
        decoder_any_size = wiring.make_decoder(settings, any_size=True)
        reader = Reader(
            topic=next(iter(topic_names(settings.kafka.input_topic)), "replay"),  # of a topic they bring their own
            partitions=request.partitions or 1,
            key_field=request.key,
            labels=labels,
            batch_size=settings.batch.size,
            max_bytes=settings.batch.max_bytes,
            decoder=decoder_any_size,
            unfolding=decoder if decoder.unfolds else None,
        )
        head, batches = peek(reader.batches(source.blocks()), 1 if stored else PEEK_RECORDS)
        if labels is not None:
            check_labels(labels, head, decoder)
        schema = known
        if schema is None:
            rows = wiring.first_rows(decoder, head, SAMPLE_ROWS, source.name)
            proposal = infer_schema(rows, request.hidden)
            schema = proposal.schema
            kinds = quoted(", ".join(f"{field.name} ({field.kind})" for field in schema.encoded), 2000)
            note(f"no schema given, so one was proposed from {len(rows)} records: {kinds}")
            for text in proposal.lines():
                note(text)
            del rows
        self._note_misspelt(schema, decoder, head)
        auto_fit = auto_fit_records(head)
        del head
        bundle, fit_records, batches = self._choose_model(stored, schema, batches, auto_fit)
        if request.inject:
            batches = plant_into(
                batches,
                bundle.schema,
                share=request.inject,
                seed=settings.seed,
                batch_size=settings.batch.size,
                max_bytes=settings.batch.max_bytes,
                decoder=decoder_any_size,
            )
        facts = Facts(
            source.name,
            bundle,
            {  # what bears on a replay, as a person may see it
                variable: shown(variable, attrgetter(path)(settings))
                for variable, path, _ in leaves(Settings)
                if not path.startswith(("http", "log", "breaker", "kafka"))
            },
            f"kafka-anomaly-worker {version('kafka-anomaly-worker')}",
            (request.sweep or "").partition("=")[0],
            (known.image if known else None) or bundle.schema.image,
            wiring.make_redaction(settings).also(bundle.schema.redacted).also(bundle.fitted.redacted),
        )
        has_labels = labels is not None or bool(request.inject)
        result = self._replay(source, facts, batches, folder, labelled=has_labels, fitted_here=bool(fit_records))
        metrics = result.metrics
        metrics.update(fit_records=fit_records, blank_lines=reader.blank_lines, unreadable=source.unreadable.count)
        (folder / METRICS_FILE).write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2) + b"\n")
        (folder / REPORT_FILE).write_text(render(result, facts, folder), encoding="utf-8")
        for text in self._notes(result, source, labels):
            note(text)
        if result.fault is None and not metrics["scored"] and (text := _dead_text(result)):
            result.fault = DataError(f"{source.name}: {text}")
        return result

    def _notes(self, result: Result, source: Source, labels: Labels | None) -> Iterator[str]:
        """What a person should know of the input."""
        metrics = result.metrics
        yield from source.unreadable.notes()
        yield from (f"{path} holds no records" for path in source.empty)
        if text := overlap_text(metrics["fit_overlap"]):
            yield text
        if metrics["backward_times"]:
            yield f"time runs backwards: {metrics['backward_times']} records are older than one before them"
        unlabelled = metrics["scored"] - metrics["labelled"]
        if labels is not None and unlabelled:
            yield f"{unlabelled} records have no {labels.field!r}: not evaluated"
        if metrics["scored"] and (text := _dead_text(result)):
            yield text
        if metrics["unexpected_values"]:
            yield unexpected_text(metrics["unexpected_values"], metrics["scored"])

    def _note_misspelt(self, schema: Schema, decoder: Decoder, head: list[Line]) -> None:
        rows = decoder.decode(head[:MISSPELT_RECORDS]).rows
        if (unread := unread_note(schema, rows, misspelt=True)) is not None:
            self._display.note(unread)
        if (unknown := wiring.unknown_redacted(self._settings, schema, rows)) is not None:
            self._display.note(unknown)

    def _known_schema(self, stored: Bundle | None) -> Schema | None:
        """The schema that is known before the first record is read."""
        if self._request.schema:
            return load_schema(self._request.schema)
        if stored is not None:
            return stored.schema
        file = self._settings.schema_file
        return load_schema(file) if Path(file).exists() else None

    def _labels(self, schema: Schema | None) -> Labels | None:
        request = self._request
        if not request.labels:
            hidden = wiring.make_redaction(self._settings).also(schema.redacted if schema else ())
            return FieldLabels(request.label, hidden=hidden.covers(request.label)) if request.label else None
        id_field = request.label_id or (schema.ids[0] if schema and schema.ids else None)
        if id_field is None:
            raise UsageError("--labels needs --label-id: the field that holds the ids (the schema names none)")
        return IdLabels(request.labels, id_field)

    def _choose_model(
        self, stored: Bundle | None, schema: Schema, batches: Batches, auto_fit: int
    ) -> tuple[Bundle, int, Batches]:
        """The bundle to score with, how many records it was fitted on here, and the batches that are left."""
        request, settings = self._request, self._settings
        visible = schema.without(request.hidden)
        if stored is not None:
            if stored.schema.fingerprint != schema.fingerprint:
                stored.require_schema(visible)
            self._require_unseen(stored)
            return stored, 0, batches
        count = request.fit_first or auto_fit
        if not request.fit_first:
            self._display.note(
                f"no model in {settings.model_store}: fitting one on the first {count} records (see --fit-first)"
            )
        normal_only = bool(request.label or request.labels) and request.fit_on == "normal"
        chosen, left_out, rest = split_for_fit(batches, count, normal_only=normal_only)
        if left_out:
            self._display.note(f"the fit leaves out {left_out} of {count} records: more would fill the memory")
        decoded = wiring.make_decoder(settings).decode(chosen)
        rows = decoded.rows
        if not rows and decoded.rejects:
            raise DataError(f"none of the first {count} records has fields: {decoded.rejects[0].detail}")
        if decoded.rejects:
            rejects = Rejects()
            rejects.add(decoded)
            self._display.note(f"of those for the fit, {rejects.text}")
        del chosen, decoded
        options = wiring.fit_options(settings.model, settings.seed)
        with self._display.fit() as progress:
            bundle = fit_bundle(
                *(visible, rows, options),
                created_at=wiring.utc_now(),
                progress=progress,
                redaction=wiring.make_redaction(settings),
            )
        return bundle, count, rest

    def _require_unseen(self, bundle: Bundle) -> None:
        """BundleError where the model was fitted on a field that it must not see."""
        for name in self._request.hidden:
            if bundle.schema.without([name]).encoded != bundle.schema.encoded:
                raise BundleError(
                    f"model {bundle.version} was fitted on {name!r}: it would see the answer; fit one without it"
                )

    def _replay(
        self, source: Source, facts: Facts, batches: Batches, folder: Path, *, labelled: bool, fitted_here: bool
    ) -> Result:
        settings, request, seed = self._settings, self._request, self._settings.seed
        build = wiring.model_builder(settings, latent=request.latent)
        partitions = PartitionCount(lambda: request.partitions or source.partition_count)
        pipeline = wiring.make_pipeline(settings, build(facts.bundle), partitions)
        pipeline.topic_id_of = source.topic_ids.get
        sweep = Sweep(self._sweeps, facts.bundle) if self._sweeps else None
        comparison, compared_overlap = None, None
        if request.compare:
            other, other_folder = wiring.model_store(settings).load(request.compare), folder / "compare"
            self._require_unseen(other)
            other_folder.mkdir(exist_ok=True)
            model = wiring.model_builder(settings)(other)
            compared_overlap = FitOverlap(other.report)
            comparison = Comparison(wiring.make_pipeline(settings, model, partitions), other_folder, labelled=labelled)
        every = request.refit_every
        refits = Refits(settings, pipeline, build, every, partitions) if every else None
        overlap = FitOverlap(facts.bundle.report)
        asked = (overlap, compared_overlap, sweep, comparison, refits)
        observers: list[Observer] = [entry for entry in asked if entry is not None]
        with self._display.track(batches, source.meter) as tracked:
            result = replay(
                refits.batches(tracked) if refits is not None else tracked,
                pipeline,
                folder,
                labelled=labelled,
                latent=request.latent,
                observers=observers,
                seed=seed,
            )
        metrics = result.metrics
        metrics["fit_overlap"] = {"by": None, "records": 0} if fitted_here else overlap.finish(source.history())
        if sweep is not None:
            metrics["sweep"] = sweep.rows(metrics["days"])
            self.findings += [f"{row['setting']}: {row['alerts']:,} alerts" for row in metrics["sweep"]]
        if comparison is not None:
            metrics["compare"] = comparison.finish(folder, result.tally, metrics, seed=seed)
            self.findings.append(metrics["compare"]["verdict"])
            if compared_overlap is not None:
                known_records = metrics["compare"]["fit_overlap"] = compared_overlap.finish(source.history())
                self.findings += filter(None, [overlap_text(known_records)])
        if refits is not None:
            metrics["refits"] = refits.verdicts
            self.findings += refits.findings()
        return result


def _dead_text(result: Result) -> str:
    """How many records could not be scored, and why the first one; empty where all could."""
    dead = result.tally.dead_examples
    return f"{result.metrics['dead_letters']} records can't be scored; the first: {dead[0].detail}" if dead else ""


def auto_fit_records(head: Sequence[Line]) -> int:
    """How many records to fit on where nobody says: a fifth of those looked at; of large ones, which are few, all."""
    is_full = sum(len(line.value or b"") for line in head) >= PEEK_BYTES
    return min(MAX_AUTO_FIT, max(1, len(head) if is_full else len(head) // 5))


def parse_sweep(text: str, base: ThresholdSettings) -> dict[str, ThresholdFactory]:
    """threshold.NAME=A,B,C as a factory of thresholds for each value; UsageError for anything else."""
    name, _, values = text.partition("=")
    room, _, key = name.partition(".")
    if room != "threshold" or key not in ThresholdSettings.model_fields or not values:
        known = ", ".join(f"threshold.{key}" for key in ThresholdSettings.model_fields)
        raise UsageError(f"--sweep {text}: must be NAME=A,B,C with NAME one of {known}")
    rule = key.replace("_", "-")
    changed: dict[str, Any] = {"rule": rule} if rule in RULES else {}  # the number of a rule asks for that rule
    factories = {}
    for value in filter(str.strip, values.split(",")):
        try:
            settings = ThresholdSettings(**{**base.model_dump(), **changed, key: value})
        except ValidationError as error:
            raise UsageError(f"--sweep {text}: {error.errors()[0]['msg']}") from None
        factories[value] = wiring.threshold_factory(settings)
    return factories
