"""From rows to a bundle: scales and vocabularies, network, calibration on rows that the network never saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.errors import DataError
from worker.features.decode import Decoded, Row
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.model.bundle import Bundle, field_names, layout_of, pack
from worker.model.fit import MINIMUM_ROWS, FitOptions, Progress, fit_network
from worker.model.golden import golden_of
from worker.model.reconstruct import Reconstructor
from worker.model.rehearsal import KEEP_ROWS, drawn, reduced
from worker.model.scorer import Scorer
from worker.records import Message


def fit_bundle(
    schema: Schema,
    rows: Sequence[Row],
    options: FitOptions,
    *,
    created_at: str,
    progress: Progress | None = None,
    facts: dict[str, Any] | None = None,
    keep_rows: int = KEEP_ROWS,
) -> Bundle:
    """Learn a model version from JSON objects, unlabelled and mostly ordinary.

    Rows that don't fit the schema are left out and counted. created_at: RFC 3339, UTC; not part of the version.
    facts: added to the report. keep_rows: how many of the rows go into the bundle for later fits, reduced to what the
    model sees. DataError where too few rows are left.
    """
    fitted = fit_vectorizer(schema, rows)
    messages = [Message("", 0, index, -1, None, b"") for index in range(len(rows))]
    vectors = Vectorizer(schema, fitted).transform(Decoded(list(messages), list(rows), [], 0))
    if len(vectors.rows) < MINIMUM_ROWS:
        raise DataError(
            f"{len(vectors.rows)} usable records are too few to learn from, at least {MINIMUM_ROWS} are needed; "
            f"{len(vectors.rejects)} others did not fit the schema"
            + (f" (the first: {vectors.rejects[0].detail})" if vectors.rejects else "")
        )
    layout = layout_of(fitted)
    fit = fit_network(layout, vectors.numeric, vectors.codes, options, progress)
    numeric, codes = vectors.numeric[fit.held_out], vectors.codes[fit.held_out]
    scorer, fields = Scorer(fit.network, len(field_names(fitted))), field_names(fitted)
    learned = np.setdiff1d(np.arange(len(vectors.rows)), fit.held_out)
    chosen = learned[drawn(len(learned), keep_rows, options.seed)].tolist()
    errors = Reconstructor(fit.network).rows(numeric, codes).field_errors(fitted.numeric_fields, fitted.code_fields)
    return pack(
        created_at=created_at,
        schema=schema,
        fitted=fitted,
        network=fit.network,
        calibration=scorer.score(numeric, codes),
        field_errors=np.array([errors[name].mean() for name in fields]),
        golden=golden_of(scorer, numeric, codes),
        rehearsal=[reduced(schema, vectors.rows[index]) for index in chosen],
        report={**fit.report.to_json(), "rejected_rows": len(vectors.rejects), **(facts or {})},
    )
