import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.errors import DataError
from worker.sources.csv_files import Columns, read_csv
from worker.sources.lines import Reading
from worker.sources.parquet_files import read_parquet

NUMBERS = frozenset({"amount", "count"})


def csv_values(path: Path, columns: Columns | None = None, reading: Reading | None = None) -> tuple[list[bytes], str]:
    values: list[bytes] = []
    try:
        for block in read_csv(str(path), reading or Reading(), columns or Columns(NUMBERS, frozenset({"ok"}))):
            values.extend(value for value in block if value is not None)
    except DataError as error:
        return values, str(error)
    return values, ""


def parquet_rows(path: Path, reading: Reading | None = None) -> list[Any]:
    values = [value for block in read_parquet(str(path), reading or Reading()) for value in block]
    return [value if value is None else orjson.loads(value) for value in values]


def test_cells_become_what_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('amount,count,ok,zip,note\n1.5,3,true,01234,"a, ""b"""\n,NaN,0,,\n1e999,x,maybe,5,é\n')

    values, error = csv_values(path)

    assert error == ""
    assert orjson.loads(values[0]) == {"amount": 1.5, "count": 3, "ok": True, "zip": "01234", "note": 'a, "b"'}
    assert orjson.loads(values[1]) == {"amount": None, "count": None, "ok": False, "zip": None, "note": None}
    assert values[2] == '{"amount":1e999,"count":"x","ok":"maybe","zip":"5","note":"é"}'.encode()


def test_without_a_schema_cells_that_look_like_numbers_are_numbers_but_codes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("a\tb\tc\td\te\n-12\t0.5\t007\ttrue\tx1\n")

    assert orjson.loads(csv_values(path, Columns())[0][0]) == {"a": -12, "b": 0.5, "c": "007", "d": True, "e": "x1"}


def test_a_row_that_is_not_utf8_comes_out_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"amount,name\n1,caf\xe9\n2,tea\n")

    values, error = csv_values(path)

    assert values == [b"1,caf\xe9", b'{"amount":2,"name":"tea"}']
    assert error == ""


def test_a_quoted_cell_can_hold_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('amount,name\n1,"two\nlines"\n2,x\n')

    assert orjson.loads(csv_values(path)[0][0]) == {"amount": 1, "name": "two\nlines"}


def test_the_next_file_may_order_its_columns_anew_but_not_change_them(tmp_path: Path) -> None:
    columns = Columns(NUMBERS)
    for name, text in (
        ("a.csv", "amount,name\n1,x\n"),
        ("b.csv", "name,amount\ny,2\n"),
        ("c.csv", "amount,who\n1,x\n"),
    ):
        (tmp_path / name).write_text(text)

    assert csv_values(tmp_path / "a.csv", columns) == ([b'{"amount":1,"name":"x"}'], "")
    assert csv_values(tmp_path / "b.csv", columns) == ([b'{"name":"y","amount":2}'], "")
    assert csv_values(tmp_path / "c.csv", columns) == (
        [],
        f"{tmp_path / 'c.csv'}:1: other columns than the file before: missing name, new who",
    )


def test_a_row_of_another_width_is_left_out_and_named_with_its_line(tmp_path: Path) -> None:
    path, reading = tmp_path / "r.csv", Reading()
    path.write_text("amount,name\n1,x\namount,name\n2,y\n3,z,extra\n4,w\n")

    values, error = csv_values(path, reading=reading)

    assert [orjson.loads(value)["amount"] for value in values] == [1, 2, 4]
    assert error == ""
    assert reading.unreadable.examples == [f"{path}:5: 3 cells, but the header names 2 columns"]


def test_an_empty_csv_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.touch()

    assert csv_values(path) == ([], f"{path}:1: no header line")


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("a,a\n1,2\n")

    assert "the header names a twice" in csv_values(path)[1]


@pytest.mark.parametrize("text", ["x,1\ny,2\n", "shop,amount\nx,1\ny,2\n", "amount,shop\n1,x\n2,y\n"])
def test_names_that_are_given_are_those_of_a_file_without_a_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)

    values, error = csv_values(path, Columns(names=("shop", "amount")))

    assert error == ""
    assert [orjson.loads(value) for value in values] == [{"shop": "x", "amount": 1}, {"shop": "y", "amount": 2}]


def test_a_bad_row_of_a_file_without_a_header_is_named_by_its_line(tmp_path: Path) -> None:
    path, reading = tmp_path / "r.csv", Reading()
    path.write_text("x,1\ny\n")

    assert len(csv_values(path, Columns(names=("shop", "amount")), reading)[0]) == 1
    assert reading.unreadable.examples[0].startswith(f"{path}:2: 1 cells")


def test_parquet_rows_are_json_with_nested_types_kept(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    table = pa.table(
        {
            "amount": [1.5, math.nan],
            "time": pa.array([moment, None], pa.timestamp("ns", tz="UTC")),
            "merchant": [{"country": "DE", "tags": ["a", "b"]}, None],
            "price": [Decimal("1.25"), None],
            "text": pa.array([b"bytes", None]),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "took": [timedelta(seconds=2), None],
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")

    rows = parquet_rows(tmp_path / "r.parquet")

    assert rows[0] == {
        "amount": 1.5,
        "time": "2026-03-01T12:30:00+00:00",
        "merchant": {"country": "DE", "tags": ["a", "b"]},
        "price": 1.25,
        "text": "bytes",
        "kind": "x",
        "took": 2.0,
    }
    assert rows[1] == {
        "amount": None, "time": None, "merchant": None, "price": None, "text": None, "kind": "y", "took": None
    }  # fmt: skip


def test_an_infinite_number_in_parquet_stays_one_that_json_cannot_hold(tmp_path: Path) -> None:
    pq.write_table(pa.table({"amount": [math.inf]}), tmp_path / "r.parquet")

    assert next(read_parquet(str(tmp_path / "r.parquet"), Reading())) == [b'{"amount":1e999}']


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    path.write_bytes(b"PAR1 nothing of the kind")

    with pytest.raises(DataError, match=r"r\.parquet: can't be read as Parquet"):
        parquet_rows(path)


def test_binary_that_is_no_text_becomes_base64(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"blob": [b"\xff\xfe", b"text"]}), path)

    assert parquet_rows(path) == [{"blob": "//4="}, {"blob": "text"}]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["01067", "99501", ""], ["01067", "99501", None]),
        (["12.5", "7", "nan", ""], [12.5, 7, None, None]),
        (["12.5", "n/a"], ["12.5", "n/a"]),
        (["true", "FALSE", ""], [True, False, None]),
        (["true", "7"], ["true", "7"]),
        (["true", "yes"], ["true", "yes"]),
        (["1", "2"] * 5_000 + ["x"], [1, 2] * 5_000 + ["x"]),
    ],
)
def test_a_column_has_one_type_where_nobody_says_which(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    path = tmp_path / "r.csv"
    path.write_text("shop,cell\n" + "".join(f"a,{cell}\n" for cell in cells))

    read, _ = csv_values(path, Columns())

    assert [orjson.loads(value)["cell"] for value in read] == values
