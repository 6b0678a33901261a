"""Every setting, declared once: its name carries the unit, its field the default, range and help.

What a setting means to a process stands in the room that uses it; here is one line for the person who sets it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.settings.base import (
    Group,
    Name,
    OptionalName,
    empty_is_none,
    matching,
    model_range,
    parse_list,
    parse_object,
    parse_secret,
    parse_store_options,
    registered,
    reveal,
    secrets_of,
    setting,
)
from worker.settings.input import InputSettings
from worker.settings.kafka import KafkaSettings
from worker.settings.oauth import OauthSettings
from worker.settings.registry import RegistrySettings
from worker.texts import nearest

PREFIX = "WORKER_"

_OPTIONAL = BeforeValidator(empty_is_none)

Names = Annotated[tuple[Name, ...], BeforeValidator(parse_list)]


def _sinks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each sink once; ValueError where nobody registered one of this name."""
    if names:
        from worker.stream.sinks.base import SINKS

        for name in names:
            if name not in SINKS:
                raise ValueError(SINKS.unknown(name))
    return tuple(dict.fromkeys(names))


class BatchSettings(Group):
    """How many records are scored together, in how much memory, and how long the first of them may wait."""

    size: int = setting(8192, "records in a batch at most", within=(1, 1_000_000))
    max_bytes: int = setting(
        16_777_216,
        "memory of a batch's records, 512 bytes each beside their own; fetches follow it",
        within=(65_536, 1_073_741_824),
    )
    max_wait_ms: int = setting(50, "time that a record may wait for its batch to fill", within=(0, 60_000))
    max_record_bytes: int = setting(
        1_048_576, "a larger record goes to the dead letters as `too_large`", within=(1, 268_435_456)
    )


class ThresholdSettings(Group):
    """One threshold per partition: a quantile that rolls with the traffic, or a fixed number."""

    rule: Annotated[str | None, _OPTIONAL, registered("worker.thresholds.factory", "RULES")] = setting(
        None,
        "a `rolling` quantile of recent scores, or for good: FIXED, a quantile of the training scores, or that of the "
        "contamination; not set: the model's own",
    )
    fixed: float | None = setting(None, "the threshold of the rule `fixed`", within=(0, 1e30))
    training_quantile: float | None = setting(
        None, "share of training scores below `training-quantile`'s threshold; else the model's, 0.95", gt=0, lt=1
    )
    contamination: float | None = setting(
        None, "share of training scores above `contamination`'s threshold; else the model's, 0.1", gt=0, le=0.5
    )
    quantile: float = setting(0.995, "share of the inliers' scores that lie below the threshold", gt=0, lt=1)
    window: int = setting(20_000, "scores that the quantile is taken of", within=(100, 10_000_000))
    stride: int = setting(
        256, "scored records between two updates of the threshold, at most the window", within=(1, 65_536)
    )
    policy: Annotated[str, registered("worker.thresholds.factory", "POLICIES")] = setting(
        "inlier", "the scores that the quantile is taken of: those of the inliers, or all of the `plain` window"
    )

    @model_validator(mode="after")
    def _fixed_has_its_value(self) -> Self:
        if self.rule == "fixed" and self.fixed is None:
            raise ValueError("WORKER_THRESHOLD__RULE = 'fixed': needs WORKER_THRESHOLD__FIXED, allowed is 0 to 1e+30")
        return self


def _numbers(value: Any) -> Any:
    """A single number is a list of one; empty = not set."""
    value = empty_is_none(value)
    return [value] if isinstance(value, int | float) else parse_list(value)


def _weights(value: Any) -> Any:
    """A JSON object as pairs; empty = not set. ValueError where it is none."""
    value = empty_is_none(value)
    return value if value is None else tuple(parse_object(value, '{"amount": 2}').items())


def _options(value: Any) -> dict[str, Any]:
    """The other options from JSON. ValueError, with the nearest name or the range, where one can't be."""
    from worker.model.network.options import SETTINGS, Range, allows, other_options

    ranges = {name: allowed for name, allowed, _ in other_options()}
    options = {}
    for name, item in parse_object(value, '{"dropout": [0.2], "optimizer": "sgd"}').items():
        if name in SETTINGS:
            raise ValueError(f"{name} has a setting of its own, WORKER_MODEL__{name.upper()}")
        if name not in ranges:
            raise ValueError(f"unknown option {name!r}: the nearest is {nearest(name, ranges, min_likeness=0.0)!r}")
        allowed = ranges[name]
        one_of_many = isinstance(allowed, Range) and allowed.many and not isinstance(item, list)
        options[name] = (item,) if one_of_many else tuple(item) if isinstance(item, list) else item
        if not allows(name, options[name]):
            raise ValueError(f"{name} = {item!r}: allowed is {allowed}")
    return options


