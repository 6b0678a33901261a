"""A bundle: all that one model version is, as plain files.

    manifest.json         schema, vocabularies, scales, architecture, score, threshold rule, report, sha256 of every
                          file and of itself
    weights.safetensors   the network, calibration and training scores, what is usual of each field, the golden rows
    rows.jsonl.gz         rehearsal rows, if kept: some of the records that it was fitted on

Nothing is unpickled. What is read of it is checked in worker.model.store.bundle_reader.

Checksums say that a bundle holds what was written. Golden rows say that this machine, with its libraries and its code,
makes of it what the fitting machine made of it: they find a worker whose encoding or network has changed meaning
between two releases, a miscompiled kernel, a GPU that computes in another precision.
"""

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors

from worker.errors import BundleError, Hint
from worker.features.fitted import Fitted
from worker.features.paths import value_of
from worker.features.schema import Schema
from worker.features.vectorize import conceal
from worker.formats.base import Row
from worker.model.network.autoencoder import Autoencoder
from worker.model.scoring.score import SCORES, Score
from worker.model.scoring.scorer import Scorer
from worker.model.scoring.usual import Columns, Usual, plain_weighing, relative_weighing
from worker.plain import read_json
from worker.records import FloatArray
from worker.redaction import NOTHING, Redaction, revive
from worker.thresholds.factory import ThresholdRule

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""What a version can be called, wherever its name comes from: no path, no hidden file, no option."""
FORMAT = 3  # part of what a version's name is the hash of
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ROWS = "rows.jsonl.gz"
KEEP_ROWS = 5000
LEFT_OUT = "-"
MAX_GOLDEN_ROWS = 64
RELATIVE = 1e-3
ABSOLUTE = 1e-5  # a score of nearly zero is a difference of large float32 numbers, see Autoencoder.squared_errors
SELF = "manifest_sha256"
SCORES_KEPT = ("calibration", "training")
MAX_MANIFEST_BYTES = 64 << 20
MAX_REHEARSAL_BYTES = 64 << 20  # unpacked


@dataclass(frozen=True, slots=True)
class Golden:
    """R rows, at most 64, and their scores.

    They say little about inputs that none of them has: a category that only other rows hold, a value far outside. A
    fault that shifts scores by less than a thousandth passes.

    numeric       float32 (R, N)
    category_ids  int32 (R, C)
    scores        float64 (R,)

    >>> from worker.model.network.autoencoder import Architecture, Autoencoder, Layout
    >>> scorer = Scorer(Autoencoder(Layout(2, (5,)), Architecture((4,))).eval(), fields=3)
    >>> golden = golden_of(scorer, np.ones((500, 2), np.float32), np.ones((500, 1), np.int32))
    >>> len(golden.scores)
    64
    >>> golden.check(scorer, "models/3f9a0c51d2e4")  # no BundleError

    Breck, E. et al. (2017): The ML test score: a rubric for ML production readiness. IEEE Big Data. (Tests that a model
    scores the same in training and in serving.)
    """

    numeric: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    scores: FloatArray

    def check(self, scorer: Scorer, where: str) -> None:
        """BundleError, naming the bundle, where the scorer gives other scores or none that are finite."""
        scores = scorer.score(self.numeric, self.category_ids)
        if not np.isfinite(scores).all():
            raise BundleError(f"{where}: scores of its golden rows are not finite")
        off = np.abs(scores - self.scores) > RELATIVE * np.abs(self.scores) + ABSOLUTE
        if off.any():
            row = int(off.argmax())
            raise BundleError(
                f"{where}: {off.sum()} of {len(off)} golden rows score otherwise than on the machine that fitted it "
                f"(row {row}: {scores[row]:.6g}, there {self.scores[row]:.6g}; allowed are {RELATIVE:.1%})"
            )


def golden_of(
    scorer: Scorer, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], redacted: Sequence[int] = ()
) -> Golden:
    """Up to 64 rows, evenly spaced among these (B, N), (B, C), and their scores; numbers of the redacted columns are
    rounded to eighths of their scale."""
    chosen = np.unique(np.linspace(0, len(numeric) - 1, min(MAX_GOLDEN_ROWS, len(numeric))).round().astype(np.int64))
    rows = np.ascontiguousarray(numeric[chosen]), np.ascontiguousarray(category_ids[chosen])
    for column in redacted:
        rows[0][:, column] = np.round(rows[0][:, column] * 8) / 8
    return Golden(*rows, scorer.score(*rows))


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model version.

    version       hash of its content, see `named`
    created_at    RFC 3339, UTC; not part of the version
    schema        the fields of a record, as it was fitted; fitted: scales and vocabularies
    network       on the CPU
    calibration   held-out scores, sorted, float64 (n,): what a rolling threshold starts from
    usual         what is usual of the errors of each of `fields`
    report        what the fit did and what was decided since, plain data
    score         which error, in which range
    rule          the threshold that this model asks for, where no setting says otherwise
    training      scores of the fitted records, sorted, float64 (m,)
    golden        rows whose scores are compared on load; None = none
    rows_file     the rehearsal rows, packed; empty = none
    """

    version: str
    created_at: str
    schema: Schema
    fitted: Fitted
    network: Autoencoder
    calibration: FloatArray
    usual: Usual
    report: dict[str, Any]
    score: Score
    rule: ThresholdRule
    training: FloatArray
    golden: Golden | None = None
    rows_file: bytes = b""

    @property
    def fields(self) -> tuple[str, ...]:
        """Those that a score is the mean over."""
        return field_names(self.fitted)

    def scorer(self, device: str = "cpu") -> Scorer:
        """What scores records by this version."""
        return make_scorer(self.network, self.fitted, self.score, self.usual, device)

    @property
    def rehearsal(self) -> tuple[dict[str, Any], ...]:
        """Some of the records that it was fitted on, reduced to what the model sees; unpacked at each call."""
        rows = map(orjson.loads, gzip.decompress(self.rows_file).splitlines()) if self.rows_file else ()
        return tuple(revive(row, self.fitted.redacted) for row in rows)

    def require_schema(self, schema: Schema) -> None:
        """BundleError, naming both fingerprints, where this bundle was made for another schema."""
        if schema.fingerprint != self.schema.fingerprint:
            raise BundleError(
                f"model {self.version} was made for the schema with fingerprint {self.schema.fingerprint}, "
                f"the schema file has {schema.fingerprint}",
                hint=Hint.FIT_FOR_THIS_SCHEMA,
            )


