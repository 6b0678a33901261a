"""Tables on the pages are as the code is."""

import tomllib

import orjson
import pytest

from devtools.tables import TABLES, with_table
from tests.docs.common import ROOT, blocks_of, names_under, table_under, text_of
from worker.alerts.encode import dead_letter_headers
from worker.alerts.silences import KEYS
from worker.cli import COMMANDS
from worker.errors import ErrorCode
from worker.features.kinds import KINDS
from worker.features.schema import parse_schema
from worker.model.presets import PRESETS
from worker.model.scoring.score import SCORES
from worker.records import DeadLetter, Message

DOCS = ROOT / "docs"


def test_settings_and_metrics_are_up_to_date() -> None:
    for name, table in TABLES.items():
        page = text_of(DOCS / f"{name}.md")

        assert with_table(page, name, table()) == page, "run: python -m devtools.tables docs/"


def test_the_readme_lists_the_commands() -> None:
    named = {name.split()[1] for name in names_under(ROOT / "README.md", "## Commands")}

    assert named == set(COMMANDS)


def test_delivery_lists_the_error_codes_and_headers_of_a_dead_letter() -> None:
    text = text_of(DOCS / "delivery.md")
    letter = DeadLetter(Message("t", 0, 0, 0, None, b""), ErrorCode.INVALID_JSON, "")

    assert {name for name, _ in dead_letter_headers(letter)} < set(names_under(DOCS / "delivery.md", "## Dead letters"))
    for code in ErrorCode:
        assert f"\n| `{code.value}` | " in text


@pytest.mark.parametrize("definition", ["", "GroupDocument"])
def test_alerts_are_described_key_by_key(definition: str) -> None:
    schema = orjson.loads((ROOT / "deploy" / "alert.schema.json").read_bytes())
    text = text_of(DOCS / "thresholds-and-alerts.md")
    properties = (schema["$defs"][definition] if definition else schema)["properties"]

    for key in properties:
        assert f"`{key}`" in text


def test_the_kinds_of_fields_are_listed_with_their_options_and_shown_with_each() -> None:
    page = DOCS / "schema.md"
    rows = {row[0].strip("`"): row[3] for row in table_under(page, "## Kinds")}
    shown = next(block for block in blocks_of(page) if block.detail == "schema")

    assert tuple(rows) == tuple(KINDS)
    for field in parse_schema(shown.text).fields:
        for option in field.options():
            assert f"`{option}`" in rows[field.kind]
            assert f"\n{option} = " in shown.text


def test_the_keys_of_a_silence_are_listed() -> None:
    assert set(names_under(DOCS / "silences.md", "# Silences")) == set(KEYS)


def test_presets_and_scores_are_listed() -> None:
    assert set(names_under(DOCS / "models.md", "## Presets")) == set(PRESETS)
    assert set(names_under(DOCS / "models.md", "## Scores")) == set(SCORES)
    assert set(names_under(DOCS / "measurements.md", "## Presets")) == set(PRESETS)


def test_every_room_is_on_the_map() -> None:
    rooms = {f"worker/{path.name}/" for path in (ROOT / "worker").iterdir() if (path / "__init__.py").exists()}

    assert rooms < set(names_under(DOCS / "architecture.md", "## Code map"))


def test_the_map_is_in_the_order_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rank = {room: number for number, layer in enumerate(layers) for room in layer.split(" | ")}
    folders = [name for name in names_under(DOCS / "architecture.md", "## Code map") if name.endswith("/")]
    ranks = [rank[folder.strip("/").replace("/", ".")] for folder in folders]

    assert ranks == sorted(ranks)


def test_the_walk_of_a_record_names_each_file_once() -> None:
    walk = text_of(DOCS / "architecture.md").partition("## A record")[2].partition("\n## ")[0]
    files = [line.split("`")[1] for line in walk.splitlines() if line[:1].isdigit()]

    assert len(files) > 10
    assert len(set(files)) == len(files)