class ModelSettings(Group):
    """What the fit takes. What is not set has the preset's value; `worker models presets` prints them."""

    preset: Annotated[str, model_range("preset")] = setting(
        "denoising",
        "architecture and training recipe; what is not set below has the preset's value (`worker models presets`)",
    )
    hidden: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers), model_range("hidden")] = setting(
        None, "units of each hidden layer: `64,32`"
    )
    latent: Annotated[int | None, model_range("latent")] = setting(
        None, "units of the latent, less than the input columns; not with the layers `listed`"
    )
    score: Annotated[str | None, model_range("score")] = setting(
        None,
        "error of a record: `relative` to what is usual of its fields; mean over the fields (squared, its root, "
        "absolute), or over its columns the absolute sum, the distance, the largest; `kl` of a variational latent",
    )
    field_weights: Annotated[
        tuple[tuple[str, float], ...] | None, BeforeValidator(_weights), model_range("field_weights")
    ] = setting(None, 'factor on the error of a field in the score: `{"amount": 2}`; 1 for the others')
    epochs: Annotated[int | None, model_range("epochs")] = setting(
        None, "passes over all rows; without, batches are drawn at random, as many as `steps`"
    )
    learning_rate: Annotated[float | None, model_range("learning_rate")] = setting(None, "step size of the optimizer")
    holdout: Annotated[float | None, model_range("holdout")] = setting(
        None, "share of the rows kept out of the fit, to measure and calibrate on; 0 = on the fitted ones"
    )
    options: Annotated[dict[str, Any], BeforeValidator(_options)] = setting(
        {},
        'all other values of a preset: `{"dropout": [0.2], "optimizer": "sgd"}`; the next table has them',
        allowed="JSON object",
    )


class TrainSettings(Group):
    """The trainer beside the workers."""

    interval_s: float = setting(3_600, "seconds between two checks of the trainer", within=(1, 2_592_000))
    window_records: int = setting(100_000, "recent records that the trainer keeps", within=(100, 10_000_000))
    max_bytes: int = setting(
        64_000_000,
        "bytes of records that the trainer keeps and a fit learns from; of wide records it keeps fewer than "
        "`WORKER_TRAIN__WINDOW_RECORDS`",
        within=(1_000_000, 8_000_000_000),
    )
    min_records: int = setting(1_000, "fewer records than this are not learned from", within=(10, 10_000_000))
    half_life_s: float = setting(
        86_400, "age at which half of the records have left the full reservoir", within=(1, 31_536_000)
    )
    drifted_checks: int = setting(
        6,
        "checks in a row at which a part of the normal traffic must have drifted before a refit; more than a flood of "
        "anomalies lasts",
        within=(1, 1_000),
    )
    replaced_checks: int = setting(
        3,
        "checks in a row at which all traffic must have been replaced before the new one is normal; until then "
        "`worker models veto` keeps it out",
        within=(2, 1_000),
    )
    state_file: Name = setting("trainer-state.npz", "file that keeps the trainer's reservoir over a restart")
    rehearsal_records: int = setting(
        5_000, "records of its fit that a model version keeps for later fits; 0 = none", within=(0, 1_000_000)
    )
    keep_versions: int = setting(
        10, "newest versions to keep, with the current one, the two before it and held ones", within=(1, 10_000)
    )

    @model_validator(mode="after")
    def _window_holds_minimum(self) -> Self:
        if self.min_records > self.window_records:
            raise ValueError(
                f"WORKER_TRAIN__MIN_RECORDS = {self.min_records}: must not exceed WORKER_TRAIN__WINDOW_RECORDS = "
                f"{self.window_records}"
            )
        return self


class AlertSettings(Group):
    """What an alert tells, how many are wanted, and which are published."""

    per_day: float | None = setting(
        None,
        "alerts wanted in a day of event time over all partitions instead of a quantile; with both the stricter counts",
        gt=0,
        le=10_000_000,
    )
    per_hour: float | None = setting(None, "the same for an hour; with both, the stricter counts", gt=0, le=10_000_000)
    max_reasons: int = setting(5, "fields in an alert's explanation at most", within=(1, 1_000))
    redact: Names = setting(
        (),
        "fields whose values never leave the worker: alerts, keys, dead letters, reports, model versions, saved state",
        allowed="field names separated by commas",
    )
    redact_secret: Annotated[SecretStr | None, BeforeValidator(parse_secret)] = setting(
        None,
        "key of the hashes that stand for redacted keys and categories, the same for workers, trainer and replays; "
        "without it, who can list the possible values can find those behind the hashes",
    )
    redact_keys: Literal["auto", "always", "never"] = setting(
        "auto",
        "which Kafka keys are hashed where fields are redacted: those that hold or may hold a redacted value (`auto`), "
        "all, or none",
    )
    redact_dead_letters: bool = setting(
        True, "mask dead letters, too; false: they are published as they came", allowed="true or false"
    )
    group_by: Annotated[Names, Field(max_length=8)] = setting(
        (),
        "alerts with the same values in these fields, each within the cooldown of the one before, are one group: an "
        "opening alert, updates at 10, 100, 1000 … of them, a closing alert; where empty, each alert stands alone",
        allowed="up to 8 field names separated by commas",
    )
    cooldown_s: float = setting(300, "seconds of event time without an alert that close a group", within=(1, 2_592_000))
    silences_file: OptionalName = setting(
        None, "TOML file of silences: alerts that are counted, not published; off where empty"
    )
    max_per_minute: int = setting(
        0,
        "alerts of a partition in a minute of event time; the rest is summed up in one; 0 = no limit",
        within=(0, 1_000_000),
    )


