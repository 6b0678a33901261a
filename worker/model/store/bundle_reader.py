"""A bundle from its files, each checked before anything is made of it: size, checksum, keys, types, ranges, shapes.

Whoever can write to the store, a disk or a copy that was cut short decides what stands in these files. So nothing is
allocated that the manifest claims before the size of the weights bears it out, no file is opened that a bundle doesn't
have, and whatever is wrong is one BundleError that names the file: what is loaded can score.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from worker.errors import BundleError, SchemaError, SettingsError
from worker.features.fitted import Fitted
from worker.features.schema import parse_schema
from worker.model.network.autoencoder import Architecture, Autoencoder, Layout
from worker.model.network.fit import FitReport
from worker.model.network.options import MAX_WEIGHTS, allows
from worker.model.scoring.score import SCORES, Score
from worker.model.scoring.usual import Usual
from worker.model.store.bundle import (
    FORMAT,
    MANIFEST,
    MAX_GOLDEN_ROWS,
    MAX_MANIFEST_BYTES,
    MAX_REHEARSAL_BYTES,
    NAME,
    ROWS,
    SCORES_KEPT,
    SELF,
    WEIGHTS,
    Bundle,
    Golden,
    digest_of,
    field_names,
)
from worker.plain import read_json, read_plain, read_value
from worker.texts import parse_iso_time, quoted
from worker.thresholds.factory import RULES, ThresholdRule

MAX_SCORES_BYTES = 256 << 20  # of weights.safetensors, beside the network
MAX_SCHEMA_CHARACTERS = 16 << 20  # of TOML, which is read slowly
MAX_LAYERS = 64
MAX_FIELD_WEIGHT = 1_000_000
MAX_ERROR, MIN_SPREAD = 1e30, 1e-6  # of a field: squared errors, and what they are divided by

Reader = Callable[[str, int], bytes | None]
"""A bundle's file by name: at most one byte more than so many of it, None where there is none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json, with the types that its keys have; the fitted fields as plain data, for they need the schema."""

    format: int
    schema: str
    schema_fingerprint: str
    fitted: Mapping[str, Any]
    architecture: Architecture
    score: Score
    threshold: ThresholdRule
    report: dict[str, Any]
    version: str
    created_at: str
    files: Mapping[str, str]
    manifest_sha256: str


def _read(read: Reader, name: str, where: str, max_bytes: int) -> bytes:
    content = read(name, max_bytes)
    if content is None:
        raise BundleError(f"{where}/{name}: no such file, this is not a whole model version")
    if len(content) > max_bytes:
        raise BundleError(f"{where}/{name}: larger than {max_bytes:,} bytes")
    return content


def read_manifest(read: Reader, where: str) -> Manifest:
    """The checked manifest of a bundle; BundleError where it is missing, broken or of another format."""
    path = f"{where}/{MANIFEST}"
    content = _read(read, MANIFEST, where, MAX_MANIFEST_BYTES)
    try:
        document = read_json(content, MAX_MANIFEST_BYTES)
    except ValueError as error:
        raise BundleError(f"{path}: unreadable ({error})") from error
    try:
        is_whole = isinstance(document, dict) and document.get(SELF) == digest_of(document)
    except TypeError:  # a number or a text that JSON can't carry back
        is_whole = False
    if not is_whole:
        raise BundleError(f"{path}: its checksum does not match, the file was changed after it was written")
    if document.get("format") != FORMAT:
        raise BundleError(f"{path}: format {quoted(document.get('format'))}, this worker reads format {FORMAT}")
    try:
        manifest = read_plain(Manifest, document)
        _require_facts(manifest)
    except (ValueError, SettingsError) as error:
        raise BundleError(f"{path}: {quoted(error)}") from error
    return manifest


def _require_facts(manifest: Manifest) -> None:
    """ValueError where what tells of the bundle, and is shown to people, can't be true."""
    if not NAME.fullmatch(manifest.version):
        raise ValueError(f"version {quoted(manifest.version)} is no name of a version")
    parse_iso_time(manifest.created_at)
    if not {WEIGHTS} <= manifest.files.keys() <= {WEIGHTS, ROWS}:
        raise ValueError(f"files: a bundle has {WEIGHTS}, and may have {ROWS}; nothing else")
    if len(manifest.schema) > MAX_SCHEMA_CHARACTERS:
        raise ValueError(f"schema: longer than {MAX_SCHEMA_CHARACTERS:,} characters")
    for name, hint in FitReport.__annotations__.items():
        if hint in (int, float) and name in manifest.report:
            read_value(hint | None, manifest.report[name], f"report.{name}")  # null is how JSON has NaN


