"""The same order in many spellings, as producers write it, each with the settings that read it."""

import base64
import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial
from random import Random
from typing import Any, NamedTuple

import orjson

from devtools.order_streams import FLAGS, NUMBERS, START, order
from worker.formats.base import Decoded, Row
from worker.processes.wiring import make_decoder
from worker.records import Message
from worker.settings import load_settings

SPARSE = 520  # attributes, of which a record has about eight
GAPS = ("", "-", "null", "N/A")


class Spelling(NamedTuple):
    """How an order becomes bytes, and the settings that read them."""

    write: Callable[[Row, Random], bytes]
    settings: Mapping[str, str] = {}

    def decoded(self, rows: Sequence[Row], seed: int) -> Decoded:
        """The orders, written so and read again; a record's offset is its place."""
        draw = Random(seed)
        messages = [Message("", 0, at, -1, None, self.write(row, draw)) for at, row in enumerate(rows)]
        environ = {f"WORKER_{name}": value for name, value in self.settings.items()}
        return make_decoder(load_settings(environ, dotenv=os.devnull)).decode(messages)


def written(row: Row, **spelled: Callable[[Any], Any]) -> Row:
    """The order with some fields written otherwise; missing ones stay."""
    return row | {name: write(row[name]) for name, write in spelled.items() if row[name] is not None}


def numbers(write: Callable[[float, int], Any]) -> Spelling:
    """All numbers, each written by its value and its digits behind the point."""
    return of({name: partial(_swapped, write, digits) for name, digits in NUMBERS.items()})


def _swapped(write: Callable[[float, int], Any], digits: int, value: float) -> Any:
    return write(value, digits)


def of(spelled: Mapping[str, Callable[[Any], Any]]) -> Spelling:
    return Spelling(lambda row, _: orjson.dumps(written(row, **spelled)))


def moment(write: Callable[[datetime], Any]) -> Spelling:
    return of({"at": lambda text: write(datetime.fromisoformat(text))})


def pattern(text: str) -> Spelling:
    return moment(lambda at: at.strftime(text))


def german(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def gaps(row: Row, draw: Random) -> bytes:
    """Numbers as strings, missing ones as one of the words for none."""
    texts = written(row, **dict.fromkeys(NUMBERS, str))
    return orjson.dumps({name: draw.choice(GAPS) if value is None else value for name, value in texts.items()})


def varied(row: Row, draw: Random) -> bytes:
    spelled = {name: str for name in (*NUMBERS, *FLAGS) if draw.random() < 0.5}
    return orjson.dumps(written(row, **spelled))


def stray(row: Row, draw: Random) -> bytes:
    return orjson.dumps(row | ({"amount": "to be billed"} if draw.random() < 1 / 1500 else {}))


def base64_of(value: float, digits: int) -> str:
    whole = round(value * 10**digits)
    return base64.b64encode(whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)).decode()


def event(row: Row, schema: Row | None = None) -> bytes:
    """A change as Debezium writes it; now and then a deletion."""
    is_deleted = row["order_id"][-1] == "0"
    sides = {"before": row, "after": None} if is_deleted else {"before": None, "after": row}
    source = {"connector": "mysql", "db": "shop", "table": "orders"}
    payload = {**sides, "source": source, "op": "d" if is_deleted else "c"}
    return orjson.dumps({"schema": schema, "payload": payload} if schema else payload)


def connect(row: Row, types: Mapping[str, Row]) -> bytes:
    """With Connect's schema beside it."""
    fields = [{"field": name, "type": "string", "optional": True, **types.get(name, {})} for name in row]
    sides = [{"field": side, "type": "struct", "fields": fields, "optional": True} for side in ("before", "after")]
    rest = [{"field": "source", "type": "struct", "fields": []}, {"field": "op", "type": "string"}]
    return event(row, {"type": "struct", "fields": [*sides, *rest]})


DECIMAL = "org.apache.kafka.connect.data.Decimal"
DECIMALS = {
    name: {"type": "bytes", "name": DECIMAL, "parameters": {"scale": str(digits)}} for name, digits in NUMBERS.items()
} | {name: {"type": "boolean"} for name in FLAGS}


def decimals(row: Row, _: Random) -> bytes:
    spelled = {name: partial(_swapped, base64_of, digits) for name, digits in NUMBERS.items()}
    return connect(written(row, **spelled), DECIMALS)


def ticks(per_second: int, write: Callable[[int], Any] = int) -> Callable[[str], Any]:
    return lambda text: write(int(datetime.fromisoformat(text).timestamp()) * per_second)


def connect_time(per_second: int, name: str) -> Spelling:
    types = {name: {"type": "double"} for name in NUMBERS} | {name: {"type": "boolean"} for name in FLAGS}
    types["at"] = {"type": "int64", "name": f"io.debezium.time.{name}"}
    return Spelling(lambda row, _: connect(written(row, at=ticks(per_second)), types))


def extended(row: Row, _: Random) -> bytes:
    spelled = {name: lambda value: {"$numberDecimal": str(value)} for name in NUMBERS}
    spelled["quantity"] = lambda value: {"$numberLong": str(value)}
    document = written(row, at=lambda text: {"$date": text}, **spelled)
    return orjson.dumps({"_id": {"$oid": row["order_id"][2:] * 2}, **document})


def typed(value: Any) -> Row:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def log_record(row: Row) -> Row:
    pairs = [{"key": f"shop.{name}", "value": typed(v)} for name, v in row.items() if name != "at" and v is not None]
    return {"timeUnixNano": ticks(10**9, str)(row["at"]), "body": {"stringValue": "ordered"}, "attributes": pairs}