class HttpSettings(Group):
    """Health and metrics."""

    port: int = setting(0, "port of `/livez`, `/readyz` and `/metrics`; 0 = off", within=(0, 65_535))
    host: Name = setting("127.0.0.1", "address to listen on; `0.0.0.0` in a container")
    stall_s: float = setting(
        60, "seconds without progress after which `/livez` fails and stacks are logged", within=(1, 86_400)
    )


class LogSettings(Group):
    """Logs, on standard error."""

    format: Literal["json", "console"] = setting("json", "one JSON object per line, or text for people")
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "least severe entries to write; `debug` also shows tracebacks"
    )


class BreakerSettings(Group):
    """How much bad input is a fault of the stream instead of its records."""

    invalid_ratio: float = setting(
        0.5, "stop when more than this share of the window can't be scored; 1 = never", gt=0, le=1
    )
    invalid_window_records: int = setting(10_000, "recent records that the share is taken of", within=(10, 10_000_000))
    consecutive: int = setting(
        5_000, "stop after this many invalid records in a row; 0 = never", within=(0, 10_000_000)
    )


class Settings(BaseSettings, Group):
    """The whole tree. `Settings()` is all defaults; `load_settings()` reads the environment and the files.

    `sources`, strongest first, are read instead of the values of the fields.
    """

    # No decoding: lists and objects have forms of their own (`a,b`), and what can't be read is refused in our words.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", enable_decoding=False, case_sensitive=True
    )

    schema_file: Name = setting("schema.toml", "the fields of a record")
    model_store: Name = setting("models", "where model versions live: a directory, or `s3://BUCKET/PREFIX`")
    model_store_options: Annotated[dict[str, Any], BeforeValidator(parse_store_options)] = setting(
        {},
        "handed to the S3 client (s3fs), over what it finds in the usual `AWS_…` variables and files: "
        '`{"endpoint_url": "http://minio:9000", "key": "worker", "secret": {"file": "/run/secrets/s3"}}`',
        allowed="JSON object",
    )
    model_canary_records: int = setting(
        20_000,
        "records of a new version's canary: the previous one comes back if it fails; 0 = off",
        within=(0, 10_000_000),
    )
    model_shadow: OptionalName = setting(
        None, "model version that scores a sample beside the current one without alerting; off where empty"
    )
    delivery: Literal["at_least_once", "exactly_once"] = setting(
        "at_least_once", "`at_least_once` can repeat an alert (with the same `alert_id`) after a crash"
    )
    sinks: Annotated[Names, AfterValidator(_sinks)] = setting(
        (), "registered receivers of outcomes beside the Kafka topics", allowed="names separated by commas"
    )
    instance_id: Annotated[
        str | None, _OPTIONAL, matching(r"[A-Za-z0-9._-]{1,150}", "1 to 150 of a-z A-Z 0-9 . _ -")
    ] = setting(
        None,
        "stable name of this process, different for each process of a group (a pod of a stateful set): partitions wait "
        "for it while it restarts, and a restart ends its open transaction at once",
    )
    device: Annotated[str, matching(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N")] = setting(
        "auto", "where the model runs; `auto` takes a GPU where there is one"
    )
    cpu_threads: int = setting(
        1, "threads of one process for the model; for a small network more processes gain more", within=(1, 256)
    )
    seed: int = setting(0, "start of all that is random", within=(0, 4_294_967_295))
    kafka: KafkaSettings = KafkaSettings()
    input: InputSettings = InputSettings()
    registry: RegistrySettings = RegistrySettings()
    oauth: OauthSettings = OauthSettings()
    batch: BatchSettings = BatchSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    alerts: AlertSettings = AlertSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    breaker: BreakerSettings = BreakerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - these five are the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in, so that tests and tools have defaults whatever the environment holds."""
        sources: tuple[PydanticBaseSettingsSource, ...] = init_settings().get("sources", (init_settings,))
        return sources

    @model_validator(mode="after")
    def _exactly_once_reads_committed(self) -> Self:
        if self.delivery == "exactly_once" and not self.kafka.read_committed:
            raise ValueError(
                "WORKER_KAFKA__ISOLATION_LEVEL = read_uncommitted: WORKER_DELIVERY = exactly_once needs read_committed"
            )
        return self

    def store_options(self) -> dict[str, Any]:
        """The options of the model store with their secrets in clear text: never log the result."""
        return reveal(self.model_store_options)

    def secrets(self) -> list[str]:
        """What no log may show, in clear text."""
        return secrets_of(self)
