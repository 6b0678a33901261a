"""Settings: where they come from, what is refused, and in which words."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker.broker.client import ASSIGNORS
from worker.errors import SettingsError
from worker.formats import DECODERS
from worker.model.presets import PRESETS
from worker.model.scoring.score import SCORES
from worker.registry import Registry
from worker.settings import Settings, leaves, load_settings
from worker.thresholds.factory import POLICIES, RULES

ENV = Path("/nonexistent/.env")


def load(**environ: str) -> Settings:
    return load_settings(environ, dotenv=ENV)


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return str(caught.value)


def test_without_any_variable_everything_has_a_default() -> None:
    settings = load()

    assert settings == Settings()
    assert settings.schema_file == "schema.toml"
    assert settings.model_store == "models"
    assert settings.batch.size == 8192


def test_defaults_lie_within_their_own_ranges() -> None:
    defaults = Settings().model_dump()

    assert Settings.model_validate(defaults) == Settings()


def test_variables_reach_every_depth_whatever_their_case() -> None:
    settings = load(WORKER_SEED="7", WORKER_KAFKA__INPUT_TOPIC="t", worker_model__hidden="32, 8,32")

    assert settings.seed == 7
    assert settings.kafka.input_topic == "t"
    assert settings.model.hidden == (32, 8, 32)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(WORKER_BATCH__SIZE="", WORKER_KAFKA__SCORES_TOPIC="") == Settings()


def test_environment_beats_dotenv_beats_secret_files_beats_toml_beats_defaults(tmp_path: Path) -> None:
    config = tmp_path / "worker.toml"
    config.write_text("seed = 1\n[batch]\nsize = 1\nmax_wait_ms = 1\n[threshold]\nwindow = 1001\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "worker_seed").write_text("2\n")
    (secrets / "WORKER_BATCH__SIZE").write_text("2")
    (secrets / "WORKER_BATCH__MAX_WAIT_MS").write_text("2")
    dotenv = tmp_path / ".env"
    dotenv.write_text("WORKER_SEED=3\nWORKER_BATCH__SIZE=3\nOTHER=untouched\n")
    environ = {"WORKER_SEED": "4", "WORKER_CONFIG_FILE": str(config), "WORKER_SECRETS_DIR": str(secrets)}

    settings = load_settings(environ, dotenv=dotenv)

    assert settings.seed == 4
    assert settings.batch.size == 3
    assert settings.batch.max_wait_ms == 2
    assert settings.threshold.window == 1001
    assert settings.threshold.stride == 256


def test_a_setting_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().batch.size = 1


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("WORKER_KAFKA__INPUT_TOPICS", "WORKER_KAFKA__INPUT_TOPIC"),
        ("WORKER_KAFKA_GROUP_ID", "WORKER_KAFKA__GROUP_ID"),
        ("WORKER_HTTP_PORT", "WORKER_HTTP__PORT"),
        ("WORKER_SCHEMAFILE", "WORKER_SCHEMA_FILE"),
        ("WORKER_CONFIG", "WORKER_CONFIG_FILE"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_valid_name(name: str, near: str) -> None:
    assert refusal(**{name: "x"}) == f"unknown setting {name}: the nearest valid name is {near}"


def test_an_unknown_name_in_a_toml_file_is_refused_with_the_nearest_valid_name(tmp_path: Path) -> None:
    config = tmp_path / "worker.toml"
    config.write_text("[batch]\nsise = 5\n")

    message = refusal(WORKER_CONFIG_FILE=str(config))

    assert message == f"unknown setting batch.sise in {config}: the nearest valid name is WORKER_BATCH__SIZE"


def test_service_links_of_kubernetes_are_not_taken_for_settings() -> None:
    links = {
        "WORKER_PORT": "tcp://10.0.0.1:9100",
        "WORKER_PORT_9100_TCP_ADDR": "10.0.0.1",
        "WORKER_METRICS_SERVICE_HOST": "10.0.0.1",
    }

    assert load(**links) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORKER_BATCH__SIZE", "0", "WORKER_BATCH__SIZE = '0': allowed is 1 to 1000000"),
        ("WORKER_BATCH__SIZE", "1.5", "WORKER_BATCH__SIZE = '1.5': allowed is a whole number, 1 to 1000000"),
        ("WORKER_DELIVERY", "twice", "WORKER_DELIVERY = 'twice': allowed is at_least_once or exactly_once"),
        ("WORKER_DEVICE", "gpu", "WORKER_DEVICE = 'gpu': allowed is auto, cpu, cuda or cuda:N"),
        ("WORKER_THRESHOLD__QUANTILE", "1", "WORKER_THRESHOLD__QUANTILE = '1': allowed is above 0 and below 1"),
        ("WORKER_THRESHOLD__QUANTILE", "nan", "WORKER_THRESHOLD__QUANTILE = 'nan': allowed is above 0 and below 1"),
        (
            "WORKER_KAFKA__ALERTS_TOPIC",
            "no spaces",
            "WORKER_KAFKA__ALERTS_TOPIC = 'no spaces': allowed is 1 to 249 of a-z A-Z 0-9 . _ -",
        ),
        (
            "WORKER_KAFKA__BOOTSTRAP_SERVERS",
            "broker",
            "WORKER_KAFKA__BOOTSTRAP_SERVERS = 'broker': allowed is host:port, several separated by commas",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_value_and_range(name: str, value: str, message: str) -> None:
    assert refusal(**{name: value}) == message


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PRESET", "autoencoder", "allowed is denoising, pyod, pyramid, digits"),
        ("HIDDEN", "64,0", "allowed is 1 to 32 numbers, each 1 to 65536"),
        ("HIDDEN", "[]", "allowed is 1 to 32 numbers"),
        ("LATENT", "0", "allowed is 1 to 65536"),
        ("SCORE", "msee", "allowed is relative, mse, rmse, mae, sum-l1, euclidean, max or kl"),
        ("EPOCHS", "1.5", "allowed is a whole number, 1 to 1000000"),
        ("OPTIONS", '{"dropout": [1]}', "dropout = [1]: allowed is up to 63 numbers, each from 0 and below 1"),
        ("OPTIONS", '{"batch_norm": "perhaps"}', "batch_norm = 'perhaps': allowed is true or false"),
        ("OPTIONS", '{"output": "tanh"}', "output = 'tanh': allowed is linear or sigmoid"),
        ("OPTIONS", '{"optimiser": "sgd"}', "unknown option 'optimiser': the nearest is 'optimizer'"),
        ("OPTIONS", '{"hidden": [8]}', "hidden has a setting of its own, WORKER_MODEL__HIDDEN"),
        ("OPTIONS", "dropout=0.2", "is not valid JSON"),
        ("OPTIONS", "[1]", "must be a JSON object"),
        ("HOLDOUT", "0.6", "allowed is 0 to 0.5"),
        ("LEARNING_RATE", "0", "allowed is above 0 to 1"),
        ("FIELD_WEIGHTS", '{"amount": -1}', "allowed is JSON object of numbers from 0 to 1000000"),
        ("FIELD_WEIGHTS", "amount=2", "is not valid JSON"),
        ("FIELD_WEIGHTS", "[1]", "must be a JSON object"),
    ],
)
def test_a_value_of_a_model_that_can_not_be_is_refused_with_its_range(name: str, value: str, reason: str) -> None:
    message = refusal(**{f"WORKER_MODEL__{name}": value})

    assert message.startswith(f"WORKER_MODEL__{name} = ")
    assert reason in message


def test_one_number_is_a_list_of_one() -> None:
    model = load(WORKER_MODEL__HIDDEN="30", WORKER_MODEL__OPTIONS='{"dropout": 0.5}').model

    assert (model.hidden, model.options) == ((30,), {"dropout": (0.5,)})


def test_a_fixed_threshold_has_to_be_given() -> None:
    assert refusal(WORKER_THRESHOLD__RULE="fixed") == (
        "WORKER_THRESHOLD__RULE = 'fixed': needs WORKER_THRESHOLD__FIXED, allowed is 0 to 1e+30"
    )
    assert load(WORKER_THRESHOLD__RULE="fixed", WORKER_THRESHOLD__FIXED="0").threshold.fixed == 0


def test_each_problem_has_its_own_line() -> None:
    lines = refusal(WORKER_SEED="x", WORKER_BATCH__SIZE="0").splitlines()

    assert [line.split(" ")[0] for line in lines] == ["WORKER_SEED", "WORKER_BATCH__SIZE"]


def test_a_wrong_value_in_a_toml_file_names_the_file(tmp_path: Path) -> None:
    config = tmp_path / "worker.toml"
    config.write_text("[batch]\nsize = 0\n")

    assert refusal(WORKER_CONFIG_FILE=str(config)) == (
        f"WORKER_BATCH__SIZE = 0: allowed is 1 to 1000000 (in {config}: batch.size)"
    )


def test_a_config_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "worker.toml"
    broken.write_text("= 1")

    assert "No such file" in refusal(WORKER_CONFIG_FILE="/nonexistent/worker.toml")
    assert f"{str(broken)!r}: not valid TOML" in refusal(WORKER_CONFIG_FILE=str(broken))


@pytest.mark.parametrize("named", ["a", "a,b", "a, b.c", "^orders\\..*", "^(a|b)$"])
def test_a_topic_several_or_a_pattern_are_read(named: str) -> None:
    assert load_settings({"WORKER_KAFKA__INPUT_TOPIC": named}).kafka.input_topic == named


@pytest.mark.parametrize(
    ("named", "why"),
    [("a b", "allowed is topics"), ("a,,b", "allowed is topics"), ("^(", "is no regular expression")],
)
def test_what_names_no_topic_is_refused(named: str, why: str) -> None:
    assert why in refusal(WORKER_KAFKA__INPUT_TOPIC=named)


@pytest.mark.parametrize("named", ["in,out", "^o"])
def test_of_several_topics_none_may_be_one_that_the_worker_writes(named: str) -> None:
    message = refusal(WORKER_KAFKA__INPUT_TOPIC=named, WORKER_KAFKA__ALERTS_TOPIC="out")

    assert message.startswith("WORKER_KAFKA__ALERTS_TOPIC = 'out': must differ from WORKER_KAFKA__INPUT_TOPIC")


def test_a_topic_that_the_worker_both_reads_and_writes_is_refused() -> None:
    message = refusal(WORKER_KAFKA__INPUT_TOPIC="t", WORKER_KAFKA__ALERTS_TOPIC="t")

    assert message.startswith("WORKER_KAFKA__ALERTS_TOPIC = 't': must differ from WORKER_KAFKA__INPUT_TOPIC")


def test_options_are_handed_on_in_clear_text_and_shown_masked() -> None:
    options = {"security_protocol": "SASL_SSL", "sasl_plain_password": "hunter2", "request_timeout_ms": 5000}

    settings = load(WORKER_KAFKA__OPTIONS=json.dumps(options))

    assert settings.kafka.client_options() == options
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())


def test_an_option_can_be_read_from_a_file_and_loses_its_last_line_end(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(" hunter2 \n")

    settings = load(WORKER_KAFKA__OPTIONS=json.dumps({"sasl_plain_password": {"file": str(secret)}}))

    assert settings.kafka.client_options().get("sasl_plain_password") == " hunter2 "
    assert "hunter2" not in repr(settings)


def test_one_option_from_a_secret_file_joins_the_options_of_the_toml_file(tmp_path: Path) -> None:
    (tmp_path / "WORKER_KAFKA__OPTIONS__SASL_PLAIN_PASSWORD").write_text("12e4\n")
    config = tmp_path / "worker.toml"
    config.write_text('[kafka.options]\nsecurity_protocol = "SASL_SSL"\n')

    settings = load(WORKER_SECRETS_DIR=str(tmp_path), WORKER_CONFIG_FILE=str(config))

    options = settings.kafka.client_options()
    assert options["security_protocol"] == "SASL_SSL"
    assert options.get("sasl_plain_password") == "12e4"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('{"sasl_plain_password": "hunter2"', "is not valid JSON"),
        ('["hunter2"]', "must be a JSON object"),
        ('{"sasl_plain_password": "hunter2", "enable_auto_commit": true}', "enable_auto_commit is set by the worker"),
        ('{"x": "hunter2", "group_id": "g"}', "set by the worker: use [kafka.group_id]"),
        ('{"sasl_plain_password": {"file": "/nonexistent"}}', "sasl_plain_password: can't read /nonexistent: No such"),
    ],
)
def test_wrong_options_are_refused_without_showing_their_value(options: str, reason: str) -> None:
    message = refusal(WORKER_KAFKA__OPTIONS=options)

    assert message.startswith("WORKER_KAFKA__OPTIONS = ********: ")
    assert reason in message
    assert "hunter2" not in message


def test_secrets_of_the_model_store_are_masked_however_deep_they_lie(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2\n")
    options = {
        "key": "worker",
        "secret": {"file": str(tmp_path / "key")},
        "client_kwargs": {"session_token": "hunter3"},
    }

    settings = load(WORKER_MODEL_STORE_OPTIONS=json.dumps(options))

    assert settings.store_options() == {
        "key": "worker",
        "secret": "hunter2",
        "client_kwargs": {"session_token": "hunter3"},
    }
    assert settings.secrets() == ["hunter2", "hunter3"]
    assert "hunter" not in repr(settings) + str(settings.model_dump())
    assert "hunter" not in refusal(WORKER_MODEL_STORE_OPTIONS='{"secret": "hunter2"')


def test_passwords_in_urls_are_masked() -> None:
    message = refusal(WORKER_KAFKA__BOOTSTRAP_SERVERS="sasl://user:hunter2@host:1")

    assert "hunter2" not in message


def test_every_setting_has_one_line_of_help() -> None:
    names = [name for name, _, field in leaves() if field.description]

    assert len(names) == len(set(names))
    assert {
        "WORKER_KAFKA__BOOTSTRAP_SERVERS",
        "WORKER_KAFKA__OPTIONS",
        "WORKER_SCHEMA_FILE",
        "WORKER_THRESHOLD__QUANTILE",
        "WORKER_HTTP__PORT",
        "WORKER_LOG__FORMAT",
    } <= set(names)


@pytest.mark.parametrize(
    ("variable", "registry"),
    [
        ("WORKER_THRESHOLD__POLICY", POLICIES),
        ("WORKER_THRESHOLD__RULE", RULES),
        ("WORKER_KAFKA__ASSIGNOR", ASSIGNORS),
        ("WORKER_KAFKA__FORMAT", DECODERS),
        ("WORKER_MODEL__PRESET", PRESETS),
        ("WORKER_MODEL__SCORE", SCORES),
    ],
)
def test_what_is_registered_is_allowed_and_listed_where_it_is_not(variable: str, registry: Registry[Any]) -> None:
    assert refusal(**{variable: "toy"}) == f"{variable} = 'toy': allowed is {registry}"
    registry.register("toy", registry[next(iter(registry))])
    try:
        load(**{variable: "toy"})
        assert "toy" in str(registry)
    finally:
        registry.pop("toy")


def test_settings_are_read_and_refused_without_importing_torch() -> None:
    code = (
        "import sys\nfrom worker.errors import SettingsError\nfrom worker.settings import load_settings\n"
        "load_settings({'WORKER_THRESHOLD__POLICY': 'plain', 'WORKER_KAFKA__FORMAT': 'json'}, dotenv='')\n"
        "try: load_settings({'WORKER_THRESHOLD__RULE': 'rollin'}, dotenv='')\nexcept SettingsError: pass\n"
        "print('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
