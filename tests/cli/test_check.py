"""`worker check`: a line for each thing, and what to do about what is wrong."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools.brokers import KAFKA_HOME, ApacheBroker
from devtools.objects import ObjectServer
from devtools.registry import running_registry
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.cli import main
from worker.demo.processes import free_port
from worker.features.schema import parse_schema
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.model_store import ModelStore
from worker.processes import checks

SCHEMA = '[fields.amount]\nkind = "numeric"\n[fields.country]\nkind = "categorical"\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a broker address where nobody listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{closed_port()}")
    monkeypatch.setenv("WORKER_DEVICE", "cpu")
    return tmp_path


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[int, str, str]]:
    """The exit code, verdict and text for each thing that was checked."""
    code = main(["check"])
    rows = capsys.readouterr().out.splitlines()
    return {row[8:20].strip(): (code, row[:8].strip(), row[21:]) for row in rows}


def a_model(place: Path, **values: Any) -> str:
    """A schema file, and a model in the store that fits it."""
    (place / "schema.toml").write_text(SCHEMA)
    rows = [{"amount": float(n % 50), "country": "NL" if n % 3 else "DE"} for n in range(200)]
    options = FitOptions(hidden=(4,), steps=5, batch=32, **values)
    bundle = fit_bundle(parse_schema(SCHEMA), rows, options, created_at="2026-01-01T00:00:00Z")
    store = ModelStore(place / "models")
    store.save(bundle)
    store.promote(bundle.version)
    return bundle.version


@pytest.mark.broker
def test_everything_in_order_exits_0(
    place: Path,
    connection: Connection,
    make_topic: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = make_topic(3)
    ensure_topics(connection, {"alerts": 1, "dead-letters": 1})
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    monkeypatch.setenv("WORKER_KAFKA__INPUT_TOPIC", topic)
    version = a_model(place)

    findings = verdicts(capsys)

    assert {(code, verdict) for code, verdict, _ in findings.values()} == {(0, "ok")}
    assert list(findings) == ["settings", *checks.CHECKS]
    assert findings["model store"][2] == f"models: version {version} is sound and fits the schema"
    assert f"{topic} (3 partitions)" in findings["topics"][2]


@pytest.mark.broker
def test_of_several_topics_each_is_looked_at_and_a_pattern_is_told_what_fits(
    place: Path,
    connection: Connection,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    said = {}
    for named in (f"{topic},not-there", f"^{topic}$", "^not-there"):
        monkeypatch.setenv("WORKER_KAFKA__INPUT_TOPIC", named)
        said[named] = verdicts(capsys)["topics"]

    assert [verdict for _, verdict, _ in said.values()] == ["FAILED", "ok", "FAILED"]
    assert "--create --topic not-there" in said[f"{topic},not-there"][2]
    assert f"{topic} (1 partitions)" in said[f"^{topic}$"][2]
    assert "fits no topic" in said["^not-there"][2]


@pytest.mark.broker
def test_a_missing_input_topic_is_named_with_the_command_that_creates_it(
    place: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)
    monkeypatch.setenv("WORKER_KAFKA__INPUT_TOPIC", "not-there")

    code, verdict, text = verdicts(capsys)["topics"]

    assert (code, verdict) == (1, "FAILED")
    assert "--create --topic not-there" in text


def test_wrong_settings_are_a_line_each_and_the_rest_is_skipped(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKER_BATCH__SIZE", "0")

    findings = verdicts(capsys)

    assert findings["settings"] == (1, "FAILED", "WORKER_BATCH__SIZE = '0': allowed is 1 to 1000000")
    assert findings["broker"][1] == "skipped"


def test_an_empty_place_says_how_to_begin_and_does_not_stop_at_the_first_fault(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = verdicts(capsys)

    assert findings["schema"][:2] == (1, "FAILED")
    assert "worker infer-schema FILE > schema.toml" in findings["schema"][2]
    assert findings["model store"] == (1, "ok", "models: no model yet; fit one with: worker train --once --from FILE")
    assert "connection refused" in findings["broker"][2]
    assert findings["topics"][1] == "skipped"
    assert not list(place.iterdir())


def test_a_model_of_another_schema_is_refused_with_both_fingerprints(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_model(place)
    other = SCHEMA.replace("country", "city")
    (place / "schema.toml").write_text(other)

    _, verdict, text = verdicts(capsys)["model store"]

    assert verdict == "FAILED"
    assert parse_schema(SCHEMA).fingerprint in text
    assert parse_schema(other).fingerprint in text


def test_the_schema_registry_is_asked_where_records_need_one(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    none = verdicts(capsys)["registry"]
    monkeypatch.setenv("WORKER_KAFKA__FORMAT", "avro")
    unnamed = verdicts(capsys)["registry"]
    with running_registry() as registry:
        monkeypatch.setenv("WORKER_REGISTRY__URL", registry.url)
        there = verdicts(capsys)["registry"]
        registry.login = "t0ken"
        refused = verdicts(capsys)["registry"]
        registry.away = True
        away = verdicts(capsys)["registry"]

    assert none[1:] == ("ok", "none")
    assert unnamed[1] == "FAILED"
    assert unnamed[2].startswith("WORKER_REGISTRY__URL is not set: WORKER_KAFKA__FORMAT = avro")
    assert there[1] == "ok"
    assert refused[1] == away[1] == "FAILED"
    assert "HTTP 401; check WORKER_REGISTRY__USER" in refused[2]
    assert "HTTP 503" in away[2]


def test_silences_are_read(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    a_model(place)
    monkeypatch.setenv("WORKER_ALERTS__SILENCES_FILE", "silences.toml")
    (place / "silences.toml").write_text('[silences.tests]\nfield = "country"\nvalues = ["XX"]\n')
    good = verdicts(capsys)["silences"]
    (place / "silences.toml").write_text('[silences.tests]\nfeild = "country"\n')
    broken = verdicts(capsys)["silences"]

    assert good[1:] == ("ok", "silences.toml: 1 silences")
    assert broken[:2] == (1, "FAILED")
    assert "tests" in broken[2]


def test_a_broken_model_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = a_model(place)
    weights = max((place / "models" / version).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))

    assert verdicts(capsys)["model store"][1] == "FAILED"


def test_a_shadow_that_is_not_in_the_store_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = a_model(place)
    second = a_model(place, seed=1)
    monkeypatch.setenv("WORKER_MODEL_SHADOW", first)
    sound = verdicts(capsys)["model store"]
    monkeypatch.setenv("WORKER_MODEL_SHADOW", "abcabcabcabc")
    missing = verdicts(capsys)["model store"]

    assert sound[1:] == ("ok", f"models: version {second} and the shadow {first} are sound and fit the schema")
    assert missing[1] == "FAILED"
    assert "no model version 'abcabcabcabc'" in missing[2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_store_that_can_not_be_written_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_model(place)
    (place / "models").chmod(0o500)

    findings = verdicts(capsys)
    (place / "models").chmod(0o700)

    assert "can't be written" in findings["model store"][2]


def test_a_store_that_is_a_file_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "models").write_text("")

    assert verdicts(capsys)["model store"][1] == "FAILED"


def on_s3(monkeypatch: pytest.MonkeyPatch, server: ObjectServer, endpoint: str) -> str:
    url = server.url()
    monkeypatch.setenv("WORKER_MODEL_STORE", url)
    monkeypatch.setenv("WORKER_MODEL_STORE_OPTIONS", json.dumps({**server.options, "endpoint_url": endpoint}))
    return url


def test_a_store_on_s3_is_tried(
    place: Path, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = on_s3(monkeypatch, object_server, object_server.endpoint)

    store = verdicts(capsys)["model store"]

    assert store[1:] == ("ok", f"{url}: no model yet; fit one with: worker train --once --from FILE")


def test_a_store_on_s3_that_is_away_is_found(
    place: Path, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_s3(monkeypatch, object_server, f"http://127.0.0.1:{closed_port()}")

    store = verdicts(capsys)["model store"]

    assert store[1] == "FAILED"
    assert "Could not connect" in store[2]


class PasswordBroker(ApacheBroker):
    """Asks for a password on a listener of its own."""

    def _properties(self) -> dict[str, object]:
        properties = super()._properties()
        self.address = f"127.0.0.1:{free_port()}"
        login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="secret";'
        protocols = properties["listener.security.protocol.map"]
        return {
            **properties,
            "listeners": f"{properties['listeners']},SASL_PLAINTEXT://{self.address}",
            "listener.security.protocol.map": f"{protocols},SASL_PLAINTEXT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
        }


@pytest.mark.kafka
def test_a_wrong_password_is_told_apart_from_a_wrong_protocol(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = PasswordBroker(Path(KAFKA_HOME or ""), place / "broker")
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", broker.address)
    monkeypatch.setattr(checks, "CONNECT_TIMEOUT_S", 5.0)
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "app"}

    with contextlib.closing(broker):
        findings = []
        for options in (
            {**login, "sasl_plain_password": "secret"},
            {**login, "sasl_plain_password": "hunter2"},
            {**login, "sasl_mechanism": "SCRAM-SHA-256", "sasl_plain_password": "secret"},
            {},
        ):
            monkeypatch.setenv("WORKER_KAFKA__OPTIONS", json.dumps(options))
            findings.append(verdicts(capsys)["broker"])
    right, wrong, other, none = findings

    assert right[1] == "ok"
    assert wrong[1] == "FAILED"
    assert "the broker refuses the login: Authentication failed" in wrong[2]
    assert "hunter2" not in wrong[2]
    assert other[2].endswith("the broker takes sasl_mechanism PLAIN, not 'SCRAM-SHA-256'")
    assert none[1] == "FAILED"
    assert "this port wants a login: set security_protocol to SASL_" in none[2]


@pytest.mark.parametrize(
    ("values", "says", "threshold"),
    [
        ({}, "relative of a linear output.*no one-hot column is computed", "rolling quantile 0.995 of 20,000 scores"),
        (
            {"output": "sigmoid", "preprocessing": "minmax", "rule": "fixed", "rule_value": 0.25},
            r"sigmoid output.*all 6 one-hot columns are computed.* µs a record, \d+\.\d without",
            "0.25 for good, by the rule fixed, as the model asks",
        ),
        ({"score": "max"}, "max of a linear output.*all 6 one-hot columns", "rolling"),
    ],
)
def test_what_scoring_costs_at_this_vocabulary_and_where_thresholds_come_from_are_told(
    place: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], says: str, threshold: str
) -> None:
    a_model(place, **values)

    findings = verdicts(capsys)
    assert re.search(says, findings["scoring"][2])
    assert threshold in findings["threshold"][2]


@pytest.mark.parametrize(
    ("environment", "verdict", "says"),
    [
        ({}, "ok", "preset denoising, robust scaling.*7-128-64-128-7"),
        ({"PRESET": "digits", "LATENT": "2"}, "ok", "preset digits, minmax scaling.*7-32-2-32-7"),
        ({"PRESET": "digits"}, "FAILED", "WORKER_MODEL__LATENT = 8: allowed is 1 to 6"),
        (
            {"PRESET": "digits", "OPTIONS": '{"preprocessing": "robust"}'},
            "FAILED",
            "__OPTIONS preprocessing = 'robust'",
        ),
    ],
)
def test_the_recipe_of_the_next_fit_is_checked_against_the_current_model(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    verdict: str,
    says: str,
) -> None:
    a_model(place)
    for name, value in environment.items():
        monkeypatch.setenv(f"WORKER_MODEL__{name}", value)

    _, finding, text = verdicts(capsys)["recipe"]
    assert finding == verdict
    assert re.search(says, text)


def test_without_a_model_nothing_is_said_about_scoring(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdicts(capsys)["scoring"][1] == verdicts(capsys)["threshold"][1] == "skipped"


def test_redaction_names_a_likely_misspelling_and_what_the_model_still_holds(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = a_model(place)
    monkeypatch.setenv("WORKER_ALERTS__REDACT", "country,amuont,free.form")

    code, verdict, text = verdicts(capsys)["redaction"]

    assert verdict == "ok"
    assert "'amuont' (did you mean 'amount'?), 'free.form'" in text
    assert f"version {version} was fitted before and holds values of country" in text
    assert "WORKER_ALERTS__REDACT_SECRET" in text
    assert code == 1  # for the broker
