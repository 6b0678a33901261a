"""A structured log whose ids, offsets and dates only grow, by its proposed schema: what comes later is no anomaly."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from worker.cli import main

FITTED, LATER = 2_000, 2_000


def lines(count: int) -> list[bytes]:
    draw, now, offset, made = random.Random(0), datetime(2026, 3, 1, tzinfo=UTC), 40_000_000, []
    for number in range(count):
        now += timedelta(seconds=draw.expovariate(1 / 30))
        offset += draw.randrange(80, 400)
        record = {
            "id": 7_000_000 + 3 * number + draw.randrange(3),
            "request": f"req-{500_000 + number:09d}",
            "offset": offset,
            "date": now.strftime("%Y-%m-%d"),
            "at": now.isoformat(),
            "uptime_s": 86_400 + 30 * number,
            "level": draw.choices(("info", "warn", "error"), (90, 8, 2))[0],
            "service": draw.choice(("cart", "search", "login")),
            "ms": round(draw.lognormvariate(3, 0.6), 1),
        }
        made.append(orjson.dumps(record))
    return made


def test_a_log_that_only_grows_alerts_under_two_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 300}')
    made = lines(FITTED + LATER)
    Path("history.jsonl").write_bytes(b"\n".join(made[:FITTED]))
    Path("log.jsonl").write_bytes(b"\n".join(made))
    assert main(["infer-schema", "history.jsonl"]) == 0
    Path("schema.toml").write_text(capsys.readouterr().out)

    assert main(["replay", "log.jsonl", "--fit-first", str(FITTED), "--out", "out"]) == 0

    alerts = Path("out", "alerts.jsonl").read_bytes().splitlines()
    assert len(alerts) < 0.02 * LATER
    assert orjson.loads(Path("out", "metrics.json").read_bytes())["dead_letters"] == 0