def field_names(fitted: Fitted) -> tuple[str, ...]:
    """The fields that a score is the mean over, in order of their first column."""
    return tuple(dict.fromkeys((*fitted.numeric_fields, *fitted.category_fields)))


def field_weights(score: Score, names: Sequence[str]) -> FloatArray:
    """The factor that somebody has set on the errors of each field, float64 (F,)."""
    weights = dict(score.weights)
    return np.array([weights.get(name, 1.0) for name in names])


def make_scorer(network: Autoencoder, fitted: Fitted, score: Score, usual: Usual, device: str = "cpu") -> Scorer:
    """A scorer of this score over these fitted fields."""
    columns = Columns(fitted)
    weights, weighing = field_weights(score, columns.names), None
    if SCORES[score.kind].is_relative:
        weighing = relative_weighing(columns, weights, usual)
    elif score.weights:
        weighing = plain_weighing(columns, weights)
    return Scorer(network, len(columns.names), device, score=score, weighing=weighing)


def with_report(bundle: Bundle, **facts: Any) -> Bundle:
    """The same model with more facts in its report, and so a version of its own."""
    return named(replace(bundle, report={**bundle.report, **facts}))


def named(bundle: Bundle) -> Bundle:
    """The bundle under its version, a hash of its content.

    Why a hash and no counter or time. Any process can fit and save without asking another for the next number, and two
    that fit the same (a retried job, a trainer that was killed after its save) write the same folder, not two. A name
    means one content for good, so alerts and scores that carry it can be traced to the very model, a worker that reads
    a folder while it is written again reads the same bytes, and a veto sticks to the content, however often it is
    fitted anew.

    What breaks if something is left out of the hash: two contents under one name, of which the second is never written,
    for a sound version that is there stays as it is. That is why all files count to the byte, and that is why
    `created_at` does not: the same fit would have a new name each time.
    """
    files = _weights(bundle) + bundle.rows_file
    content = hashlib.sha256(orjson.dumps(_content(bundle), option=orjson.OPT_SORT_KEYS) + files).hexdigest()
    return replace(bundle, version=content[:12])


