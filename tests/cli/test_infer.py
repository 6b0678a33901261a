"""`worker infer-schema`: from records to a schema file."""

import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from devtools.brokers import produce_values
from worker.broker.client import Connection
from worker.cli import main
from worker.features.schema import parse_schema

ROWS = [
    {"id": f"tx-{n:05d}", "amount": n * 37 % 200 * 1.25, "shop": {"country": ["NL", "DE"][n % 2]}, "fraud": n % 7 == 0}
    for n in range(200)
]


def lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def kinds(toml: str) -> dict[str, str]:
    return {field.name: field.kind for field in parse_schema(toml).fields}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.jsonl.gz"
    path.write_bytes(gzip.compress(lines(ROWS), mtime=0))
    return path


def test_a_proposal_is_a_valid_schema_with_the_ignored_field_ignored(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer-schema", str(history), "--ignore", "fraud"]) == 0

    assert kinds(capsys.readouterr().out) == {
        "id": "id",
        "amount": "numeric",
        "shop.country": "categorical",
        "fraud": "ignore",
    }


def test_csv_and_standard_input_are_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("amount,country\n1.5,NL\n2.5,DE\n")

    main(["infer-schema", str(table)])
    from_csv = kinds(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(ROWS))))
    main(["infer-schema", "-"])
    from_stdin = kinds(capsys.readouterr().out)

    assert from_csv == {"amount": "numeric", "country": "categorical"}
    assert from_stdin["amount"] == "numeric"


@pytest.mark.parametrize("name", ["history.pq", "history.csv.gz"])
def test_every_file_that_a_replay_reads_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"amount": n * 37 % 1000 / 4, "country": ["NL", "DE"][n % 2]} for n in range(1000)]
    if name.endswith(".pq"):
        pq.write_table(pa.Table.from_pylist(rows), name)
    else:
        cells = "".join(f"{row['amount']},{row['country']}\n" for row in rows)
        Path(name).write_bytes(gzip.compress(b"amount,country\n" + cells.encode(), mtime=0))
    monkeypatch.setenv("WORKER_TRAIN__MIN_RECORDS", "500")
    monkeypatch.setenv("WORKER_MODEL__EPOCHS", "1")

    assert main(["infer-schema", name]) == 0
    Path("schema.toml").write_text(capsys.readouterr().out)
    assert kinds(Path("schema.toml").read_text()) == {"amount": "numeric", "country": "categorical"}
    assert main(["train", "--once", "--from", name]) == 0
    assert "records learned" in capsys.readouterr().out


def test_lines_that_are_no_records_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"garbage\n\n" + lines(ROWS))

    assert main(["infer-schema", str(path)]) == 0

    out, err = capsys.readouterr()
    assert "amount" in kinds(out)
    assert err.startswith("note: 1 of 201 records have no fields")


def test_a_field_that_appears_only_late_in_a_file_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late: list[dict[str, object]] = [{**row, "voucher": "SPRING"} for row in ROWS[:20]]
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines(ROWS * 5 + late))

    assert main(["infer-schema", str(path), "--records", "400"]) == 0
    assert "voucher" in kinds(capsys.readouterr().out)


def test_of_a_file_that_was_cut_off_the_readable_part_is_looked_at(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = lines(ROWS * 50)
    history.write_bytes(gzip.compress(whole, mtime=0)[:-2000])

    assert main(["infer-schema", str(history), "--records", "500"]) == 0

    out, err = capsys.readouterr()
    assert kinds(out)["amount"] == "numeric"
    assert "note: not read to its end: " in err
    assert "cut off" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "history.jsonl: no records"),
        (b"garbage\n", "none of 1 records has fields"),
    ],
)
def test_a_file_without_records_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_bytes(content)

    assert main(["infer-schema", str(path)]) == 1

    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["file", "--topic", "t"]])
def test_a_file_or_a_topic_must_be_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer-schema", *arguments]) == 2
    assert "name either FILEs or a --topic" in capsys.readouterr().err


@pytest.mark.broker
def test_a_sample_of_a_topic_serves_as_well(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    produce_values(connection, topic, lines(ROWS).splitlines())
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)

    for records in ("50", "20"):  # of 200: read whole, and in pieces
        assert main(["infer-schema", "--topic", topic, "--records", records]) == 0
        assert kinds(capsys.readouterr().out)["amount"] == "numeric"
