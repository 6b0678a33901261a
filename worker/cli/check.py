"""`worker check`: settings, device, schema, model store, rules, broker and topics, each with what to do about it."""

import argparse
import contextlib
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.broker.probe import probe
from worker.errors import BrokerUnavailable, FatalError, MissingTopic, SettingsError, WorkerError
from worker.features.schema import Schema, load_schema
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.model.store.bundle import Bundle

HELP = "Says whether settings, schema, model store and broker are in order; changes nothing. Exit 1 if anything is not."
EXAMPLE = "WORKER_KAFKA__BOOTSTRAP_SERVERS=broker:9092 WORKER_KAFKA__INPUT_TOPIC=payments worker check"

CONNECT_TIMEOUT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: what is checked is what the settings say."""


def run(_: argparse.Namespace) -> int:
    """Check one thing after the other; 1 if anything is wrong."""
    try:
        settings = load_settings()
    except SettingsError as error:
        for line in str(error).splitlines():
            _say("FAILED", "settings", line)
        for name in (
            "device",
            "schema",
            "model store",
            "recipe",
            "scoring",
            "threshold",
            "silences",
            "broker",
            "topics",
        ):
            _say("skipped", name, "the settings come first")
        return 1
    _say("ok", "settings", "all values are valid")
    checks = Checks(settings)
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("device", checks.device),
        ("schema", checks.schema),
        ("model store", checks.model_store),
        ("recipe", checks.recipe),
        ("scoring", checks.scoring),
        ("threshold", checks.threshold),
        ("silences", checks.silences),
        ("broker", checks.broker),
        ("topics", checks.topics),
    )
    verdicts = [_step(name, check) for name, check in steps]
    return 0 if all(verdicts) else 1


def _step(name: str, check: Callable[[], str]) -> bool:
    try:
        _say("ok", name, check())
    except Skipped as reason:
        _say("skipped", name, str(reason))
    except WorkerError as error:
        _say("FAILED", name, " ".join(str(error).split()))
        return False
    return True


def _say(verdict: str, name: str, text: str) -> None:
    print(f"{verdict:<8}{name:<12} {text}", flush=True)


class Skipped(Exception):
    """This can't be checked yet; the text says why."""


