"""Raw lines of a log: a fit on the first part, a replay of the rest."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from worker.cli import main

USERS = [f"{first}{last}" for first in ("al", "be", "ca", "do") for last in ("an", "en", "in")]
NEW = (
    "kernel: Out of memory: killed process {n} (java)",
    "api[77]: panic: runtime error, index out of range [{n}]",
    "sshd[{n}]: error: maximum authentication attempts exceeded for {user} from {address}",
)
PARAMETERS = (
    "sshd[{n}]: Accepted password for root from {address} port {n} ssh2",
    "sshd[{n}]: Accepted password for {user} from 198.51.100.7 port {n} ssh2",
    "api[77]: GET /v1/orders/{n} status 500",
    "cron[{n}]: (root) CMD run-parts /dev/shm/.x/run.sh",
)
USUAL = (
    "sshd[{n}]: Accepted password for {user} from {address} port {n} ssh2",
    "sshd[{n}]: Connection closed by {address} port {n} [preauth]",
    "api[77]: GET /v1/orders/{n} status 200",
    "api[77]: GET /v1/orders/{n} status 404",
    "cron[{n}]: (root) CMD run-parts /etc/cron.hourly",
    "session of user {user} took {n} ms",
)


def records(month: str, count: int, seed: int, planted: float = 0.0) -> list[dict[str, Any]]:
    """A month of lines; a share of them is of a new sort, has an unusual value, or begins a burst of a new sort."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        is_odd = draw.random() < planted
        sort, times = (
            (draw.choice(NEW), draw.choice((1, 1, 6))) if draw.random() < 0.5 else (draw.choice(PARAMETERS), 1)
        )
        for _ in range(times if is_odd else 1):
            values = {
                "n": draw.randrange(1000, 60000),
                "user": draw.choice(USERS),
                "address": f"10.0.0.{draw.randrange(9)}",
            }
            body = (sort if is_odd else draw.choice(USUAL)).format(**values)
            time = f"{month} {1 + len(rows) * 28 // count:2d} {draw.randrange(24):02d}:{draw.randrange(60):02d}:07"
            rows.append({"message": f"{time} web-{draw.randrange(3)} {body}", "is_odd": is_odd})
    return rows[:count]


def test_what_is_odd_in_raw_lines_stands_out_and_the_next_month_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 300}')
    march = records("Mar", 2000, seed=0)
    rows = [*march, *records("Mar", 1000, seed=1, planted=0.02), *records("Apr", 1000, seed=2)]
    Path("log.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    Path("schema.toml").write_text('[fields.message]\nkind = "text"\n')

    options = ("--label", "is_odd", "--fit-first", str(len(march)), "--out", "out")
    assert main(["replay", "log.jsonl", "--schema", "schema.toml", *options]) == 0

    measures = orjson.loads(Path("out", "metrics.json").read_bytes())
    assert measures["average_precision"] > 0.9
    assert measures["false_alert_rate"] < 0.02
