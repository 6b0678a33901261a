"""From settings to objects: what more than one process or command needs."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from worker.alerts.grouping import GroupingOptions
from worker.alerts.silences import Silences, load_silences
from worker.broker.client import CONSUMER_DEFAULTS, Connection
from worker.broker.schema_registry import SchemaRegistry
from worker.broker.tokens import Fetch, TokenProvider, token_from_command, token_from_endpoint, token_from_file
from worker.broker.topic_names import topic_names
from worker.broker.topics import Topics
from worker.errors import DataError
from worker.features.schema import Schema
from worker.formats import DECODERS
from worker.formats.base import Decoder, FormatOptions, Row, decoded_bytes
from worker.formats.envelopes import ENVELOPES, OpeningDecoder
from worker.formats.json_objects import JsonDecoder
from worker.formats.json_schema import JsonSchemaDecoder
from worker.formats.unfold import UnfoldingDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import Progress
from worker.model.network.options import FitOptions
from worker.model.presets import preset_options
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.pipeline import Model, Pipeline
from worker.processes.rejects import Rejects
from worker.records import RawMessage
from worker.redaction import Redaction
from worker.rollout.paired import SAMPLE_EVERY, Pairing
from worker.settings import AlertSettings, ModelSettings, OauthSettings, RegistrySettings, Settings, ThresholdSettings
from worker.sources.base import Source, messages_of
from worker.sources.history import History
from worker.sources.sampling import sample_messages
from worker.texts import did_you_mean, rfc3339
from worker.thresholds.budget import ALONE, DAY_MS, HOUR_MS, PartitionCount
from worker.thresholds.factory import ThresholdFactory
from worker.trainer.reservoir import Reservoir
from worker.trainer.trainer import Trainer

LEARNED_BYTES = 384 * 1024 * 1024  # decoded, of the records that a model is learned from
SAMPLED_BYTES = 256 * 1024 * 1024  # decoded, of the records that a schema is proposed from
DECODED_AT_ONCE = 256

Build = Callable[[Bundle], Model]


def utc_now() -> str:
    """The wall clock as RFC 3339, UTC, milliseconds."""
    return rfc3339(time.time() * 1000)


def connection(settings: Settings, client_id: str = "anomaly-worker") -> Connection:
    """How to reach the broker."""
    options = {"max_poll_interval_ms": poll_interval_ms(settings), **settings.kafka.client_options()}
    kafka = settings.kafka
    return Connection(
        kafka.bootstrap_servers,
        client_id,
        options,
        rebootstrap_s=kafka.rebootstrap_s,
        max_batch_bytes=settings.batch.max_bytes,
        max_unpacked_bytes=kafka.max_unpacked_bytes,
        unreadable=kafka.unreadable,
        token=token_provider(settings.oauth),
    )


def topics(settings: Settings) -> Topics:
    """The topics that `worker run` reads and writes; of a pattern nobody knows yet which it reads."""
    kafka = settings.kafka
    results = (kafka.alerts_topic, kafka.dead_letter_topic, kafka.scores_topic)
    return Topics(topic_names(kafka.input_topic), [name for name in results if name is not None], kafka.state_topic)


def token_provider(settings: OauthSettings) -> TokenProvider | None:
    """What gives the tokens of OAUTHBEARER; None where no setting says where they come from."""
    fetch: Fetch | None = None
    if settings.token_file is not None:
        fetch = partial(token_from_file, settings.token_file)
    elif settings.token_command is not None:
        fetch = partial(token_from_command, settings.token_command)
    elif settings.token_endpoint is not None:
        secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
        fetch = partial(
            token_from_endpoint,
            settings.token_endpoint,
            client_id=settings.client_id or "",
            client_secret=secret,
            scope=settings.scope,
            ca_file=settings.ca_file,
        )
    return None if fetch is None else TokenProvider(fetch, settings.extensions)


def poll_interval_ms(settings: Settings) -> int:
    """Time after which the group gives up a member that does not poll: longer than a delivery may take."""
    default = max(CONSUMER_DEFAULTS["max_poll_interval_ms"], 3 * settings.kafka.delivery_timeout_ms)
    return int(settings.kafka.options.get("max_poll_interval_ms", default))


def fit_options(settings: ModelSettings, seed: int) -> FitOptions:
    """What a fit takes: the preset's values, and over them whatever is set."""
    values = settings.model_dump(exclude={"preset", "options"}, exclude_none=True)
    return preset_options(settings.preset, **values, **settings.options, seed=seed)


def threshold_factory(
    settings: ThresholdSettings,
    alerts: AlertSettings | None = None,
    partitions: PartitionCount = ALONE,
    share: float = 1.0,
) -> ThresholdFactory:
    """Thresholds by their rule, or by their part of the alert budget, or by both; without `alerts` no budget.

    partitions   how many share the budget
    share        of the budget
    """
    budgets = [(alerts.per_day, DAY_MS), (alerts.per_hour, HOUR_MS)] if alerts else []
    rules = ("fixed", "training-quantile", "contamination")
    values = [(rule, getattr(settings, rule.replace("-", "_"))) for rule in rules]
    return ThresholdFactory(
        policy=settings.policy,
        quantile=settings.quantile,
        window=settings.window,
        stride=settings.stride,
        rule=settings.rule,
        rule_values={rule: value for rule, value in values if value is not None},
        budgets=tuple((count * share, period_ms) for count, period_ms in budgets if count is not None),
        partitions=partitions,
        with_rule=bool({"quantile", "rule"} & settings.model_fields_set),
    )


