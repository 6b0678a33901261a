"""Every setting, declared once: its name carries the unit, its field the default, the range and one line of help."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from worker.settings.alerts import AlertSettings
from worker.settings.group import Group, Name, empty_is_none
from worker.settings.model import ModelSettings
from worker.settings.options import parse_list, parse_options, parse_store_options, reveal, secrets_of
from worker.settings.process import BreakerSettings, HttpSettings, LogSettings
from worker.settings.train import TrainSettings

PREFIX = "WORKER_"

Topic = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Ratio = Annotated[float, Field(gt=0, lt=1)]


def _servers(value: Any) -> Any:
    """A list from TOML becomes the comma-separated form that Kafka's own tools use."""
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _record_format(name: str) -> str:
    from worker.formats import DECODERS

    if name not in DECODERS:
        raise ValueError(DECODERS.unknown(name))
    return name


def _registered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each sink once. ValueError where nobody registered one of this name."""
    if names:
        from worker.stream.sinks.base import SINKS

        for name in names:
            if name not in SINKS:
                raise ValueError(SINKS.unknown(name))
    return tuple(dict.fromkeys(names))


class KafkaSettings(Group):
    """The broker, the topics and what to do when the log has lost the committed offset."""

    bootstrap_servers: Annotated[
        str,
        BeforeValidator(_servers),
        StringConstraints(
            pattern=r"^(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}(\s*,\s*(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5})*$"
        ),
    ] = Field(
        default="localhost:9092",
        description="brokers to ask for the rest of the cluster",
        json_schema_extra={"allowed": "host:port, several separated by commas"},
    )
    input_topic: Topic = Field(default="records", description="topic with the records to score")
    format: Annotated[str, AfterValidator(_record_format)] = Field(
        default="json", description="what the bytes of a record are", json_schema_extra={"allowed": "json"}
    )
    alerts_topic: Topic = Field(default="alerts", description="topic for the alerts")
    dead_letter_topic: Topic = Field(default="dead-letters", description="topic for the records that can't be scored")
    scores_topic: Annotated[Topic | None, BeforeValidator(empty_is_none)] = Field(
        default=None, description="topic for the score of every record; off where empty"
    )
    state_topic: Annotated[Topic | None, BeforeValidator(empty_is_none)] = Field(
        default="anomaly-worker-state",
        description="compacted topic with the threshold state of every partition, created if missing; where empty, "
        "thresholds start from the calibration after each restart and rebalance",
    )
    group_id: Name = Field(
        default="anomaly-worker", description="consumer group; processes of one group share the partitions"
    )
    assignor: Literal["range", "roundrobin", "cooperative-sticky"] = Field(
        default="range",
        description="how the group shares partitions out; `cooperative-sticky` moves only those that must move. "
        "All processes of a group need the same",
    )
    start_from: Literal["earliest", "latest"] = Field(
        default="earliest", description="where a group without committed offsets begins"
    )
    offset_out_of_range: Literal["stop", "earliest", "latest"] = Field(
        default="stop", description="what to do when the broker has already deleted the committed offset"
    )
    delivery_timeout_ms: int = Field(
        default=30_000,
        ge=1_000,
        le=600_000,
        description="time in which a published record has to be acknowledged; then nothing is committed and the batch "
        "is sent again",
    )
    options: Annotated[dict[str, Any], NoDecode, BeforeValidator(parse_options)] = Field(
        default={},
        description="handed to every kafka-python client: TLS, SASL, timeouts; "
        'a value can be read from a file: `{"sasl_plain_password": {"file": "/run/secrets/password"}}`',
        json_schema_extra={"allowed": "JSON object"},
    )

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        for name in ("alerts_topic", "dead_letter_topic", "scores_topic", "state_topic"):
            if getattr(self, name) == self.input_topic:
                raise PydanticCustomError(
                    "topic_loop",
                    "WORKER_KAFKA__{name} = '{topic}': must differ from WORKER_KAFKA__INPUT_TOPIC, "
                    "else the worker reads what it writes",
                    {"name": name.upper(), "topic": self.input_topic},
                )
        if self.state_topic in {self.alerts_topic, self.dead_letter_topic, self.scores_topic} - {None}:
            raise PydanticCustomError(
                "state_topic",
                "WORKER_KAFKA__STATE_TOPIC = '{topic}': must be a topic of its own, compaction deletes other records",
                {"topic": self.state_topic},
            )
        return self

    def client_options(self) -> dict[str, Any]:
        """The options with their secrets in clear text: never log the result."""
        return reveal(self.options)

    def secrets(self) -> list[str]:
        """What no log may show, in clear text."""
        return secrets_of(self.options)


class BatchSettings(Group):
    """How many records are scored together, and how long the first of them may wait."""

    size: int = Field(default=8192, ge=1, le=1_000_000, description="most records in a batch")
    max_wait_ms: int = Field(
        default=50, ge=0, le=60_000, description="longest that a record waits for its batch to fill"
    )
    max_record_bytes: int = Field(
        default=1_048_576, ge=1, le=268_435_456, description="a larger record goes to the dead letters as `too_large`"
    )


class ThresholdSettings(Group):
    """One threshold per partition: a quantile that rolls with the traffic, or a fixed number."""

    rule: Annotated[
        Literal["rolling", "fixed", "training-quantile", "contamination"] | None, BeforeValidator(empty_is_none)
    ] = Field(
        default=None,
        description="where thresholds come from: a `rolling` quantile of recent scores, or for good: FIXED, a "
        "quantile of the training scores, or that of the contamination. Not set: the model's own, most often `rolling`",
    )
    fixed: float | None = Field(default=None, ge=0, le=1e30, description="the threshold of the rule `fixed`")
    training_quantile: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the training scores below the threshold of `training-quantile`; not set: the model's "
        "own, else 0.95",
    )
    contamination: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="share of the training records above the threshold of `contamination`; not set: the model's own, "
        "else 0.1",
    )
    quantile: Ratio = Field(default=0.995, description="share of the inliers' scores that lie below the threshold")
    window: int = Field(default=20_000, ge=100, le=10_000_000, description="scores that the quantile is taken of")
    stride: int = Field(
        default=256,
        ge=1,
        le=65_536,
        description="scored records between two updates of the threshold, at most the window",
    )
    policy: Literal["inlier", "plain"] = Field(
        default="inlier",
        description="the scores that the quantile is taken of: those of the inliers, or all of the `plain` window",
    )

    @model_validator(mode="after")
    def _fixed_is_given(self) -> Self:
        if self.rule == "fixed" and self.fixed is None:
            raise PydanticCustomError(
                "fixed", "WORKER_THRESHOLD__RULE = 'fixed': needs WORKER_THRESHOLD__FIXED, allowed is 0 to 1e+30"
            )
        return self


class Settings(BaseSettings):
    """The whole tree. `Settings()` is all defaults; `load_settings()` reads the environment and the files."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        str_strip_whitespace=True,
        allow_inf_nan=False,
    )

    schema_file: Name = Field(default="schema.toml", description="the fields of a record")
    model_store: Name = Field(
        default="models", description="where model versions live: a directory, or `s3://BUCKET/PREFIX`"
    )
    model_store_options: Annotated[dict[str, Any], NoDecode, BeforeValidator(parse_store_options)] = Field(
        default={},
        description="handed to the S3 client (s3fs), over what it finds in the usual `AWS_…` variables and files: "
        '`{"endpoint_url": "http://minio:9000", "key": "worker", "secret": {"file": "/run/secrets/s3"}}`',
        json_schema_extra={"allowed": "JSON object"},
    )
    model_canary_records: int = Field(
        default=20_000,
        ge=0,
        le=10_000_000,
        description="scored records after a swap in which the new model has to prove itself against the one before it, "
        "which comes back if it doesn't; 0 = off",
    )
    model_shadow: Annotated[Name | None, BeforeValidator(empty_is_none)] = Field(
        default=None,
        description="model version that scores a sample beside the current one without alerting; off where empty",
    )
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once",
        description="`at_least_once` can repeat an alert (with the same `alert_id`) after a crash",
    )
    sinks: Annotated[tuple[Name, ...], NoDecode, BeforeValidator(parse_list), AfterValidator(_registered)] = Field(
        default=(),
        description="receivers of outcomes beside the Kafka topics, by the names under which they were registered",
        json_schema_extra={"allowed": "names separated by commas"},
    )
    instance_id: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,150}$")] | None, BeforeValidator(empty_is_none)
    ] = Field(
        default=None,
        description="stable name of this process, different for each process of a group (a pod of a stateful set): "
        "partitions wait for it while it restarts, and a restart ends its open transaction at once",
    )
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = Field(
        default="auto",
        description="where the model runs; `auto` takes a GPU where there is one",
        json_schema_extra={"allowed": "auto, cpu, cuda or cuda:N"},
    )
    cpu_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="threads of one process for the model; a small network gains nothing from more, run more processes",
    )
    seed: int = Field(default=0, ge=0, le=4_294_967_295, description="start of all that is random")
    kafka: KafkaSettings = KafkaSettings()
    batch: BatchSettings = BatchSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    alerts: AlertSettings = AlertSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    breaker: BreakerSettings = BreakerSettings()

    def store_options(self) -> dict[str, Any]:
        """The options of the model store with their secrets in clear text: never log the result."""
        return reveal(self.model_store_options)

    def secrets(self) -> list[str]:
        """What no log may show, in clear text."""
        return [*self.kafka.secrets(), *secrets_of(self.model_store_options)]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - these four are the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `load_settings` is the one reader of the environment."""
        return (init_settings,)
