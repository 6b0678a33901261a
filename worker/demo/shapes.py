"""`python -m worker.demo.shapes NAME`: small made-up samples in the shapes that people bring, for the quick start.

Each NAME writes NAME-history (normal traffic) and NAME-later (the same, with anomalies planted) into this folder. They
are seeded: the same call writes the same bytes. No value in them is anybody's.

    audit     the audit trail of a cloud: event types with fields of their own, arrays, addresses; JSON lines
    access    the access log of a web server: lines of text
    changes   Debezium's change events of a table with orders: before and after; JSON lines
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

HISTORY, LATER = 6_000, 3_000
PLANTED_EVERY = 100
LABEL = "planted"
START = datetime(2026, 2, 1, tzinfo=UTC)

Moment = tuple[datetime, bool]
"""When the next record happens, and whether it is a planted anomaly."""


def moments(draw: Random) -> Iterator[Moment]:
    """A record every few seconds; beyond the history every 100th is planted."""
    now = START
    for number in range(HISTORY + LATER):
        now += timedelta(seconds=draw.expovariate(1 / 20))
        # By number and not by chance: a reader can count them, also in lines that have no place for a label.
        yield now, number >= HISTORY and number % PLANTED_EVERY == PLANTED_EVERY // 2


def audit(draw: Random) -> Iterator[bytes]:
    """What users and services of an account did."""
    users = [(f"user-{number:02d}", f"10.{number % 4}.{number}.7") for number in range(24)]
    for now, is_planted in moments(draw):
        user, address = draw.choice(users)
        name, source, parameters = _parameters(draw)
        event = {
            "eventTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "eventID": f"{draw.getrandbits(64):016x}",
            "eventName": name,
            "eventSource": f"{source}.cloud.example",
            "region": draw.choice(["north-1", "north-1", "south-1"]),
            "sourceAddress": address,
            "userIdentity": {"type": "User", "name": user, "mfa": draw.random() < 0.9},
            "requestParameters": parameters,
            LABEL: False,
        }
        if is_planted:
            event |= {LABEL: True, **_odd_event(draw, event)}
        yield orjson.dumps(event)


def _parameters(draw: Random) -> tuple[str, str, dict[str, Any]]:
    """An event's name, its service, and what was asked for."""
    return draw.choice(
        [
            ("ListBuckets", "storage", dict[str, Any]()),
            ("GetObject", "storage", {"bucket": f"reports-{draw.randrange(6)}", "bytes": draw.randrange(9_000)}),
            ("DescribeInstances", "compute", {"filters": draw.sample(["zone", "state", "owner"], 2)}),
            ("StartInstances", "compute", {"instances": draw.randrange(1, 4), "type": draw.choice(["s", "m"])}),
            ("AddUserToGroup", "identity", {"groups": draw.sample(["readers", "builders", "testers"], 2)}),
        ]
    )


def _odd_event(draw: Random, event: Mapping[str, Any]) -> Mapping[str, Any]:
    return draw.choice(
        [
            {"userIdentity": {"type": "Root", "mfa": False}, "eventName": "ConsoleLogin", "requestParameters": {}},
            {"region": "far-9"},
            {
                "eventName": "AddUserToGroup",
                "eventSource": "identity.cloud.example",
                "requestParameters": {"groups": ["readers", "administrators"]},
            },
            {
                "sourceAddress": f"203.0.113.{draw.randrange(250)}",
                "userIdentity": {**event["userIdentity"], "mfa": False},
            },
        ]
    )


def access(draw: Random) -> Iterator[bytes]:
    """Requests in the combined log format."""
    pages = ["/", "/login", "/cart", "/search?q=shoes", "/static/site.css", "/static/logo.png"]
    agents = ["Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Mozilla/5.0 (Macintosh) Safari/605.1", "uptime/2.1"]
    for now, is_planted in moments(draw):
        page = draw.choice([*pages, f"/product/{draw.randrange(400)}"])
        status, size, agent = draw.choice(["200", "200", "200", "304"]), draw.randrange(300, 9_000), draw.choice(agents)
        request = f"GET {page} HTTP/1.1"
        if is_planted:
            request, status, agent = draw.choice(
                [
                    ("GET /admin/config.php?cmd=cat+/etc/passwd HTTP/1.1", "404", "curl/8.5.0"),
                    ("POST /login' OR '1'='1 HTTP/1.1", "500", "python-requests/2.32"),
                    (r"\x16\x03\x01\x02\x00", "400", "-"),
                ]
            )
        when = now.strftime("%d/%b/%Y:%H:%M:%S +0000")
        yield f'198.51.100.{draw.randrange(250)} - - [{when}] "{request}" {status} {size} "-" "{agent}"'.encode()


def changes(draw: Random) -> Iterator[bytes]:
    """A table with orders, row by row as it changes."""
    for number, (now, is_planted) in enumerate(moments(draw)):
        country = draw.choice(["DE", "FR", "NL"])
        # Each country has amounts of its own, so that these fields depend on each other, as real ones do.
        median = {"DE": 40, "FR": 90, "NL": 15}[country]
        after: dict[str, Any] = {
            "order_id": number,
            "amount": f"{draw.lognormvariate(0, 0.4) * median:.2f}",
            "currency": "EUR",
            "country": country,
            "status": "new",
            "updated_at": int(now.timestamp() * 1000),
        }
        before = None
        if draw.random() < 0.5:
            before, after = after, {**after, "status": draw.choice(["paid", "shipped"])}
        if is_planted:
            after |= draw.choice([{"amount": f"{median * 200:.2f}"}, {"currency": "XAU"}, {"status": "voided"}])
        event = {
            "before": before,
            "after": after,
            "source": {"connector": "postgresql", "db": "shop", "table": "orders", "lsn": 10_000 + 40 * number},
            "op": "c" if before is None else "u",
            "ts_ms": int(now.timestamp() * 1000) + draw.randrange(400),
            LABEL: is_planted,
        }
        yield orjson.dumps(event)


SHAPES: Final[Mapping[str, tuple[Callable[[Random], Iterator[bytes]], str]]] = {
    "audit": (audit, "jsonl"),
    "access": (access, "log"),
    "changes": (changes, "jsonl"),
}


def main() -> None:
    """Write both files of one shape."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo.shapes", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SHAPES, metavar="NAME", help=", ".join(SHAPES))
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    args = parser.parse_args()
    records, ending = SHAPES[args.name]
    lines = records(Random(args.seed))
    for part, count in (("history", HISTORY), ("later", LATER)):
        path = Path(f"{args.name}-{part}.{ending}")
        path.write_bytes(b"\n".join(islice(lines, count)) + b"\n")
        sys.stdout.write(f"{path}: {count:,} records\n")


if __name__ == "__main__":
    main()