def make_pairing(settings: Settings, partitions: PartitionCount = ALONE) -> Pairing:
    """How two versions are compared. The paired one sees a sample: its part of an alert budget is as much smaller."""
    return Pairing(
        threshold_factory(settings.threshold, settings.alerts, partitions, 1 / SAMPLE_EVERY),
        make_decoder(settings, any_size=True),
        settings.model_canary_records,
    )


def make_redaction(settings: Settings) -> Redaction:
    """What masks the fields that the settings redact; a model adds those of its schema."""
    alerts = settings.alerts
    return Redaction(
        alerts.redact,
        secret=alerts.redact_secret.get_secret_value() if alerts.redact_secret else "",
        keys=alerts.redact_keys,
        dead_letters=alerts.redact_dead_letters,
    )


def model_builder(settings: Settings, *, latent: bool = False) -> Build:
    """Bundles to models that are ready to score; latent: and to give the records' latents."""
    redaction, max_reasons = make_redaction(settings), settings.alerts.max_reasons
    return partial(Model, device=settings.device, redaction=redaction, max_reasons=max_reasons, latent=latent)


def unknown_redacted(settings: Settings, schema: Schema, rows: Sequence[Row] = ()) -> str | None:
    """What to say of redacted fields that neither the schema nor these records have: perhaps they are misspelt."""
    known = [field.name for field in schema.fields]

    def is_known(name: str) -> bool:
        related = any(f"{field}.".startswith(f"{name}.") or name.startswith(f"{field}.") for field in known)
        return related or any(Redaction([name]).finds(row) for row in rows)

    names = [name for name in settings.alerts.redact if not is_known(name)]
    if not names:
        return None
    where = (
        "in neither the schema nor the first records"
        if rows
        else "in no field of the schema, only in records if at all"
    )
    return f"[alerts.redact]: {where}: " + ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in names)


@cache
def schema_registry(settings: RegistrySettings) -> SchemaRegistry | None:
    """The client of the registry, one for all that reads records, so that each schema is asked for once."""
    if settings.url is None:
        return None
    password, token = settings.password, settings.token
    return SchemaRegistry(
        settings.url,
        user=settings.user,
        password=password.get_secret_value() if password else "",
        token=token.get_secret_value() if token else None,
        ca_file=settings.ca_file,
    )


def make_decoder(settings: Settings, *, any_size: bool = False) -> Decoder:
    """What turns records into fields. any_size: for records that were scored before, so that none is refused now."""
    read = settings.input
    decoder = DECODERS[settings.kafka.format](None if any_size else settings.batch.max_record_bytes)
    array = None if read.unfold is None or "[]." in read.unfold else read.unfold.removesuffix("[]")
    decoder = decoder.configured(
        FormatOptions(
            nan=read.nan,
            array=array,
            columns=read.columns,
            delimiter=read.delimiter,
            schemas=schema_registry(settings.registry),
        )
    )
    envelopes = [entry for name, entry in ENVELOPES.items() if read.envelope in {name, "auto"}]
    if envelopes and not decoder.is_flat:
        decoder = OpeningDecoder(decoder, envelopes, by_bytes=isinstance(decoder, JsonDecoder | JsonSchemaDecoder))
    return decoder if read.unfold is None else UnfoldingDecoder(decoder, read.unfold)


def make_pipeline(
    settings: Settings,
    model: Model,
    partitions: PartitionCount = ALONE,
) -> Pipeline:
    """The pipeline that run, replay and the trainer share; an alert budget is divided by the topic's partitions.

    SettingsError where the silences file is broken.
    """
    alerts = settings.alerts
    silences = Silences() if alerts.silences_file is None else load_silences(alerts.silences_file)
    silences.require_fields(model.bundle.fields)
    return Pipeline(
        model,
        threshold_factory=threshold_factory(settings.threshold, alerts, partitions),
        decoder=make_decoder(settings),
        grouping=GroupingOptions(alerts.group_by, alerts.cooldown_s, alerts.max_per_minute),
        silences=silences,
    )


def make_trainer(settings: Settings, current: Model, build: Build) -> Trainer:
    """The trainer that `worker train` and a replay with refits share."""
    train = settings.train
    return Trainer(
        current,
        build,
        options=fit_options(settings.model, settings.seed),
        reservoir=Reservoir(
            train.window_records, half_life_s=train.half_life_s, seed=settings.seed, max_bytes=train.max_bytes
        ),
        decoder=make_decoder(settings, any_size=True),
        min_records=train.min_records,
        keep_rows=train.rehearsal_records,
        drifted_checks=train.drifted_checks,
        replaced_checks=train.replaced_checks,
    )


