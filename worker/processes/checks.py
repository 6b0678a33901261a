"""What `worker check` looks at, one function each, in this order: CHECKS is the only list of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from worker.alerts.silences import load_silences
from worker.broker.admin import creates_topics, probe_client
from worker.broker.client import Connection
from worker.broker.probe import probe
from worker.broker.topic_names import fitting_topics, is_pattern
from worker.broker.topics import require_rights, topic_facts
from worker.errors import BrokerUnavailable, Hint, MissingTopic, SchemaError, SettingsError, StoreError, WorkerError
from worker.features.schema import Schema, load_schema
from worker.model.network.autoencoder import Autoencoder
from worker.model.scoring.score import Score
from worker.model.scoring.scorer import Scorer, resolve_device
from worker.model.store.bundle import Bundle
from worker.processes import wiring
from worker.settings import Settings

CONNECT_TIMEOUT_S = 10.0
ROWS, ROUNDS = 4096, 3  # of the measurement of scoring


class Finding(NamedTuple):
    """What one check has to say.

    verdict   "ok", "FAILED", or "skipped" where something else comes first
    text      for a person; an error has its hint with it
    """

    verdict: Literal["ok", "FAILED", "skipped"]
    name: str
    text: str | WorkerError


class Skipped(Exception):
    """This can't be checked yet; the text says why."""


@dataclass
class Known:
    """The settings, and what the checks before have learned: None where they failed or were skipped."""

    settings: Settings
    schema: Schema | None = None
    bundle: Bundle | None = None
    partitions: Mapping[str, int] | None = None


def run_checks(load: Callable[[], Settings]) -> Iterator[Finding]:
    """One finding after the other, the settings' first; where they are wrong, all others are skipped."""
    try:
        known = Known(load())
    except SettingsError as error:
        yield from (Finding("FAILED", "settings", line) for line in str(error).splitlines())
        yield from (Finding("skipped", name, "the settings come first") for name in CHECKS)
        return
    yield Finding("ok", "settings", "all values are valid")
    for name, check in CHECKS.items():
        try:
            yield Finding("ok", name, check(known))
        except Skipped as reason:
            yield Finding("skipped", name, str(reason))
        except WorkerError as error:
            yield Finding("FAILED", name, error)


def device(known: Known) -> str:
    """The device exists."""
    return str(resolve_device(known.settings.device))


def schema(known: Known) -> str:
    """The schema file is valid."""
    path = known.settings.schema_file
    if not Path(path).exists():
        raise SchemaError(f"[schema_file] = {path!r}: no such file", hint=Hint.PROPOSE_A_SCHEMA)
    known.schema = load_schema(path)
    return f"{path}: {len(known.schema.fields)} fields, fingerprint {known.schema.fingerprint[:12]}"


def model_store(known: Known) -> str | WorkerError:
    """The store can be read and written; its current version, and the shadow, load and fit the schema."""
    root, shadow = known.settings.model_store, known.settings.model_shadow
    store = wiring.model_store(known.settings)
    version = store.current()
    store.require_writable()
    if version is None:
        return StoreError(f"{root}: no model yet", hint=Hint.FIT_A_MODEL)  # where one begins, not a fault
    bundle = store.load(version)
    if known.schema is None:
        return f"{root}: version {version} is sound; the schema to compare it with is not"
    bundle.require_schema(known.schema)
    known.bundle = bundle
    if shadow is None or shadow == version:
        return f"{root}: version {version} is sound and fits the schema"
    store.load(shadow).require_schema(known.schema)
    return f"{root}: version {version} and the shadow {shadow} are sound and fit the schema"


def recipe(known: Known) -> str:
    """What the next fit will be, with its layers where a model tells the input width.

    SettingsError where values do not go together, or do not fit that width.
    """
    options = wiring.fit_options(known.settings.model, known.settings.seed)
    name = f"preset {options.preset}, {options.preprocessing} scaling, {options.loss} loss, {options.score} score"
    if known.bundle is None:
        return name
    columns = known.bundle.network.layout.columns
    layers = options.architecture(columns).describe(columns)
    return f"{name}; layers for the {columns} columns of the current model: {layers}"


def scoring(known: Known) -> str:
    """Whether every one-hot column has to be computed, and what that costs at this vocabulary, measured here."""
    bundle, device_name = _current(known), known.settings.device
    layout, architecture = bundle.network.layout, bundle.network.architecture
    what = f"{bundle.score.kind} of a {architecture.output} output, layers {architecture.describe(layout.columns)}"
    now = _microseconds(bundle.scorer(device_name), bundle)
    if bundle.score.without_onehot(bundle.network):
        return f"{what}: no one-hot column is computed; {now:.1f} µs a record"
    like = Autoencoder(layout, replace(architecture, output="linear", variational=False)).eval()
    without = _microseconds(Scorer(like, len(bundle.fields), device_name, score=Score()), bundle)
    return (
        f"{what}: all {sum(layout.widths):,} one-hot columns are computed for each record: {now:.1f} µs a record, "
        f"{without:.1f} without them (a linear output with relative, mse, rmse or euclidean needs none)"
    )