def exported(row: Row, _: Random) -> bytes:
    scope = {"scope": {"name": "shop"}, "logRecords": [log_record(row)]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]}
    return orjson.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def attributes(draw: Random) -> Row:
    """About eight of 520, none of which says anything: half of them numbers, the others words."""
    places = draw.sample(range(SPARSE), draw.randint(4, 12))
    return {f"attr_{at:03d}": draw.randint(1, 9) if at % 2 else draw.choice("abcd") for at in places}


def nested(row: Row, _: Random) -> bytes:
    money = {name: row[name] for name in ("amount", "unit_price", "discount", "voucher")}
    ship = {"to": {"country": row["country"]}, "carrier": row["carrier"], "weight": row["weight"]}
    rest = {name: value for name, value in row.items() if name not in money.keys() | ship.keys() | {"country"}}
    return orjson.dumps({"meta": {"at": rest.pop("at")}, "order": {**rest, "money": money, "ship": ship}})


def dotted(row: Row, _: Random) -> bytes:
    names = {"category": "app.kubernetes.io/name", "country": "shop.example.com/country", "payment": "pay.kind"}
    rest = {f"order.{name}": value for name, value in row.items() if name not in names}
    return orjson.dumps({**rest, "labels": {name: row[key] for key, name in names.items()}})


def with_lines(row: Row, _: Random) -> bytes:
    """What is bought, as an array of objects."""
    inner = ("category", "unit_price", "quantity", "weight")
    rest = {name: value for name, value in row.items() if name not in inner}
    return orjson.dumps({**rest, "lines": [{name: row[name] for name in inner}]})


def with_tags(row: Row, draw: Random) -> bytes:
    """The country among tags that all orders have, in any order."""
    tags = ["shop", "v2", row["country"]]
    draw.shuffle(tags)
    return orjson.dumps({**{name: value for name, value in row.items() if name != "country"}, "tags": tags})


def cells(write: Callable[[Any], str], **options: Any) -> Callable[[Row, Random], bytes]:
    def line(row: Row, _: Random) -> bytes:
        out = io.StringIO()
        csv.writer(out, **options).writerow("" if value is None else write(value) for value in row.values())
        return out.getvalue().encode()

    return line


def comma_cell(value: Any) -> str:
    return str(value).replace(".", ",") if isinstance(value, float) else str(value)


COLUMNS = {"KAFKA__FORMAT": "csv", "INPUT__COLUMNS": ",".join(order(START, Random(0)))}
UNITS: dict[str, Callable[[Any], Any]] = {
    "amount": lambda value: f"EUR {value:.2f}",
    "unit_price": lambda value: f"{value:.2f} €",
    "weight": lambda value: f"{value:.3f} kg",
    "discount": lambda value: f"{value * 100:.0f}%",
    "voucher": lambda value: f"${value:.2f}",
}
SPELLINGS: dict[str, Spelling] = {
    "plain": of({}),
    "numbers as strings": numbers(lambda value, _: str(value)),
    "thousands separators": numbers(lambda value, digits: f"{value:,.{digits}f}"),
    "decimal comma": numbers(lambda value, digits: f"{value:.{digits}f}".replace(".", ",")),
    "points and comma": numbers(german),
    "unit signs": of(UNITS),
    "booleans as true, Y, 1": of(
        {"is_gift": lambda v: str(v).lower(), "is_express": lambda v: "NY"[v], "is_new": lambda v: "01"[v]}
    ),
    "words for none": Spelling(gaps),
    **{
        f"{unit} since 1970, {sort}s": of({"at": ticks(per_second, write)})
        for unit, per_second in (("seconds", 1), ("milliseconds", 1000), ("microseconds", 10**6))
        for sort, write in (("number", int), ("string", str))
    },
    "ISO 8601 with an offset": moment(lambda at: at.astimezone(timezone(timedelta(hours=2))).isoformat()),
    "common log": pattern("%d/%b/%Y:%H:%M:%S +0000"),
    "HTTP date": moment(lambda at: format_datetime(at, usegmt=True)),
    "RFC 2822": moment(format_datetime),
    "slashes, year first": pattern("%Y/%m/%d %H:%M:%S"),
    "slashes, day first": pattern("%d/%m/%Y %H:%M"),
    "syslog without year": pattern("%b %d %H:%M:%S"),
    "zone as a word": pattern("%Y-%m-%d %H:%M:%S UTC"),
    "Debezium, doubles": Spelling(lambda row, _: event(row)),
    "Debezium, decimals": Spelling(decimals),
    "Debezium, milliseconds": connect_time(1000, "Timestamp"),
    "Debezium, microseconds": connect_time(10**6, "MicroTimestamp"),
    "Debezium, nanoseconds": connect_time(10**9, "NanoTimestamp"),
    "Mongo's extended JSON": Spelling(extended),
    "OTel attributes": Spelling(lambda row, _: orjson.dumps(log_record(row))),
    "OTel export": Spelling(exported, {"INPUT__UNFOLD": "resourceLogs[].scopeLogs[].logRecords"}),
    "types that vary": Spelling(varied),
    "a stray in 1,500": Spelling(stray),
    f"{SPARSE} attributes, open map": Spelling(lambda row, draw: orjson.dumps({**row, "attributes": attributes(draw)})),
    f"{SPARSE} attributes, top level": Spelling(lambda row, draw: orjson.dumps(row | attributes(draw))),
    "array of objects": Spelling(with_lines),
    "array of tags": Spelling(with_tags),
    "keys with dots": Spelling(dotted),
    "nested": Spelling(nested),
    "CSV": Spelling(cells(str), COLUMNS),
    "CSV, semicolons and decimal comma": Spelling(cells(comma_cell, delimiter=";"), COLUMNS),
}
