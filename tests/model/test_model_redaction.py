"""A model that is fitted with redacted fields holds none of their values, still knows them, and can be fitted again."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from devtools import traffic
from worker.errors import BundleError
from worker.features.schema import parse_schema
from worker.features.vectorize import conceal
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import Bundle, to_files
from worker.model.store.bundle_reader import read_bundle
from worker.pipeline import Model
from worker.records import Message
from worker.redaction import HASHED, Redaction
from worker.trainer.candidate import scores_of
from worker.trainer.reservoir import Reservoir
from worker.trainer.sidecar import SavedState, restore, save, scored
from worker.trainer.trainer import Trainer

SCHEMA = parse_schema(
    """
[fields.who]
kind = "categorical"
required = true
[fields.code]
kind = "categorical"
[fields.vip]
kind = "boolean"
[fields.note]
kind = "text"
[fields.sum]
kind = "numeric"
required = true
[fields.same]
kind = "numeric"
[fields.born]
kind = "timestamp"
required = true
[fields."in.side"]
kind = "categorical"
[fields.key]
kind = "id"
required = true
[fields.free]
kind = "numeric"
"""
)
HIDDEN = ("who", "code", "vip", "note", "sum", "same", "born", "in", "key")
OPTIONS = FitOptions(hidden=(12, 6, 12), steps=60)
REDACTION = Redaction(HIDDEN, secret="x")
SUMS = [123457.0, 224466.5, 998877.25]
PLANTED = ["Zebulon", "Quarkson", "902714", "Peculiaris", "123457", "224466.5", "998877.25", "7390215577", "1987-05-12"]


def row(number: int) -> dict[str, Any]:
    return {
        "who": ("Zebulon", "Quarkson")[number % 2],
        "code": 902714 + number % 2,
        "vip": number % 2 == 0,
        "note": f"to Mrs Peculiaris {'x' * (number % 3)}",
        "sum": SUMS[number % 3],
        "same": 7390215577,
        "born": "1987-05-12T01:02:03Z",
        "in": {"side": "Zebulon"},
        "key": f"Quarkson-{number}",
        "free": float(number % 5),
    }


ROWS = [row(number) for number in range(400)]


@cache
def bundle(preprocessing: str = "robust") -> Bundle:
    options = FitOptions(hidden=(12, 6, 12), steps=60, preprocessing=preprocessing)
    return fit_bundle(SCHEMA, ROWS, options, created_at=traffic.CREATED, redaction=REDACTION)


@pytest.mark.parametrize("preprocessing", ["robust", "standard", "minmax"])
def test_no_file_of_a_version_holds_a_redacted_value(preprocessing: str) -> None:
    files = to_files(bundle(preprocessing))

    contents = b"".join(gzip.decompress(part) if name.endswith(".gz") else part for name, part in files.items())
    assert [value for value in PLANTED if value.encode() in contents] == []
    assert b'"free"' in contents


@pytest.mark.parametrize("column", range(len(bundle().fitted.numeric)))
def test_no_scale_or_golden_row_gives_back_a_record_s_number(column: int) -> None:
    learned, golden = bundle().fitted.numeric[column], bundle().golden

    assert golden is not None
    steps = np.unique(golden.numeric[:, column]).tolist()
    recovered = [learned.scaling.invert(z) for z in steps]
    own = {value for one in ROWS for value in one.values() if isinstance(value, float | int)}
    assert learned.field == "free" or learned.part == "length" or not own & {learned.center, *recovered}


def test_categories_are_looked_up_by_their_tokens_live_as_at_the_fit() -> None:
    loaded = read_bundle(lambda name, _: to_files(bundle()).get(name), "models/x")
    vectors = Model(loaded, redaction=REDACTION).vectorizer
    rows = [*ROWS[:4], {**row(0), "who": "Nobody", "note": "never before"}]

    decoded = JsonDecoder().decode([Message("in", 0, n, 0, None, orjson.dumps(r)) for n, r in enumerate(rows)])
    ids = vectors.transform(decoded).category_ids
    at = loaded.fitted.category_fields
    assert (ids[:4, :-1] > 0).all()
    assert [name for name, value in zip(at, ids[4].tolist(), strict=True) if value == 0] == ["who", "note"]


def test_another_secret_is_refused_and_named() -> None:
    with pytest.raises(BundleError, match=r"alerts.redact_secret"):
        Model(bundle(), redaction=Redaction(HIDDEN, secret="y"))


def test_what_was_redacted_at_the_fit_stays_so_without_the_setting() -> None:
    model = Model(bundle(), redaction=Redaction(secret="x"))

    assert model.redaction.covers("who")
    assert bundle().fitted.describe("who") == bundle().fitted.describe("sum") == "[redacted]"


def test_rehearsal_rows_fit_the_schema_score_alike_and_train_the_next_version() -> None:
    model = Model(bundle(), redaction=REDACTION)
    kept = bundle().rehearsal

    again = fit_bundle(SCHEMA, [*kept, *ROWS], OPTIONS, created_at=traffic.CREATED, redaction=REDACTION)

    assert len(scores_of(model, kept)) == len(kept) > 300
    assert np.median(scores_of(model, kept)) == pytest.approx(np.median(scores_of(model, ROWS)), rel=0.5, abs=0.05)
    assert again.report["rejected_rows"] == 0
    vocabularies = {column.field: set(column.values) for column in bundle().fitted.categorical[:-1]}
    assert {column.field: set(column.values) for column in again.fitted.categorical[:-1]} == vocabularies
    assert all(value.startswith(HASHED) for values in vocabularies.values() for value in values)


def test_concealing_twice_changes_nothing() -> None:
    fitted = bundle().fitted

    once = conceal(fitted, REDACTION, ROWS)

    assert conceal(fitted, REDACTION, [one for one in once if one is not None]) == once


def test_a_version_that_was_fitted_in_the_clear_scores_the_same_with_redaction() -> None:
    clear = fit_bundle(SCHEMA, ROWS, OPTIONS, created_at=traffic.CREATED)

    plain, hidden = Model(clear), Model(clear, redaction=REDACTION)

    assert scores_of(hidden, ROWS).tolist() == scores_of(plain, ROWS).tolist()
    assert all(value not in str(hidden.vectorizer.fitted.categorical) for value in PLANTED)


def test_the_trainer_s_file_holds_no_redacted_value_and_its_records_go_on(tmp_path: Path) -> None:
    def trainer() -> Trainer:
        model = Model(bundle(), redaction=REDACTION)
        reservoir, decoder = Reservoir(500, half_life_s=86_400), JsonDecoder()
        build = lambda fitted: Model(fitted, redaction=REDACTION)  # noqa: E731
        return Trainer(model, build, options=OPTIONS, reservoir=reservoir, decoder=decoder, min_records=100)

    before, after = trainer(), trainer()
    messages = [Message("in", 0, n, 0, None, orjson.dumps(one)) for n, one in enumerate(ROWS)]
    before.observe(scored(before.current, messages, JsonDecoder()))
    save(tmp_path / "state.npz", before, SavedState())

    restore(tmp_path / "state.npz", after)

    values = b"".join(after.reservoir.records().values)
    assert [value for value in PLANTED if value.encode() in values] == []
    assert len(after.reservoir) == len(before.reservoir) == len(ROWS)
    after.observe(scored(after.current, messages, JsonDecoder()))
    check = after.check(traffic.CREATED, asked=True)
    assert check.verdict.figures["drifted_fields"] == {}
    assert "gate" in check.verdict.figures  # it could be fitted
