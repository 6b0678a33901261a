"""From rows to a bundle: scales and vocabularies, network, calibration on rows that the network never saw."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.errors import DataError, SettingsError
from worker.features.fitted import Fitted
from worker.features.learned import unexpected_text
from worker.features.paths import read_field
from worker.features.schema import Schema
from worker.features.unread import unread_note
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer
from worker.formats.base import Decoded, Row
from worker.model.network.autoencoder import Autoencoder, Layout
from worker.model.network.fit import MIN_ROWS, FitOptions, Progress, fit_network
from worker.model.network.loss import MissingPattern
from worker.model.presets import require_score
from worker.model.scoring.score import SCORES, Score
from worker.model.scoring.scorer import Reconstructor, round_significant
from worker.model.scoring.usual import Columns, Usual, chance_of_unknown, measure_usual
from worker.model.store.bundle import KEEP_ROWS, Bundle, field_names, golden_of, make_scorer, named, pack_rehearsal
from worker.records import NO_TIME, TimeArray
from worker.redaction import NOTHING, Redaction
from worker.thresholds.factory import ThresholdRule

Encoded = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Rows (B, N), (B, C)."""

MAX_OUTSIDE = 0.05
"""Share of a column's training values that may lie outside its known range: more is a wrong range."""


def fit_bundle(
    schema: Schema,
    rows: Sequence[Row],
    options: FitOptions,
    *,
    created_at: str,
    progress: Progress | None = None,
    facts: dict[str, Any] | None = None,
    keep_rows: int = KEEP_ROWS,
    redaction: Redaction = NOTHING,
) -> Bundle:
    """Learn a model version from JSON objects, unlabelled and mostly normal.

    Rows that can't be used are left out, unexpected values are missing; both are counted. DataError where too few rows
    are left, SettingsError where the options don't fit them.

        schema      the fields of a record
        rows        records; numbers are scaled and vocabularies built from all of them
        options     the recipe
        created_at  RFC 3339, UTC; not part of the version
        progress    called after each measurement
        facts       added to the report
        keep_rows   how many of the rows go into the bundle for later fits, reduced to what the model sees
        redaction   fields of which the version must hold no value, beside those that the schema redacts
    """
    redaction = redaction.also(schema.redacted)
    require_score(options)
    fitted = fit_vectorizer(schema, rows, options.preprocessing, redaction)
    fields = field_names(fitted)
    unknown = next((name for name, _ in options.field_weights if name not in fields), None)
    if unknown is not None:
        raise SettingsError(
            f"[model.field_weights] names {unknown!r}: allowed are the fields that the model sees: {', '.join(fields)}"
        )
    vectors = Vectorizer(fitted, redaction).transform(Decoded.of_rows(rows))
    if len(vectors.rows) < MIN_ROWS:
        raise DataError(
            f"{len(vectors.rows)} usable records are too few to learn from, at least {MIN_ROWS} are needed; "
            f"{len(vectors.rejects)} others did not fit the schema"
            + (f" (the first: {vectors.rejects[0].detail})" if vectors.rejects else "")
        )
    numeric, notes = _within_range(vectors.numeric, fitted) if options.output == "sigmoid" else (vectors.numeric, [])
    layout = Layout(len(fitted.numeric), fitted.widths)
    score = Score(options.score, options.field_weights)
    pattern = pattern_of(fitted, vectors) if SCORES[score.kind].is_relative else None
    network, fit, fitted_on, held_out = fit_network(layout, numeric, vectors.category_ids, options, progress, pattern)
    learned, held = ((vectors.numeric[index], vectors.category_ids[index]) for index in (fitted_on, held_out))
    usual = usual_of(network, fitted, held, vectors.category_ids)
    training = np.sort(make_scorer(network, fitted, score, usual).score(*learned))
    if options.scale_score:
        score = replace(score, low=float(training[0]), high=float(training[-1]))
        training = np.sort(make_scorer(network, fitted, score, usual).score(*learned))
    scorer = make_scorer(network, fitted, score, usual)
    unread = unread_note(schema, rows)
    report = {
        **asdict(fit),
        "preset": options.preset,
        "notes": [*notes, *_unexpected_notes(schema, vectors, redaction), *fit.notes, *filter(None, [unread])],
        "rejected_rows": len(vectors.rejects),
        "unexpected_values": {name: int(bits.sum()) for name, bits in vectors.unexpected.items()},
        **_event_times(vectors.event_time_ms),
        **(facts or {}),
    }
    hidden, kept = fitted.redacted, [vectors.rows[index] for index in fitted_on]
    return named(
        Bundle(
            version="",
            created_at=created_at,
            schema=schema,
            fitted=fitted,
            network=network,
            calibration=np.sort(scorer.score(*held)) if options.holdout else training,
            usual=usual,
            report=report,
            score=score,
            rule=ThresholdRule(options.rule, options.rule_value),
            training=training,
            golden=golden_of(scorer, *held, [at for at, name in enumerate(fitted.numeric_fields) if name in hidden]),
            rows_file=pack_rehearsal(fitted, kept, keep_rows, options.seed, redaction),
        )
    )