def model_store(settings: Settings) -> ModelStore:
    """The store with its options; nothing is read or created yet."""
    return ModelStore(settings.model_store, options=settings.store_options())


def max_batch_s(settings: Settings) -> float:
    """A quarter of the time after which the group gives a silent member up, or liveness fails."""
    return min(poll_interval_ms(settings) / 1000, settings.http.stall_s) / 4


def for_source(settings: Settings, source: Source) -> Settings:
    """The same settings, with the record format of a source that has its own."""
    if source.record_format is None:
        return settings
    kafka = settings.kafka.model_copy(update={"format": source.record_format})
    return settings.model_copy(update={"kafka": kafka})


def newest_rows(
    batches: Iterable[Sequence[RawMessage]],
    decoder: Decoder,
    max_records: int,
    max_bytes: int,
    rejects: Rejects | None = None,
) -> list[Row]:
    """The last records that have fields, at most so many and of so many bytes: a file may hold years. Decoded, they
    take at most LEARNED_BYTES. Those without fields are counted in `rejects`.
    """
    rows, size, held = deque[tuple[Row, int, int]](), 0, 0
    for messages in batches:
        decoded = decoder.decode(messages)
        if rejects is not None:
            rejects.add(decoded)
        for message, row in zip(decoded.messages, decoded.rows, strict=True):
            rows.append((row, len(message.value or b""), decoded_bytes(message.value)))
            size, held = size + rows[-1][1], held + rows[-1][2]
            while len(rows) > max_records or size > max_bytes or held > LEARNED_BYTES:
                _, raw_bytes, row_bytes = rows.popleft()
                size, held = size - raw_bytes, held - row_bytes
    return [row for row, *_ in rows]


def first_rows(decoder: Decoder, messages: Iterable[RawMessage], limit: int, name: str) -> list[Row]:
    """The fields of the first records that have any, at most `limit`, fewer where they would take more than
    LEARNED_BYTES. DataError where most have none; name: of the input.
    """
    rows, held, rejects = list[Row](), 0, Rejects()
    for message in messages:
        held += decoded_bytes(message.value)
        if len(rows) >= limit or held > LEARNED_BYTES:
            break
        decoded = decoder.decode([message])
        rejects.add(decoded)
        rows += decoded.rows
    rejects.check(name)
    return rows


class SampledRows(NamedTuple):
    """The fields of a sample of a source.

    rows       in the order of the source
    records    how many the sample has
    total      how many the source has
    rejects    why some of the sample have no fields
    full       whether the sample is smaller than it was to be, for there was no memory
    fault      why the source could not be read to its end
    """

    rows: list[Row]
    records: int
    total: int
    rejects: Rejects
    full: bool
    fault: DataError | None = None


def sample_rows(decoder: Decoder, source: Source, limit: int) -> SampledRows:
    """The fields of up to `limit` records that are spread over all of a source, fewer where they would take more than
    SAMPLED_BYTES. DataError where there is nothing in it that could be read.
    """
    faults: list[DataError] = []

    def batches() -> Iterator[Sequence[RawMessage]]:
        try:
            yield from messages_of(source)
        except DataError as error:  # what was read before it is a sample all the same
            faults.append(error)

    sample = sample_messages(batches(), limit, max_bytes=SAMPLED_BYTES)
    if faults and not sample.messages:
        raise faults[0]
    rows, rejects, count = list[Row](), Rejects(), len(sample.messages)
    while sample.messages:
        decoded = decoder.decode(sample.messages[:DECODED_AT_ONCE])
        del sample.messages[:DECODED_AT_ONCE]  # bytes and fields side by side would take twice the memory
        rows += decoded.rows
        rejects.add(decoded)
    rows = rows[:: -(-len(rows) // limit) or 1]  # unfolded, they may be more
    return SampledRows(rows, count, sample.records, rejects, sample.full, next(iter(faults), None))


def fit_version(settings: Settings, schema: Schema, progress: Progress, source: Source) -> Bundle:
    """One fit with the settings: a version that is in no store yet.

    progress   called with step, steps and held-out error
    source     records to learn from

    Raises DataError where the records are too few, and what reading and fitting raise.
    """
    train = settings.train
    decoder = make_decoder(for_source(settings, source))
    rejects = Rejects()
    rows = newest_rows(messages_of(source), decoder, train.window_records, train.max_bytes, rejects)
    if len(rows) < train.min_records:
        raise DataError(
            f"{source.name} holds {len(rows)} usable records within [train.max_bytes] = {train.max_bytes}, fewer than "
            f"[train.min_records] = {train.min_records}" + (f"; {rejects.text}" if rejects.count else "")
        )
    options = fit_options(settings.model, settings.seed)
    facts: dict[str, Any] = {"source": source.name}
    if (history := source.history()) != History():
        facts["history"] = history.to_json()
    if source.unreadable.count:
        facts["unreadable"] = "; ".join(source.unreadable.notes())
    if rejects.count:
        facts["left_out"] = rejects.text
    return fit_bundle(
        schema,
        rows,
        options,
        created_at=utc_now(),
        progress=progress,
        facts=facts,
        keep_rows=train.rehearsal_records,
        redaction=make_redaction(settings),
    )