def _microseconds(scorer: Scorer, bundle: Bundle) -> float:
    """Time of a record in a batch of ROWS made-up ones, the shortest of ROUNDS."""
    layout, draw = bundle.network.layout, np.random.default_rng(0)
    numeric = draw.random((ROWS, layout.numeric), np.float32)
    category_ids = draw.integers(0, layout.widths or 1, (ROWS, len(layout.widths)), np.int32)
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        scorer.score(numeric, category_ids)
        took.append(time.perf_counter() - started)
    return min(took) / ROWS * 1e6


def threshold(known: Known) -> str:
    """The rule that counts, and who asks for it."""
    bundle, settings = _current(known), known.settings.threshold
    rule = wiring.threshold_factory(settings).rule_for(bundle.rule)
    theta = rule.theta(bundle.training)
    by = "[threshold.rule]" if settings.rule else "as the model asks"
    if theta is None:
        return f"rolling quantile {settings.quantile:g} of {settings.window:,} scores, {by}"
    above = float((bundle.training > theta).mean())
    return f"{theta:.6g} for good, by the rule {rule.name}, {by}; {above:.2%} of the training records lie above it"


def _current(known: Known) -> Bundle:
    if known.bundle is None:
        raise Skipped("a model that fits the schema comes first")
    return known.bundle


def silences(known: Known) -> str:
    """The file with silences is valid and names fields that the schema has."""
    path = known.settings.alerts.silences_file
    if path is None:
        return "none"
    silences = load_silences(path)
    if known.schema is not None:
        silences.require_fields(tuple(field.name for field in known.schema.encoded))
    return f"{path}: {len(silences.silences)} silences"


def redaction(known: Known) -> str:
    """What is redacted, may be misspelt, or is still held by the current model; BundleError for another secret."""
    settings, hidden = known.settings, wiring.make_redaction(known.settings)
    if known.schema is not None:
        hidden = hidden.also(known.schema.redacted)
    if not hidden:
        return "no fields"
    said = [f"nothing that leaves shows {', '.join(sorted(hidden.fields))}"]
    if known.schema is not None:
        said += filter(None, [wiring.unknown_redacted(settings, known.schema)])
        if (clock := known.schema.event_time_field) is not None and hidden.covers(clock):
            said.append(f"{clock} is no event time, the broker's timestamps are")
    if not settings.alerts.redact_secret:
        said.append("without [alerts.redact_secret], who can list the possible values finds those behind the hashes")
    if known.bundle is not None:
        fitted = known.bundle.fitted
        held = [name for name in fitted.concealed(hidden.also(fitted.redacted)).redacted if name not in fitted.redacted]
        if held:
            said.append(f"version {known.bundle.version} was fitted before and holds values of {', '.join(held)}")
    return "; ".join(said)


def registry(known: Known) -> str:
    """Where records need one, the schema registry answers and lets this user in."""
    wiring.make_decoder(known.settings)  # SettingsError where the format needs a registry that nobody names
    client = wiring.schema_registry(known.settings.registry)
    return "none" if client is None else client.probe()


def broker(known: Known) -> str:
    """At least one bootstrap server answers, and the client gets in."""
    link = _connection(known.settings)
    said, answers = [], False
    for server in link.servers:
        try:
            said.append(probe(server, link.client_options))
            answers = True
        except (BrokerUnavailable, SettingsError) as error:
            said.append(str(error))
    if not answers:
        raise BrokerUnavailable("; ".join(said))
    known.partitions = probe_client(link)
    return "; ".join(said)


def topics(known: Known) -> str:
    """Every topic of the settings exists, or is created when somebody writes to it, and this user may use it."""
    partitions, kafka, used = known.partitions, known.settings.kafka, wiring.topics(known.settings)
    if partitions is None:
        raise Skipped("the broker comes first")
    if is_pattern(kafka.input_topic):
        used = used._replace(reads=fitting_topics(kafka.input_topic, partitions))
        if not used.reads:
            raise MissingTopic(f"[kafka.input_topic] = {kafka.input_topic!r}: fits no topic that this user may see")
    names = [*used.reads, *used.results]
    require_rights(used, topic_facts(_connection(known.settings), used.needs))
    missing = [name for name in names if name not in partitions]
    if set(used.reads) & set(missing) or (missing and not creates_topics(_connection(known.settings))):
        raise MissingTopic(
            f"not on the broker, or not visible to this user: {', '.join(missing)}; create with: "
            f"kafka-topics.sh --create --topic {missing[0]} --bootstrap-server {kafka.bootstrap_servers}"
        )
    return ", ".join(
        f"{name} ({partitions[name]} partitions)" if name in partitions else f"{name} (created when it is written to)"
        for name in names
    )


def _connection(settings: Settings) -> Connection:
    return replace(wiring.connection(settings, "anomaly-check"), connect_timeout_s=CONNECT_TIMEOUT_S)


CHECKS: Final[Mapping[str, Callable[[Known], str | WorkerError]]] = {
    check.__name__.replace("_", " "): check
    for check in (
        device,
        schema,
        model_store,
        recipe,
        scoring,
        threshold,
        silences,
        redaction,
        registry,
        broker,
        topics,
    )
}
