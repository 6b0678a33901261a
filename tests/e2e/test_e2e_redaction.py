"""Twenty secrets in redacted fields of all kinds, through everything the worker does: no output holds one of them."""

import gzip
import io
import urllib.request
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from devtools.brokers import produce, read_all
from devtools.sites import Site
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.cli import main
from worker.demo.processes import free_port
from worker.records import Outgoing

pytestmark = pytest.mark.broker

SCHEMA = """
[fields.customer]
kind = "categorical"
[fields.account]
kind = "numeric"
[fields.pin]
kind = "numeric"
[fields."card.number"]
kind = "id"
[fields."card.brand"]
kind = "categorical"
[fields.note]
kind = "text"
[fields.born]
kind = "timestamp"
[fields.member]
kind = "categorical"
redact = true
[fields.amount]
kind = "numeric"
[fields.channel]
kind = "categorical"
[fields.at]
kind = "timestamp"
event_time = true
"""
UNEXPECTED = 6
REDACT = "customer,account,pin,card,note,born,owners.mail,contact.phone,tags"
PIN = 48213577  # the same in every record: what a fit learns of a constant is the value
CUSTOMERS = ["Zebulon Quark", "Wilhelmina-Ö-Xyzzy", "yolanda@secret.example", 'Quo"te\\Back']
ACCOUNTS = [7390215577, 8123456790.25, 6655443322]
NUMBERS = ["4929-1111-2222-3333", 5555666677778888]
BRANDS = ["Obscurocard", "Hiddenvisa"]
NOTES = ["transfer for Mrs Peculiaris please", "second sentence of Idiosyncratus here"]
BORN = "1987-05-12T03:14:15Z"
MAILS = ["mallory@planted.example", "trent@planted.example"]
PHONE, FLAT_PHONE, TAG, MEMBER = "+31-6-5551-7788", "+49-170-998-1234", "tag-Unmistakable", "Gold-Xanadu"
SECRETS = [*CUSTOMERS, *ACCOUNTS, *NUMBERS, *BRANDS, *NOTES, BORN, *MAILS, PHONE, FLAT_PHONE, TAG, MEMBER, PIN]


def record(number: int) -> dict[str, Any]:
    """Every 40th has an amount unlike all others; every field's values go round."""
    return {
        "customer": CUSTOMERS[number % len(CUSTOMERS)],
        "account": ACCOUNTS[number % 3],
        "pin": PIN,
        "card": {"number": NUMBERS[number % 2], "brand": BRANDS[number % 2]},
        "card.brand": BRANDS[number % 2],
        "note": NOTES[number % 2],
        "born": BORN,
        "member": MEMBER,
        "owners": [{"mail": MAILS[0]}, [{"mail": MAILS[1]}]],
        "contact": {"phone": PHONE},
        "contact.phone": FLAT_PHONE,
        "tags": {"deep": [{"er": TAG}]},
        "amount": 5e6 if number % 40 == 39 else float(number % 7),
        "channel": ("shop", "web")[number % 2],
        "at": f"2026-01-{1 + number // 24 % 28:02d}T{number % 24:02d}:30:00Z",
    }


def escaped(row: dict[str, Any]) -> bytes:
    """The same JSON with every letter of its values spelled \\uXXXX."""
    spelled = {key: value for key, value in row.items() if not isinstance(value, str)}
    text = orjson.dumps(spelled).decode()[:-1]
    for key in row.keys() - spelled.keys():
        letters = "".join(f"\\u{ord(letter):04x}" for letter in row[key])
        text += f',"{key}":"{letters}"'
    return f"{text}}}".encode()


def messages(topic: str) -> list[Outgoing]:
    """800 records, a third of them keyed by a secret, UNEXPECTED with a value that can't be read, and dead letters of
    several sorts, with secrets everywhere.
    """
    result = []
    for number in range(800):
        row = record(number)
        key = (str(row["customer"]).encode(), orjson.dumps({"account": row["account"]}), b"shop-1")[number % 3]
        value = escaped(row) if number % 5 == 4 else orjson.dumps(row)
        result.append(Outgoing(topic, key, value, (("trace", b"1"), ("customer", CUSTOMERS[0].encode()))))
    whole, headers = orjson.dumps(record(1)), ((MEMBER, b"1"), ("who", MAILS[0].encode()), ("phone", PHONE.encode()))
    changes: list[dict[str, Any]] = [
        {"amount": "much"},
        {"at": "soon"},
        {"account": CUSTOMERS[1]},
        {"member": [MEMBER]},
        {"note": {"text": NOTES[0]}, "amount": 5e6},
        {"customer": None, "amount": "much"},
    ]
    bad = [orjson.dumps({**record(1), **change}) for change in changes]
    bad += [whole[:-5], whole.decode().encode("utf-16"), b"\xff" + whole, b"[1," + whole + b"]", orjson.dumps(TAG)]
    bad += [whole[:-1] + b',"amount":NaN}', orjson.dumps({"amount": "much", "customer": [CUSTOMERS[1]]})]
    return [*result, *(Outgoing(topic, CUSTOMERS[1].encode(), value, headers) for value in bad)]