def read_bundle(read: Reader, where: str) -> Bundle:
    """Read and check a bundle; BundleError says which file is broken and how."""
    manifest = read_manifest(read, where)
    try:
        fitted = Fitted.from_json(manifest.fitted, parse_schema(manifest.schema))
        weights = _require_recipe(manifest, fitted)
    except (ValueError, SchemaError, SettingsError, BundleError) as error:
        raise BundleError(f"{where}/{MANIFEST}: {quoted(error)}") from error
    limits = {WEIGHTS: 8 * weights + MAX_SCORES_BYTES, ROWS: MAX_REHEARSAL_BYTES}
    files = {name: _read(read, name, where, limits[name]) for name in manifest.files}
    for name, digest in manifest.files.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise BundleError(f"{where}/{name}: sha256 does not match the manifest, the file is cut short or corrupt")
    _require_rows(files.get(ROWS, b""), f"{where}/{ROWS}")
    try:
        bundle = _made_of(manifest, fitted, files, weights)
        if bundle.golden is not None:
            bundle.golden.check(bundle.scorer(), where)
    except (LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{where}/{WEIGHTS}: {quoted(error)}") from error
    return bundle


def _made_of(manifest: Manifest, fitted: Fitted, files: Mapping[str, bytes], weights: int) -> Bundle:
    """ValueError and what the libraries raise, where the tensors are not those of the manifest's network."""
    if len(files[WEIGHTS]) < 4 * weights:
        raise ValueError(f"too small for the {weights:,} weights of the manifest's layers")
    tensors = load_tensors(files[WEIGHTS])
    layout = Layout(len(fitted.numeric), fitted.widths)
    network = Autoencoder(layout, manifest.architecture).eval()
    _load_weights(network, _without_prefix(tensors, "network."))
    scores = _kept_scores(tensors)
    theta = manifest.threshold.theta(scores["training"])
    if theta is not None and not np.isfinite(theta):
        raise ValueError(f"the rule {manifest.threshold.name} makes no threshold of its scores")
    return Bundle(
        version=manifest.version,
        created_at=manifest.created_at,
        schema=fitted.schema,
        fitted=fitted,
        network=network,
        report=manifest.report,
        score=manifest.score,
        rule=manifest.threshold,
        golden=_golden(_without_prefix(tensors, "golden."), layout),
        rows_file=files.get(ROWS, b""),
        usual=_usual(_without_prefix(tensors, "usual."), len(field_names(fitted))),
        **scores,
    )


def _require_recipe(manifest: Manifest, fitted: Fitted) -> int:
    """How many weights the layers have; ValueError or SettingsError where there is no such network, score or rule."""
    architecture, score, rule = manifest.architecture, manifest.score, manifest.threshold
    for name in ("activation", "latent_activation", "output", "dropout"):
        if not allows(name, getattr(architecture, name)):
            raise ValueError(f"architecture.{name} is {quoted(getattr(architecture, name))}")
    hidden = architecture.hidden
    if not 1 <= len(hidden) <= MAX_LAYERS or min(hidden) < 1 or architecture.latent_index not in range(len(hidden)):
        raise ValueError(f"architecture.hidden is {quoted(list(hidden))}: no such layers")
    weights = architecture.weights(len(fitted.numeric) + sum(fitted.widths))
    if weights > MAX_WEIGHTS:
        raise ValueError(f"architecture.hidden: {weights:,} weights, {MAX_WEIGHTS:,} are allowed")
    if SCORES[score.kind].needs_variational and not architecture.variational:
        raise ValueError(f"score.kind {score.kind} needs a variational network")
    names, factors = [name for name, _ in score.weights], [factor for _, factor in score.weights]
    if len(set(names)) < len(names) or not {*names} <= {*field_names(fitted)}:
        raise ValueError("score.weights are not those of the schema's fields")
    if not all(0 <= factor <= MAX_FIELD_WEIGHT for factor in factors):
        raise ValueError(f"score.weights: each from 0 to {MAX_FIELD_WEIGHT:,}")
    if score.low is not None and score.high is not None and score.high < score.low:
        raise ValueError("score.high is below score.low")
    RULES[rule.name]  # or SettingsError
    return weights


def _load_weights(network: Autoencoder, tensors: Mapping[str, Tensor]) -> None:
    """ValueError where they are not exactly this network's, or some are no numbers."""
    own = network.state_dict()
    if own.keys() != tensors.keys():
        odd = min(own.keys() ^ tensors.keys())
        raise ValueError(f"network.{quoted(odd)} is {'missing' if odd in own else 'unknown'}")
    for name, tensor in tensors.items():
        if (tensor.dtype, tensor.shape) != (own[name].dtype, own[name].shape):
            raise ValueError(f"network.{name} is {tensor.dtype} {list(tensor.shape)}: expected {list(own[name].shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"network.{name} holds weights that are not finite")
    network.load_state_dict(tensors)


def _kept_scores(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Calibration and training, sorted; ValueError where they are no scores."""
    known = ("network.", "golden.", "usual.", *SCORES_KEPT)
    if unknown := [name for name in tensors if not name.startswith(known)]:
        raise ValueError(f"{quoted(unknown[0])} is unknown")
    scores = {}
    for name in SCORES_KEPT:
        values = tensors[name].numpy()
        sized = len(values) >= (name == "calibration")
        if values.ndim != 1 or values.dtype != np.float64 or not sized or not np.isfinite(values).all():
            raise ValueError(f"{name}: {values.dtype} of shape {list(values.shape)}, or not finite")
        if (values < 0).any() or (np.diff(values) < 0).any():
            raise ValueError(f"{name}: below 0, or not sorted")
        scores[name] = values
    return scores


def _usual(tensors: Mapping[str, Tensor], fields: int) -> Usual:
    """What is usual of so many fields; ValueError where it is nothing that a score could be made of."""
    usual = Usual(**{name: tensor.numpy() for name, tensor in tensors.items()})
    limits = {"mean": (0.0, MAX_ERROR), "spread": (MIN_SPREAD, MAX_ERROR), "share": (0.0, 1.0), "unknown": (1e-12, 1.0)}
    for name, (low, high) in limits.items():
        values = getattr(usual, name)
        if values.shape != (fields,) or values.dtype != np.float64 or not ((values >= low) & (values <= high)).all():
            raise ValueError(
                f"usual.{name}: {values.dtype} of shape {list(values.shape)}, or not from {low:g} to {high:g}"
            )
    if not usual.share.any():
        raise ValueError("usual.share: no record has any field")
    return usual


def _golden(tensors: Mapping[str, Tensor], layout: Layout) -> Golden | None:
    if not tensors:
        return None
    golden = Golden(**{name: tensor.numpy() for name, tensor in tensors.items()})
    rows, widths = len(golden.scores), np.array(layout.widths, np.int32)
    shapes = {"numeric": (rows, layout.numeric), "category_ids": (rows, len(widths)), "scores": (rows,)}
    types = {"numeric": np.float32, "category_ids": np.int32, "scores": np.float64}
    for name, shape in shapes.items():
        values = getattr(golden, name)
        if values.shape != shape or values.dtype != types[name] or not np.isfinite(values).all():
            raise ValueError(f"golden.{name}: {values.dtype} of shape {list(values.shape)}, or not finite")
    if rows > MAX_GOLDEN_ROWS or (golden.category_ids < 0).any() or (golden.category_ids >= widths).any():
        raise ValueError("golden: too many rows, or of categories that there are not")
    return golden


def _require_rows(packed: bytes, path: str) -> None:
    """BundleError where the rehearsal rows are no JSON objects, or unpack to more than is ever kept."""
    if not packed:
        return
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            content = file.read(MAX_REHEARSAL_BYTES + 1)
        if len(content) > MAX_REHEARSAL_BYTES:
            raise BundleError(f"{path}: unpacks to more than {MAX_REHEARSAL_BYTES:,} bytes")
        if not all(isinstance(orjson.loads(line), dict) for line in content.splitlines()):
            raise BundleError(f"{path}: holds something else than records")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BundleError(f"{path}: unreadable ({quoted(error)})") from error


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