def _weights(bundle: Bundle) -> bytes:
    tensors = {f"network.{name}": value.contiguous().cpu() for name, value in bundle.network.state_dict().items()}
    tensors |= {
        name: torch.tensor(getattr(bundle, name)) for name in SCORES_KEPT
    }  # copies: one array is not saved twice
    tensors |= {f"usual.{name}": torch.tensor(getattr(bundle.usual, name)) for name in Usual.__slots__}
    if bundle.golden is not None:
        tensors |= {f"golden.{name}": torch.from_numpy(getattr(bundle.golden, name)) for name in Golden.__slots__}
    return save_tensors(tensors)


def _content(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": bundle.schema.to_toml(),
        "schema_fingerprint": bundle.schema.fingerprint,
        "fitted": bundle.fitted.to_json(),
        "architecture": asdict(bundle.network.architecture),
        "score": asdict(bundle.score),
        "threshold": asdict(bundle.rule),
        "report": bundle.report,
    }


def to_files(bundle: Bundle) -> dict[str, bytes]:
    """The bundle as file name -> content; the manifest last, so that a copy that was cut short has none.

    BundleError where its vocabularies are too large for a manifest.
    """
    files = {WEIGHTS: _weights(bundle)}
    if bundle.rows_file:
        files[ROWS] = bundle.rows_file
    manifest = {
        **_content(bundle),
        "version": bundle.version,
        "created_at": bundle.created_at,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    manifest[SELF] = digest_of(manifest)
    content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    try:
        read_json(content, MAX_MANIFEST_BYTES)  # or nobody could load it
    except ValueError as error:
        raise BundleError(f"the manifest of {bundle.version} is {error}: fewer values in vocabularies") from error
    return {**files, MANIFEST: content}


def digest_of(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest, which is one of its own keys."""
    rest = {key: value for key, value in manifest.items() if key != SELF}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def rehearsal_draw(count: int, keep: int, seed: int) -> NDArray[np.int64]:
    """Which `keep` of so many rows: one out of each of `keep` equal parts, at random; all where they are fewer.

    Where rows come in the order of time, every part of the time span is there; a plain draw would leave that to chance.
    It works badly for what is rare: a kind of record that stands in one row of a thousand is kept as seldom. And over
    many refits an old population fades, because each draw takes from what the last one kept.

        count  rows that were fitted, in their order
        keep   how many to keep
        seed   the same for the same draw

    >>> rehearsal_draw(100, 5, seed=0).tolist()
    [17, 32, 50, 65, 86]

    Robins, A. (1995): Catastrophic forgetting, rehearsal and pseudorehearsal. Connection Science 7. One draw a part is
    stratified sampling (Cochran, W. G., 1977: Sampling techniques, chapter 5).
    """
    if count <= keep:
        return np.arange(count)
    borders = np.linspace(0, count, keep + 1).round().astype(np.int64)
    return np.random.default_rng(seed).integers(borders[:-1], borders[1:])


def pack_rehearsal(fitted: Fitted, rows: Sequence[Row], keep: int, seed: int, redaction: Redaction = NOTHING) -> bytes:
    """A draw of the rows as the vectorizer reads them: encoded fields by flat names, as gzip'ed JSON lines.

    Redacted fields are there as pseudonyms and rounded numbers. A field that is required stays though it is not
    encoded, or the row would be refused: an id as a dash. No rows, no bytes; the same rows give the same bytes. Fewer
    than `keep` where they are wide, see MAX_REHEARSAL_BYTES.
    """
    fields = sorted(fitted.schema.fields, key=lambda field: not field.encoded)
    is_shown = {field.name: field.encoded or not field.is_id for field in fields if field.encoded or field.required}
    lines = []
    drawn = [rows[index] for index in rehearsal_draw(len(rows), keep, seed)]
    for row in filter(None, conceal(fitted, redaction, drawn)):
        values = {name: value_of(row, name) if shown else LEFT_OUT for name, shown in is_shown.items()}
        present = {name: value for name, value in values.items() if value is not None}
        lines.append(orjson.dumps(present, option=orjson.OPT_APPEND_NEWLINE))
    while (size := sum(map(len, lines))) > MAX_REHEARSAL_BYTES:
        fewer = rehearsal_draw(len(lines), int(0.9 * len(lines) * MAX_REHEARSAL_BYTES / size), seed)
        lines = [lines[index] for index in fewer]
    return gzip.compress(b"".join(lines), 6, mtime=0) if lines else b""
