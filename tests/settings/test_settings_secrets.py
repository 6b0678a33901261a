"""Secrets in settings: whatever prints, logs or checks settings shows none of them, in whatever form they come."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.cli import main
from worker.ops.logs import masking
from worker.settings import load_settings, shown
from worker.settings.base import is_secret

SECRET = "pl4nted-S3cret/of=mine"
PEM_LINES = ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBK", "q1pl4ntedKeyLine2ofTheSame")
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", *PEM_LINES, "-----END PRIVATE KEY-----", ""])

FORMS: list[tuple[str, str, Any]] = [
    ("kafka password", "WORKER_KAFKA__OPTIONS", {"sasl_plain_password": SECRET}),
    ("key's password", "WORKER_KAFKA__OPTIONS", {"ssl_password": SECRET}),
    ("login line", "WORKER_KAFKA__OPTIONS", {"sasl_jaas_config": f'PlainLoginModule required password="{SECRET}";'}),
    ("token", "WORKER_KAFKA__OPTIONS", {"oauth": {"access_token": SECRET}}),
    ("client secret", "WORKER_KAFKA__OPTIONS", {"oauth": [{"client_secret": SECRET}]}),
    ("pair in another option", "WORKER_KAFKA__OPTIONS", {"login": f"user=u password={SECRET}"}),
    ("proxy", "WORKER_KAFKA__OPTIONS", {"http_proxy": f"http://user:{SECRET}@proxy:8080"}),
    ("object store", "WORKER_MODEL_STORE_OPTIONS", {"key": "AKIAIOSFODNN7EXAMPLE", "secret": SECRET}),
    ("deep in the store's options", "WORKER_MODEL_STORE_OPTIONS", {"client_kwargs": {"aws_secret_access_key": SECRET}}),
    ("header", "WORKER_MODEL_STORE_OPTIONS", {"headers": {"Authorization": SECRET}}),
    ("store's address", "WORKER_MODEL_STORE", f"s3://user:{SECRET}@bucket/models"),
    ("redaction", "WORKER_ALERTS__REDACT_SECRET", SECRET),
]


@pytest.mark.parametrize(("variable", "value"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_a_secret_is_known_as_one_and_masked_wherever_the_setting_is_shown(variable: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    settings = load_settings({variable: text})

    mask = masking(settings.secrets())
    assert SECRET not in shown(variable, text)
    assert SECRET not in mask(f"could not use {text!r}: {SECRET}")
    assert "AKIAIOSFODNN7EXAMPLE" not in mask(text)


def test_the_secret_of_redaction_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")

    settings = load_settings({"WORKER_ALERTS__REDACT_SECRET": json.dumps({"file": str(tmp_path / "secret")})})

    assert settings.alerts.redact_secret is not None
    assert settings.alerts.redact_secret.get_secret_value() == SECRET
    assert SECRET in settings.secrets()
    assert SECRET not in str(settings)


@pytest.mark.parametrize("name", ["ssl_keyfile", "ssl_certfile", "sasl_mechanism", "sasl_plain_username", "token_file"])
def test_names_that_only_sound_like_secrets_are_shown(name: str) -> None:
    assert not is_secret(name)


def test_a_private_key_given_by_its_file_is_the_path_that_the_client_reads(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    options = {"ssl_keyfile": {"file": str(tmp_path / "key.pem")}}

    settings = load_settings({"WORKER_KAFKA__OPTIONS": json.dumps(options)})

    assert settings.kafka.client_options() == {"ssl_keyfile": str(tmp_path / "key.pem")}


@pytest.mark.parametrize("option", ["ssl_keyfile", "sasl_plain_password", "client_id"])
@pytest.mark.parametrize("form", ["file", "text"])
def test_check_prints_no_line_of_a_private_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, form: str
) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    value = {"file": str(tmp_path / "key.pem")} if form == "file" else PEM
    options = {"security_protocol": "SSL", option: value}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("WORKER_KAFKA__OPTIONS", json.dumps(options))
    monkeypatch.setenv("WORKER_DEVICE", "cpu")

    code = main(["check"])

    said = "".join(capsys.readouterr())
    assert (code, "broker" in said) == (1, True)
    assert not [line for line in PEM_LINES if line in said], said