def _unexpected_notes(schema: Schema, vectors: Vectors, redaction: Redaction) -> list[str]:
    """What to say of values that can't be read, with the reason of one; none where all can."""
    counts = {name: int(bits.sum()) for name, bits in vectors.unexpected.items()}
    if not counts:
        return []
    name = max(counts, key=lambda name: counts[name])
    field = next(field for field in schema.fields if field.name == name)
    first = vectors.rows[int(vectors.unexpected[name].argmax())]
    complaint = None if redaction.touches(name) else field.complaint(read_field(first, name))
    return [unexpected_text(counts, len(vectors.rows), f"{name}: {complaint}" if complaint else "")]


def pattern_of(fitted: Fitted, vectors: Vectors) -> MissingPattern | None:
    """Which of the rows have which fields, with a made-up one that has all; None where each has all."""
    columns = Columns(fitted)
    present = columns.present(vectors.numeric, vectors.category_ids)
    if present.all():
        return None
    share = ((present.sum(0) + 1) / (len(present) + 1)).astype(np.float32)[columns.field]
    return MissingPattern(*map(torch.from_numpy, (share, columns.field, columns.imputed, columns.optional)))


def usual_of(network: Autoencoder, fitted: Fitted, held: Encoded, category_ids: NDArray[np.int32]) -> Usual:
    """What is usual of the fields: their errors in held-out rows, and new values by the ids of all rows (R, C)."""
    columns = Columns(fitted)
    by_field = Reconstructor(network).rows(*held).field_errors(fitted.numeric_fields, fitted.category_fields)
    unknown = dict(zip(fitted.category_fields, chance_of_unknown(fitted, category_ids).tolist(), strict=True))
    return measure_usual(
        np.stack([by_field[name] for name in columns.names], 1),
        columns.present(*held),
        np.array([unknown.get(name, 1.0) for name in columns.names]),
    )


def _event_times(event_time_ms: TimeArray) -> dict[str, Any]:
    """Between which times the rows lie; the middle 98% of them, for one absurd time would cover all there is."""
    times = event_time_ms[event_time_ms != NO_TIME]
    if not len(times):
        return {}
    return {"event_times_ms": np.quantile(times, [0.01, 0.99], method="inverted_cdf").astype(np.int64).tolist()}


def rescaled(bundle: Bundle, factor: float) -> Bundle:
    """The same model with every score multiplied by `factor`, above 0; to be given a version by `with_report`."""
    golden = bundle.golden
    return replace(
        bundle,
        score=bundle.score.times(factor),
        calibration=round_significant(bundle.calibration * factor),
        training=round_significant(bundle.training * factor),
        golden=None if golden is None else replace(golden, scores=round_significant(golden.scores * factor)),
    )


def _within_range(numeric: NDArray[np.float32], fitted: Fitted) -> tuple[NDArray[np.float32], list[str]]:
    """Rows (R, N) to fit a sigmoid output on, drawn into [0, 1], and a note for each column where that was needed.

    DataError where a column mostly leaves its range: then the range is wrong, not the records.
    """
    outside = ((numeric < 0) | (numeric > 1)).mean(0)
    notes = []
    for column, share in zip(fitted.numeric, outside.tolist(), strict=True):
        if share > MAX_OUTSIDE:
            low, high = column.center, column.center + column.scale
            raise DataError(
                f"field {column.field!r}: {share:.0%} of the records lie outside its range [{low:g}, {high:g}], "
                f"where a sigmoid output has no answer; correct range in the schema, at most {MAX_OUTSIDE:.0%} may"
            )
        if share > 0:
            notes.append(
                f"field {column.field!r}: {share:.2%} of the records lie outside its range; fitted at its ends"
            )
    return np.clip(numeric, 0.0, 1.0), notes