@dataclass
class Checks:
    """Each method checks one thing: returns what it found, or raises WorkerError with what to do."""

    settings: Settings
    known_schema: Schema | None = None
    partitions: Mapping[str, int] | None = None
    bundle: "Bundle | None" = None

    def device(self) -> str:
        """The device exists."""
        from worker.model.scoring.scorer import resolve_device

        return str(resolve_device(self.settings.device))

    def schema(self) -> str:
        """The schema file is valid."""
        path = self.settings.schema_file
        if not Path(path).exists():
            raise SettingsError(
                f"WORKER_SCHEMA_FILE = {path!r}: no such file; propose one with: worker infer-schema FILE > {path}"
            )
        self.known_schema = load_schema(path)
        return f"{path}: {len(self.known_schema.fields)} fields, fingerprint {self.known_schema.fingerprint[:12]}"

    def model_store(self) -> str:
        """The store can be read and written, and its current version loads and fits the schema."""
        from worker.processes.wiring import model_store

        root = self.settings.model_store
        store = model_store(self.settings)
        version = store.current()
        if "://" in root:
            store.require_writable()
        else:
            _require_writable(Path(root))
        if version is None:
            return f"{root}: no model yet; fit one with: worker train --once --from FILE"
        bundle = store.load(version)
        if self.known_schema is None:
            return f"{root}: version {version} is sound; the schema to compare it with is not"
        bundle.require_schema(self.known_schema)
        self.bundle = bundle
        shadow = self.settings.model_shadow
        if shadow is not None and shadow != version:
            store.load(shadow).require_schema(self.known_schema)
            return f"{root}: version {version} and the shadow {shadow} are sound and fit the schema"
        return f"{root}: version {version} is sound and fits the schema"

    def recipe(self) -> str:
        """What the next fit will be."""
        from worker.cli.check_scoring import recipe

        return recipe(self.bundle, self.settings)

    def scoring(self) -> str:
        """What a score is, and what it costs here."""
        from worker.cli.check_scoring import scoring

        return scoring(self._current(), self.settings.device)

    def threshold(self) -> str:
        """Where thresholds come from."""
        from worker.cli.check_scoring import threshold

        return threshold(self._current(), self.settings.threshold)

    def _current(self) -> "Bundle":
        if self.bundle is None:
            raise Skipped("a model that fits the schema comes first")
        return self.bundle

    def silences(self) -> str:
        """The file with silences rules is valid and names fields that the schema has."""
        path = self.settings.alerts.silences_file
        if path is None:
            return "no rules"
        from worker.alerts.silences import load_silences

        rules = load_silences(path)
        if self.known_schema is not None:
            rules.require_fields(tuple(field.name for field in self.known_schema.encoded))
        return f"{path}: {len(rules.rules)} rules"

    def broker(self) -> str:
        """At least one bootstrap server answers, and the client gets in."""
        from worker.broker.admin import topic_partitions

        connection = self._connection()
        servers = self.settings.kafka.bootstrap_servers.split(",")
        said = [self._probe(server) for server in servers]
        if not any(answers for answers, _ in said):
            raise BrokerUnavailable("; ".join(text for _, text in said))
        with client_complaints() as complaints:
            try:
                self.partitions = topic_partitions(connection)
            except (BrokerUnavailable, FatalError) as error:
                raise BrokerUnavailable(self._why(error, complaints)) from error
        return "; ".join(text for _, text in said)

    def topics(self) -> str:
        """Every topic of the settings exists."""
        found, kafka = self.partitions, self.settings.kafka
        if found is None:
            raise Skipped("the broker comes first")
        results = [kafka.alerts_topic, kafka.dead_letter_topic, *([kafka.scores_topic] if kafka.scores_topic else [])]
        wanted = [kafka.input_topic, *results]
        missing = [topic for topic in wanted if topic not in found]
        if kafka.input_topic in missing or (missing and not self._broker_creates_topics()):
            raise MissingTopic(
                f"not on the broker, or not visible to this user: {', '.join(missing)}; create with: "
                f"kafka-topics.sh --create --topic {missing[0]} --bootstrap-server {kafka.bootstrap_servers}"
            )
        return ", ".join(
            f"{topic} ({found[topic]} partitions)" if topic in found else f"{topic} (created when it is written to)"
            for topic in wanted
        )

    def _broker_creates_topics(self) -> bool:
        from worker.broker.access import creates_topics

        return creates_topics(self._connection())

    def _connection(self) -> Any:
        from worker.broker.client import Connection

        kafka = self.settings.kafka
        options = kafka.client_options()
        return Connection(kafka.bootstrap_servers, options=options, connect_timeout_s=CONNECT_TIMEOUT_S)

    def _probe(self, server: str) -> tuple[bool, str]:
        try:
            return True, probe(server, self.settings.kafka.client_options())
        except BrokerUnavailable as error:
            return False, str(error)

    def _why(self, error: Exception, complaints: list[str]) -> str:
        telling = [text for text in complaints if "sasl" in text.lower() or "authenticat" in text.lower()]
        if telling:
            reason = re.sub(r"^.*Error: | \(backoff .*$", "", telling[-1])
            return f"the broker refuses the login: {reason}; check sasl_mechanism, user and password"
        protocol = self.settings.kafka.options.get("security_protocol", "PLAINTEXT")
        return (
            f"{error}; the port answers, so check security_protocol (now {protocol}) and that the addresses which the "
            f"broker advertises can be reached from here{': ' + complaints[-1] if complaints else ''}"
        )


def _require_writable(root: Path) -> None:
    """Writes and removes a file of its own where the store is, or where it would be created."""
    from worker.errors import StoreError

    place = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    trial = place / f".check-{uuid.uuid4().hex}"
    try:
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise StoreError(f"{root}: can't be written ({error.strerror}); the trainer needs that") from error


@contextlib.contextmanager
def client_complaints() -> Iterator[list[str]]:
    """What the Kafka client's loggers say from warning on, instead of printing it."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, collector = logging.getLogger("kafka"), Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield said
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
