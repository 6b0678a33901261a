"""The settings of the broker and the topics."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from worker.broker.topic_names import fitting_topics, is_pattern
from worker.settings.base import (
    Group,
    Name,
    empty_is_none,
    matching,
    parse_kafka_options,
    registered,
    reveal,
    setting,
)

_SERVER = r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}"
_NAME = r"[a-zA-Z0-9._-]{1,249}"
_TOPIC = matching(_NAME, "1 to 249 of a-z A-Z 0-9 . _ -")
_OPTIONAL = BeforeValidator(empty_is_none)

Topic = Annotated[str, _TOPIC]
OptionalTopic = Annotated[str | None, _OPTIONAL, _TOPIC]


def _comma_separated(value: Any) -> Any:
    """A list from TOML becomes the comma-separated form that Kafka's own tools use."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _known_pattern(text: str) -> str:
    """ValueError where a pattern is no regular expression."""
    if is_pattern(text):
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
    return text


class KafkaSettings(Group):
    """The broker, the topics and what to do when the log has lost the committed offset."""

    bootstrap_servers: Annotated[
        str,
        BeforeValidator(_comma_separated),
        matching(rf"{_SERVER}(\s*,\s*{_SERVER})*", "host:port, several separated by commas"),
    ] = setting("localhost:9092", "brokers to ask for the rest of the cluster")
    input_topic: Annotated[
        str,
        BeforeValidator(_comma_separated),
        AfterValidator(_known_pattern),
        matching(rf"{_NAME}(\s*,\s*{_NAME})*|\^.+", "topics, separated by commas, or a pattern that begins with ^"),
    ] = setting(
        "records",
        "topic with the records to score; several, `orders,payments`, or all that fit a pattern, `^orders\\..*`, share "
        "one schema and one model",
    )
    format: Annotated[str, registered("worker.formats", "DECODERS")] = setting("json", "what the bytes of a record are")
    alerts_topic: Topic = setting("alerts", "topic for the alerts")
    dead_letter_topic: Topic = setting("dead-letters", "topic for the records that can't be scored")
    scores_topic: OptionalTopic = setting(None, "topic for the score of every record; off where empty")
    state_topic: OptionalTopic = setting(
        "anomaly-worker-state",
        "compacted topic of checkpoints, created if missing; empty: restarts begin thresholds anew",
    )
    group_id: Name = setting("anomaly-worker", "consumer group; processes of one group share the partitions")
    assignor: Annotated[str, registered("worker.broker.client", "ASSIGNORS")] = setting(
        "range", "how a group shares its partitions, the same for all; `cooperative-sticky` moves as few as it can"
    )
    start_from: Literal["earliest", "latest"] = setting("earliest", "where a group without committed offsets begins")
    offset_out_of_range: Literal["stop", "earliest", "latest"] = setting(
        "stop", "what to do when the broker has already deleted the committed offset"
    )
    isolation_level: Literal["read_committed", "read_uncommitted"] = setting(
        "read_committed",
        "whether records of aborted transactions are left out, by worker, trainer and `replay --topic` alike; "
        "`exactly_once` needs `read_committed`",
    )
    delivery_timeout_ms: int = setting(
        30_000, "time for an acknowledgement; then the batch is read and sent again", within=(1_000, 600_000)
    )
    rebootstrap_s: float = setting(
        20.0,
        "time without an answer, after which clients ask the bootstrap servers again, their names resolved anew",
        within=(5, 3600),
    )
    unreadable: Literal["skip", "stop"] = setting(
        "skip",
        "records that can't be read, not even as a dead letter, are passed over, named in the log and counted; or the "
        "worker stops in front of them",
    )
    max_unpacked_bytes: int = setting(
        268_435_456,
        "what a compressed record batch may unpack to, and four times what one record of it may; what lies beyond "
        "can't be read",
        within=(1_048_576, 1 << 40),
    )
    options: Annotated[dict[str, Any], BeforeValidator(parse_kafka_options)] = setting(
        {},
        "handed to every kafka-python client: TLS, SASL, timeouts; a value can be read from a file: "
        '`{"sasl_plain_password": {"file": "/run/secrets/password"}}`',
        allowed="JSON object",
    )

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        for name in ("alerts_topic", "dead_letter_topic", "scores_topic", "state_topic"):
            topic = getattr(self, name)
            if topic is not None and fitting_topics(self.input_topic, [topic]):
                raise ValueError(
                    f"WORKER_KAFKA__{name.upper()} = {topic!r}: must differ from WORKER_KAFKA__INPUT_TOPIC, "
                    "else the worker reads what it writes"
                )
        if self.state_topic in {self.alerts_topic, self.dead_letter_topic, self.scores_topic} - {None}:
            raise ValueError(
                f"WORKER_KAFKA__STATE_TOPIC = {self.state_topic!r}: must be a topic of its own: it is compacted"
            )
        return self

    @property
    def read_committed(self) -> bool:
        """Whether records of aborted transactions are left out; the client's own option of this name counts, too."""
        return bool(self.options.get("isolation_level", self.isolation_level) == "read_committed")

    def client_options(self) -> dict[str, Any]:
        """The options with their secrets in clear text: never log the result."""
        return reveal(self.options)
