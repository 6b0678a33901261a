"""A bundle: all that one model version is, as plain files.

    manifest.json         schema, vocabularies, scales, architecture, score, threshold rule, report, sha256 of every
                          file and of itself
    weights.safetensors   the network, calibration and training scores, the mean error of each field, the golden rows
    rows.jsonl.gz         some of the records that it was fitted on, if kept (see worker.model.store.rehearsal)

Nothing is unpickled. A bundle that was cut short, flipped, mixed or made for another schema is refused on load.

Format 1 knew one score (mse) and one rule (rolling), and kept no training scores: its calibration stands for them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from worker.errors import BundleError, Hint, SchemaError, SettingsError
from worker.features.schema import Schema, parse_schema
from worker.features.vectorize import Fitted
from worker.model.network.autoencoder import Autoencoder, Layout, architecture_from
from worker.model.scoring.golden import Golden, golden_from
from worker.model.scoring.score import Score, score_from
from worker.model.scoring.scorer import Scorer
from worker.model.store.rehearsal import ROWS, unpack_rows
from worker.records import FloatArray
from worker.thresholds.factory import ThresholdRule

FORMAT = 2
READABLE = (1, 2)
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_SELF = "manifest_sha256"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model version.

    version       hash of its content, see `named`
    created_at    RFC 3339, UTC; not part of the version
    schema        the fields of a record, as it was fitted; fitted: scales and vocabularies
    network       on the CPU
    calibration   held-out scores, sorted, float64 (n,): what a rolling threshold starts from
    field_errors  mean held-out squared error of each of `fields`, float64 (F,)
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
    field_errors: FloatArray
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
        return make_scorer(self.network, self.fitted, self.score, device)

    @property
    def rehearsal(self) -> tuple[dict[str, Any], ...]:
        """Some of the records that it was fitted on, reduced to what the model sees; unpacked at each call."""
        return unpack_rows(self.rows_file)

    def require_schema(self, schema: Schema) -> None:
        """BundleError, naming both fingerprints, where this bundle was made for another schema."""
        if schema.fingerprint != self.schema.fingerprint:
            raise BundleError(
                f"model {self.version} was made for the schema with fingerprint {self.schema.fingerprint}, "
                f"the schema file has {schema.fingerprint}",
                hint=Hint.FIT_FOR_THIS_SCHEMA,
            )


def layout_of(fitted: Fitted) -> Layout:
    """The network's columns for these fitted features."""
    return Layout(len(fitted.numeric), fitted.widths)


def field_names(fitted: Fitted) -> tuple[str, ...]:
    """The fields that a score is the mean over, in order of their first column."""
    return tuple(dict.fromkeys((*fitted.numeric_fields, *fitted.category_fields)))


def field_weights(fitted: Fitted, score: Score) -> FloatArray:
    """The factor on each field's errors, float64 (F,), in the order of `field_names`."""
    weights = dict(score.weights)
    return np.array([weights.get(name, 1.0) for name in field_names(fitted)])


def make_scorer(network: Autoencoder, fitted: Fitted, score: Score, device: str = "cpu") -> Scorer:
    """A scorer of this score over these fitted fields."""
    fields = field_names(fitted)
    weights = None
    if score.weights:
        of_field = dict(zip(fields, field_weights(fitted, score), strict=True))
        weights = np.array([of_field[name] for name in (*fitted.numeric_fields, *fitted.category_fields)])
    return Scorer(network, len(fields), device, score=score, weights=weights)


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
    for name in ("calibration", "training", "field_errors"):
        tensors[name] = torch.tensor(getattr(bundle, name))  # a copy: two may be one array, which is not saved
    return save_tensors(tensors | (bundle.golden.tensors() if bundle.golden is not None else {}))


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
    """The bundle as file name -> content; the manifest last, so that a copy that was cut short has none."""
    files = {WEIGHTS: _weights(bundle)}
    if bundle.rows_file:
        files[ROWS] = bundle.rows_file
    manifest = {
        **_content(bundle),
        "version": bundle.version,
        "created_at": bundle.created_at,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    manifest[_SELF] = _digest(manifest)
    return {**files, MANIFEST: orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)}


def _digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != _SELF}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


Reader = Callable[[str], bytes]
"""A bundle's file by name; FileNotFoundError where there is none."""


def _read(read: Reader, name: str, where: str) -> bytes:
    try:
        return read(name)
    except FileNotFoundError as error:
        raise BundleError(f"{where}/{name}: no such file, this is not a whole model version") from error
    except OSError as error:
        raise BundleError(f"{where}/{name}: unreadable ({error})") from error


def read_manifest(read: Reader, where: str) -> dict[str, Any]:
    """The checked manifest of a bundle; BundleError where it is missing, broken or of another format."""
    path = f"{where}/{MANIFEST}"
    try:
        manifest = orjson.loads(_read(read, MANIFEST, where))
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{path}: unreadable ({error})") from error
    if not isinstance(manifest, dict) or manifest.get(_SELF) != _digest(manifest):
        raise BundleError(f"{path}: its checksum does not match, the file was changed after it was written")
    if manifest["format"] not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise BundleError(f"{path}: format {manifest['format']}, this worker reads the formats {known}")
    return manifest


def read_bundle(read: Reader, where: str) -> Bundle:
    """Read and check a bundle; BundleError says which file is broken and how."""
    manifest = read_manifest(read, where)
    files = {name: _read(read, name, where) for name in manifest["files"]}
    for name, digest in manifest["files"].items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise BundleError(f"{where}/{name}: sha256 does not match the manifest, the file is cut short or corrupt")
    try:
        schema = parse_schema(manifest["schema"])
        fitted = Fitted.from_json(manifest["fitted"], schema)
        tensors = load_tensors(files[WEIGHTS])
        network = Autoencoder(layout_of(fitted), architecture_from(manifest["architecture"])).eval()
        network.load_state_dict(
            {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        )
        calibration = tensors["calibration"].numpy()
        score, rule, training = Score(), ThresholdRule(), calibration
        if manifest["format"] > 1:
            score, rule = score_from(manifest["score"]), ThresholdRule(**manifest["threshold"])
            training = tensors["training"].numpy()
        bundle = Bundle(
            version=manifest["version"],
            created_at=manifest["created_at"],
            schema=schema,
            fitted=fitted,
            network=network,
            calibration=calibration,
            field_errors=tensors["field_errors"].numpy(),
            report=manifest["report"],
            score=score,
            rule=rule,
            training=training,
            golden=golden_from(tensors),
            rows_file=files.get(ROWS, b""),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, SchemaError, SettingsError) as error:
        raise BundleError(f"{where}: {error}") from error
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise BundleError(f"{where}/{WEIGHTS}: holds weights that are not finite")
    if bundle.golden is not None:
        bundle.golden.check(bundle.scorer(), where)
    return bundle
