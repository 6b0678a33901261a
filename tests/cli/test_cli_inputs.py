"""Every command that reads history reads the same files and the same parts of a topic."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from devtools import traffic
from devtools.brokers import produce_values
from worker.broker.client import Connection
from worker.cli import main
from worker.features.schema import parse_schema
from worker.model.store.model_store import ModelStore

COUNT = 600
ROWS = [{"merchant.country": row.pop("merchant")["country"], **row} for row in traffic.rows(COUNT)]
LINES = [orjson.dumps(row) for row in ROWS]


def table(rows: list[dict[str, object]]) -> bytes:
    return "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]).encode()


def write(name: str, content: bytes) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
    return name


def parquet(name: str) -> list[str]:
    pq.write_table(pa.Table.from_pylist(ROWS), name)
    return [name]


def several(folder: str) -> list[str]:
    """Three files of three formats; a file of a writer's own beside them."""
    write(f"{folder}/_SUCCESS", b"not a record")
    write(f"{folder}/README.md", b"not a record")
    first = write(f"{folder}/part-2.csv", table(ROWS[:200]))
    second = write(f"{folder}/part-10.jsonl.gz", gzip.compress(b"\n".join(LINES[200:400]), mtime=0))
    return [first, second, write(f"{folder}/part-30.json", b"[" + b",".join(LINES[400:]) + b"]")]


FORMS: dict[str, Callable[[], list[str]]] = {
    "json lines": lambda: [write("a.jsonl", b"\n".join(LINES))],
    "gzip": lambda: [write("a.jsonl.gz", gzip.compress(b"\n".join(LINES), mtime=0))],
    "zstd": lambda: [write("a.jsonl.zst", zstandard.compress(b"\n".join(LINES)))],
    "a json array": lambda: [write("a.json", b"[" + b",\n".join(LINES) + b"]")],
    "csv": lambda: [write("a.csv", table(ROWS))],
    "csv, zstd": lambda: [write("a.csv.zst", zstandard.compress(table(ROWS)))],
    "parquet": lambda: parquet("a.parquet"),
    "several files": lambda: several("many"),
    "a folder": lambda: [several("many")[0].partition("/")[0]],
    "a pattern": lambda: [several("many")[0].partition("/")[0] + "/part-*"],
    "standard input": lambda: ["-"],
}
COMMANDS = ("train", "infer-schema", "replay", "compare")


@pytest.fixture
def read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, list[str], list[str]], None]:
    """Gives one command these files, or these arguments of a topic, and asserts that it has read all records."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 3}')
    monkeypatch.setenv("WORKER_TRAIN__MIN_RECORDS", "500")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(LINES))))
    Path("schema.toml").write_text(traffic.SCHEMA_TEXT)

    def run(command: str, files: list[str], of_topic: list[str]) -> None:
        if command == "infer-schema":
            assert main([command, *files, *of_topic]) == 0
            said = capsys.readouterr()
            assert {field.name for field in parse_schema(said.out).fields} == set(ROWS[0])
            assert "passed over" not in said.err
        elif command == "train":
            assert main([command, "--once", *(["--from", *files] if files else []), *of_topic]) == 0
            assert "480 records learned, 120 held out" in capsys.readouterr().out
        else:
            store = ModelStore("models")
            for seed in (0, 1):
                store.save(traffic.bundle(seed))
            store.promote(traffic.bundle(0).version)
            name = ["replay"] if command == "replay" else ["models", "compare", traffic.bundle(1).version]
            assert main([*name, *files, *of_topic, "--out", "out"]) == 0
            metrics = orjson.loads(Path("out/metrics.json").read_bytes())
            assert (metrics["scored"], metrics["dead_letters"]) == (COUNT, 0)

    return run


Read = Callable[[str, list[str], list[str]], None]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_every_form_of_file(read: Read, command: str, form: str) -> None:
    read(command, FORMS[form](), [])


@pytest.mark.broker
def test_every_command_reads_a_range_of_a_topic(
    read: Read, connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce_values(connection, topic, LINES)
    monkeypatch.setenv("WORKER_KAFKA__BOOTSTRAP_SERVERS", connection.bootstrap_servers)

    for command in COMMANDS:
        read(command, [], ["--topic", topic, "--from", "2026-01-01", "--to", "2126-01-01"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there/march.jsonl"], "there/march.jsonl: no such file: there is no folder there"),
        (["mrach.jsonl"], "mrach.jsonl: no such file (did you mean 'march.jsonl'?)"),
        (["mar*.json"], "mar*.json: no file fits this pattern (did you mean 'march.jsonl'?)"),
        (["empty"], "empty: no file whose name ends in one of .jsonl, "),
        (["march.bz2"], "march.bz2: the file is packed with bzip2: unpack it"),
        (["-"], "standard input: no records"),
        (["--topic", "t", "--from", "yesterday"], "'yesterday' is no time: 2026-03-01"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cant_be_read_is_named_by_every_command(
    read: Read,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
    message: str,
) -> None:
    write("march.jsonl", LINES[0])
    write("march.bz2", b"BZh91AY")
    write("empty/notes.md", b"")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    with pytest.raises(AssertionError):
        read(command, *([], arguments) if "--topic" in arguments else (arguments, []))
    said = capsys.readouterr().err
    assert message in said.splitlines()[-1]
