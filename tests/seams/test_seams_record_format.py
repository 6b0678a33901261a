"""A new record format is one class and one registration; everything that reads records follows."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from typing_extensions import override

from devtools import traffic
from worker.cli import main
from worker.errors import ErrorCode, RecordError
from worker.formats import DECODERS
from worker.formats.base import Decoder, Row


class Pairs(Decoder):
    """Lines such as amount=12.5;channel=web;online=true."""

    @override
    def parse(self, value: bytes) -> Row:
        row: Row = {}
        for pair in value.decode(errors="replace").split(";"):
            name, equals, text = pair.partition("=")
            if not equals:
                raise RecordError(ErrorCode.INVALID_JSON, f"{pair!r} is no NAME=VALUE")
            try:
                row[name] = orjson.loads(text)
            except orjson.JSONDecodeError:
                row[name] = text
        return row

    @override
    def encode(self, row: Row) -> bytes:
        return ";".join(f"{name}={_text(value)}" for name, value in row.items()).encode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """1,600 labelled payments as lines of pairs, in history.txt, and the format in the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_KAFKA__FORMAT", "pairs")
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 60}')
    DECODERS.register("pairs", Pairs)
    lines = []
    for number, message in enumerate(traffic.messages(1_600)):
        row = orjson.loads(message.value or b"")
        lines.append(Pairs().encode({**row, "merchant": row["merchant"]["country"], "fraud": number % 50 == 49}))
    path = Path("history.txt")
    path.write_bytes(b"\n".join(lines) + b"\n")
    yield path
    DECODERS.pop("pairs")


def test_a_toy_format_goes_through_schema_fit_and_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer-schema", "history.txt", "--ignore", "fraud"]) == 0
    schema = capsys.readouterr().out
    Path("schema.toml").write_text(schema)
    code = main(["replay", "history.txt", "--label", "fraud", "--fit-first", "800", "--key", "channel"])
    metrics = orjson.loads(Path("out/replay/metrics.json").read_bytes())
    alert = orjson.loads(Path("out/replay/alerts.jsonl").read_bytes().splitlines()[0])

    assert '[fields.merchant]\nkind = "categorical"' in schema
    assert code == 0
    assert (metrics["scored"], metrics["dead_letters"], metrics["anomalies"]) == (800, 0, 16)
    assert alert["source"]["key"] in {"shop", "web", "app"}
    assert alert["record"]["merchant"] in traffic.COUNTRIES


def test_anomalies_are_planted_in_the_format_of_the_records() -> None:
    assert main(["replay", "history.txt", "--ignore", "fraud", "--fit-first", "800", "--inject", "0.05"]) == 0
    metrics = orjson.loads(Path("out/replay/metrics.json").read_bytes())

    assert metrics["dead_letters"] == 0
    assert metrics["anomalies"] == 40


def test_a_line_that_is_no_record_of_the_format_is_a_dead_letter(history: Path) -> None:
    history.write_bytes(history.read_bytes() + b"garbage\n" + b"a=" + b"x" * 2_000_000 + b"\n")
    main(["replay", "history.txt", "--ignore", "fraud", "--fit-first", "800"])
    metrics = orjson.loads(Path("out/replay/metrics.json").read_bytes())

    assert metrics["dead_letters_by_code"] == {"invalid_json": 1, "too_large": 1}


def test_rows_of_a_table_are_json_whatever_the_format_of_the_topic(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text("amount,channel\n" + "12.5,web\n7,shop\n" * 30)

    assert main(["infer-schema", "table.csv"]) == 0
    assert '[fields.channel]\nkind = "categorical"' in capsys.readouterr().out


def test_the_settings_know_the_formats_that_are_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__FORMAT", "pair")

    assert main(["infer-schema", "history.txt"]) == 1
    assert (
        "WORKER_KAFKA__FORMAT = 'pair': allowed is json, lines, csv, avro, protobuf, json-schema or pairs"
        in capsys.readouterr().err
    )
