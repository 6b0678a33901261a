"""Time and memory of `worker infer-schema` on 200,000 records with 600 fields: python -m benchmarks.infer [RECORDS]."""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

RECORDS, FIELDS, BLOCK = 200_000, 600, 2_000


def make_block(first: int, draw: random.Random) -> bytes:
    """Lines of BLOCK records: numbers, numbers in strings, categories, ids, times, addresses and sentences in turn."""
    makers = (
        lambda _: round(draw.lognormvariate(3, 1), 2),
        lambda _: f"{draw.lognormvariate(3, 1):.2f}",
        lambda _: draw.choice("abcdefgh"),
        lambda _: draw.randrange(10**6),
        lambda _: f"{draw.getrandbits(64):016x}",
        lambda n: n,
        lambda n: f"2026-03-01T10:{n // 60 % 60:02d}:{n % 60:02d}Z",
        lambda _: f"10.0.{draw.randrange(256)}.{draw.randrange(256)}",
        lambda _: f"user {draw.randrange(900)} logged in from host {draw.randrange(90)}",
        lambda _: draw.random() < 0.1,
        lambda _: None,
        lambda _: "EUR",
    )
    rows = (
        {f"f{field}": makers[field % len(makers)](number) for field in range(FIELDS)}
        for number in range(first, first + BLOCK)
    )
    return b"\n".join(map(orjson.dumps, rows)) + b"\n"


def main() -> None:
    """Print seconds and peak memory of the command, interpreter and imports included."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.jsonl"
        blocks = [make_block(first, draw) for first in (0, BLOCK)]
        with path.open("wb") as file:
            for number in range(records // BLOCK):
                file.write(blocks[number % 2])
        print(f"{records:,} records, {FIELDS} fields, {path.stat().st_size / 1e9:.2f} GB")
        start = time.monotonic()
        command = [sys.executable, "-m", "worker", "infer-schema", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{seconds:.1f} s, of which {cpu_s:.1f} s of one core; {usage.ru_maxrss / 1024:.0f} MB at the most")


if __name__ == "__main__":
    main()
