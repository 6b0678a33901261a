"""A wrong guess of the format ends in one line that names the setting, with exit 1."""

from pathlib import Path

import pytest

from worker.cli import main

SCHEMA = '[fields.amount]\nkind = "numeric"\n'
LINES = "".join(f"10:00:{second:02d} INFO worker done in {second} ms\n" for second in range(50))
READS = "looks like a line of text, which WORKER_KAFKA__FORMAT = lines reads"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_DEVICE", "cpu")
    Path("schema.toml").write_text(SCHEMA)
    Path("app.log").write_text(LINES)


@pytest.mark.parametrize(
    "command",
    [
        ["infer-schema", "app.log"],
        ["train", "--once", "--from", "app.log"],
        ["replay", "app.log"],
        ["replay", "app.log", "--fit-first", "20"],
    ],
)
def test_lines_of_text_are_named_with_the_setting_that_reads_them(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(command)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]

    assert code == 1
    assert len(errors) == 1
    assert READS in errors[0]


def test_less_than_half_is_no_schema(capsys: pytest.CaptureFixture[str]) -> None:
    Path("app.log").write_text(LINES + '{"amount": 1}\n' * 40)

    assert main(["infer-schema", "app.log"]) == 1
    assert "50 of 90 records have no fields" in capsys.readouterr().err


def test_the_setting_reads_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORKER_KAFKA__FORMAT", "lines")

    assert main(["infer-schema", "app.log"]) == 0
    assert "[fields.message]" in capsys.readouterr().out


def test_decimals_that_nothing_tells_the_scale_of_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("changes.jsonl").write_text(
        '{"op": "c", "after": {"price": "B4s="}}\n{"op": "c", "after": {"price": "arw="}}\n' * 30
    )

    assert main(["infer-schema", "changes.jsonl"]) == 0
    assert "after.price looks like decimals in base64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["train", "--once", "--from", "prices.jsonl"], ["replay", "prices.jsonl", "--fit-first", "80"]],
)
def test_a_fit_says_what_it_leaves_out_and_which_setting_reads_it(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_TRAIN__MIN_RECORDS", "50")
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 5}')
    rows = [f'{{"amount": {"NaN" if at % 4 == 0 else at % 7}}}\n' for at in range(100)]
    Path("prices.jsonl").write_text("".join(rows))

    assert main(command) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "have no fields and were left out" in line]
    assert "WORKER_INPUT__NAN = null reads" in note


def test_a_csv_file_without_a_header_is_named_with_the_setting_that_names_its_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("orders.csv").write_text("".join(f"{'ab'[at % 2]},{at % 9 + 0.5},0{at % 7}\n" for at in range(60)))
    Path("twice.csv").write_text("a,0,0\nb,1,0\n")

    assert main(["infer-schema", "orders.csv"]) == 0
    assert "a column is named 0.5: where the first line is a record, WORKER_INPUT__COLUMNS" in capsys.readouterr().err
    assert main(["infer-schema", "twice.csv"]) == 1
    assert "where it is a record, WORKER_INPUT__COLUMNS has the names" in capsys.readouterr().err

    monkeypatch.setenv("WORKER_INPUT__COLUMNS", "shop,amount,zip")
    assert main(["infer-schema", "orders.csv"]) == 0
    said = capsys.readouterr()
    assert "[fields.shop]" in said.out
    assert "is named" not in said.err


@pytest.mark.parametrize(("name", "between"), [("~", "~"), ("tab", "\t"), (";", ";")])
def test_the_delimiter_of_the_settings_is_that_of_files_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, between: str
) -> None:
    lines = [("shop, its city", "amount", "zip, area")]  # more commas than of any other
    lines += [(f"{'ab'[at % 2]}, c", f"{at % 9 + 0.5}", f"0{at % 7}, x") for at in range(60)]
    Path("orders.csv").write_text("".join(between.join(cells) + "\n" for cells in lines))
    monkeypatch.setenv("WORKER_INPUT__DELIMITER", name)

    assert main(["infer-schema", "orders.csv"]) == 0

    said = capsys.readouterr().out
    assert '[fields."shop, its city"]' in said
    assert "[fields.amount]" in said