def forms(secret: Any) -> set[bytes]:
    """How a secret may be written."""
    text = str(secret)
    plain = text.encode()
    result = {plain, plain.lower(), plain.hex().encode(), orjson.dumps(text)[1:-1], repr(text)[1:-1].encode()}
    result |= {text.encode("utf-16-le"), text.encode("utf-16-be"), "".join(f"\\u{ord(c):04x}" for c in text).encode()}
    for shift in range(3):  # base64 of a text that it is a part of
        body = b64encode(b"\0" * shift + plain)
        result.add(body[4 if shift else 0 : len(body) - 4])
    return {form for form in result if len(form) >= 6}


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what it unpacks to."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".gz":
        yield gzip.decompress(raw)
    elif path.suffix == ".npz":
        with np.load(io.BytesIO(raw[32:])) as arrays:
            for name in arrays.files:
                yield arrays[name].tobytes()
                yield repr(arrays[name].tolist()).encode()
    elif path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pylist()).encode()


def test_no_output_of_any_command_holds_a_planted_secret(
    connection: Connection,
    tmp_path: Path,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    port, state_topic = free_port(), f"state-{group}"
    site = Site(
        tmp_path,
        connection,
        f"in-{group}",
        WORKER_ALERTS__REDACT=REDACT,
        WORKER_ALERTS__REDACT_SECRET="the key of the hashes",
        WORKER_ALERTS__GROUP_BY="customer,card.brand",
        WORKER_ALERTS__MAX_PER_MINUTE="3",
        WORKER_KAFKA__STATE_TOPIC=state_topic,
        WORKER_TRAIN__MIN_RECORDS="300",
        WORKER_TRAIN__STATE_FILE=str(tmp_path / "state.npz"),
        WORKER_MODEL__EPOCHS="4",
        WORKER_THRESHOLD__QUANTILE="0.9",
        WORKER_THRESHOLD__WINDOW="200",
        WORKER_THRESHOLD__STRIDE="16",
        WORKER_BREAKER__CONSECUTIVE="0",
        WORKER_LOG__LEVEL="debug",
        WORKER_DEVICE="cpu",
        WORKER_HTTP__PORT=str(port),
    )
    (tmp_path / "schema.toml").write_text(SCHEMA)
    outputs = [site.alerts, site.dead_letters, site.scores, state_topic]
    ensure_topics(connection, dict.fromkeys([site.input_topic, *outputs[:3]], 1))
    ensure_topics(connection, {state_topic: 1}, configs={"cleanup.policy": "compact"})
    sent = messages(site.input_topic)
    produce(connection, sent)
    monkeypatch.chdir(tmp_path)
    for name, value in site.environment.items():
        if name.startswith("WORKER_"):
            monkeypatch.setenv(name, value)
    outputs_of: dict[str, list[bytes]] = {}

    def command(*arguments: str) -> None:
        assert main(list(arguments)) == 0, capfd.readouterr()
        outputs_of[" ".join(arguments)] = ["".join(capfd.readouterr()).encode()]

    fitted = site.run("train", "--once")
    assert fitted.returncode == 0, fitted.stderr
    outputs_of["train"] = [(fitted.stdout + fitted.stderr).encode()]
    worker = site.start()
    site.wait_until_drained()
    for page in ("metrics", "readyz", "livez"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
            outputs_of[page] = [answer.read()]
    assert worker.stop() == 0, worker.log.read_text()
    trainer = site.start("train", settings={"WORKER_HTTP__PORT": "0", "WORKER_TRAIN__INTERVAL_S": "1"})
    trainer.wait_for('"checked"')
    assert trainer.stop() == 0
    command("check")
    command("models", "show")
    command("models", "list", "--json")
    command("infer-schema", "--topic", site.input_topic)
    command("replay", "--topic", site.input_topic, "--out", "out", "--latent", "--refit-every", "300")
    site.close()

    records = {topic: read_all(connection, topic) for topic in outputs}
    for topic, published in records.items():
        outputs_of[topic] = [part for one in published for part in (one.key, one.value) if part]
        outputs_of[topic] += [
            f"{name}={value!r}".encode() + (value or b"") for one in published for name, value in one.headers
        ]
        outputs_of[topic] += [zlib.decompress(part) for part in outputs_of[topic] if part[:1] == b"\x78"]
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        outputs_of[str(path.relative_to(tmp_path))] = list(contents(path))
    leaks = {
        (place, str(secret)): part[max(0, part.index(form) - 200) :][:400]
        for secret in SECRETS
        for form in forms(secret)
        for place, parts in outputs_of.items()
        for part in parts
        if form in part
    }
    assert not leaks
    assert len(SECRETS) >= 20
    # It did work, and what is not redacted is all there.
    alerts = [orjson.loads(one.value or b"") for one in records[site.alerts]]
    assert len(records[site.scores]) == 800 + UNEXPECTED
    assert len(records[site.dead_letters]) == len(sent) - 800 - UNEXPECTED
    assert len(alerts) >= 5
    assert all(alert["record"]["channel"] in {"shop", "web"} for alert in alerts if alert["record"])
    assert any(alert["group"] for alert in alerts if "group" in alert)
    assert b"shop-1" in {one.key for one in records[site.scores]}
    assert len({one.key for one in records[site.scores]}) == len({one.key for one in sent[:800]})
    assert any("rows.jsonl" in place for place in outputs_of)
    assert {"out/report.html", "out/scores.parquet", "state.npz", "metrics"} <= outputs_of.keys()
