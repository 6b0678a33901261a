"""Files and messages that the pages show are ones that the worker takes or writes."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.docs.common import LANGUAGES, PAGES, ROOT, Block, blocks_of, name_of, text_of, validator
from worker.alerts.silences import load_silences
from worker.features.schema import parse_schema
from worker.settings import load_settings

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CHECKS = {"toml": ("schema", "silences", "settings"), "json": ("alert", "score")}


def checked(detail: str) -> list[Block]:
    return [block for block in BLOCKS if block.mark == "check" and block.detail == detail]


def test_every_block_is_run_or_checked_or_says_why_not() -> None:
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block}: a block is one of {', '.join(LANGUAGES)}"
        if block.language in CHECKS and block.mark != "not run":
            said = block.mark == "check" and block.detail in CHECKS[block.language]
            assert said, f"{block}: <!-- check: {' | '.join(CHECKS[block.language])} -->"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_indented_blocks(page: Path) -> None:
    """They would be neither run nor checked."""
    previous = ""
    for number, line in enumerate(text_of(page).split("\n"), 1):
        inside = any(b.line <= number <= b.line + b.text.count("\n") + 1 for b in blocks_of(page))
        assert inside or previous or not line.startswith("    "), f"{name_of(page)}:{number}"
        previous = line.strip()


@pytest.mark.parametrize("block", checked("schema"), ids=str)
def test_a_schema_on_a_page_is_valid(block: Block) -> None:
    schema = parse_schema(block.text, source=str(block))

    assert schema.encoded


@pytest.mark.parametrize("block", checked("silences"), ids=str)
def test_silences_on_a_page_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "silences.toml").write_text(block.text, encoding="utf-8")

    assert load_silences(tmp_path / "silences.toml").silences


@pytest.mark.parametrize("block", checked("settings"), ids=str)
def test_a_configuration_file_on_a_page_is_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(block.text, encoding="utf-8")
    settings = load_settings({"WORKER_CONFIG_FILE": str(file)}, dotenv=tmp_path / "none")

    for name, value in tomllib.loads(block.text).items():
        assert isinstance(value, dict) or getattr(settings, name) == value


@pytest.mark.parametrize("block", [*checked("alert"), *checked("score")], ids=str)
def test_a_message_on_a_page_follows_its_json_schema(block: Block) -> None:
    validator(block.detail).validate(json.loads(block.text))


def test_the_readme_shows_an_alert_and_a_schema() -> None:
    shown = {block.detail for block in BLOCKS if block.page == "README.md"}

    assert {"alert", "schema"} <= shown


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 160
