"""The container files agree with the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.cli import COMMANDS
from worker.features.schema import load_schema
from worker.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
NO_FILE = "/nonexistent/.env"


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def by_default(environment: dict[str, str]) -> dict[str, str]:
    """The variables as compose fills them in where nobody sets its own."""
    return {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text) for name, text in environment.items()}


@pytest.fixture
def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def test_the_compose_file_runs_the_kafka_that_was_measured(services: dict[str, Any]) -> None:
    measured = re.search(r"\| Apache Kafka \| ([0-9.]+),", (DEPLOY.parent / "docs" / "measurements.md").read_text())

    assert measured is not None
    assert {services[name]["image"] for name in ("kafka", "topics")} == {f"apache/kafka:{measured[1]}"}


@pytest.mark.parametrize("name", ["worker", "trainer"])
def test_every_variable_of_the_compose_file_is_a_setting_and_every_value_is_allowed(
    services: dict[str, Any], name: str
) -> None:
    environment = by_default(services[name]["environment"])

    settings = load_settings(environment, dotenv=NO_FILE)

    assert environment.keys() == {key for key in environment if key.startswith("WORKER_")}
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.model_store == "/models"


def test_every_variable_of_the_image_is_a_setting(dockerfile: str) -> None:
    variables = dict(re.findall(r"(WORKER_\w+)=(\S+)", dockerfile))

    settings = load_settings(variables, dotenv=NO_FILE)

    assert settings.http.port == 9100
    assert f"EXPOSE {settings.http.port}" in dockerfile


def test_worker_and_trainer_share_the_models_and_run_commands_that_exist(services: dict[str, Any]) -> None:
    for name, command in (("worker", "run"), ("trainer", "train")):
        assert services[name]["command"] == [command]
        assert command in COMMANDS
        assert "models:/models" in services[name]["volumes"]


def test_all_topics_of_the_settings_are_created(services: dict[str, Any]) -> None:
    created = set(re.findall(r"([\w-]+):\d\b", services["topics"]["command"][-1]))

    environment = services["worker"]["environment"]
    assert created == {text for name, text in environment.items() if name.endswith("_TOPIC")}


def test_the_schema_that_is_mounted_by_default_exists_and_is_valid(services: dict[str, Any]) -> None:
    (path,) = {
        re.sub(r"^\$\{SCHEMA:-(.*?)\}:.*$", r"\1", volume)
        for name in ("worker", "trainer")
        for volume in services[name]["volumes"]
        if "SCHEMA" in volume
    }

    assert load_schema(DEPLOY / path).fields


def test_the_image_runs_as_an_ordinary_user_and_gets_signals_itself(dockerfile: str) -> None:
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["worker"\]$', dockerfile, re.MULTILINE)


def test_what_the_image_copies_exists_and_is_not_ignored(dockerfile: str) -> None:
    root = DEPLOY.parent
    copied = {
        path for sources in re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE) for path in sources.split()
    }
    let_through = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }

    assert copied == let_through
    assert all((root / path).exists() for path in copied)
