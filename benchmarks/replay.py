"""Records/s, peak memory and the cost of a sweep of `worker replay`: python -m benchmarks.replay [FILE --label FIELD].

Without FILE: 400,000 made-up card payments of 130 bytes. Every number comes from a process of its own.
"""

import argparse
import gzip
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

RECORDS = 400_000
TIMES_AS_LONG = 10
QUANTILES = "0.9,0.95,0.98,0.99,0.993,0.995,0.996,0.997,0.998,0.999"


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--label", default="fraud")
    parser.add_argument("--ignore", action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as name:
        folder = Path(name)
        file = args.file.resolve() if args.file else make_file(folder / "payments.jsonl.gz")
        options = ["--label", args.label, *(word for field in args.ignore for word in ("--ignore", field))]
        schema = folder / "schema.toml"
        schema.write_bytes(
            command(folder, "infer-schema", str(file), *(f"--ignore={f}" for f in (args.label, *args.ignore)))
        )
        command(folder, "train", "--once", "--from", str(file), "--schema", str(schema))
        once = measure(folder, [str(file), *options])
        swept = measure(folder, [str(file), *options, "--sweep", f"threshold.quantile={QUANTILES}"])
        long = measure(folder, [str(file)] * TIMES_AS_LONG + options)
        print(f"{once['records']:,} records: {once['records_per_s']:,} records/s, peak {once['peak_mb']} MB")
        print(f"{long['records']:,} records: {long['records_per_s']:,} records/s, peak {long['peak_mb']} MB")
        print(f"sweep over 10 quantiles: {swept['wall_s'] / once['wall_s']:.2f} times one run")


def command(folder: Path, *arguments: str) -> bytes:
    """Run a worker command in `folder`; its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    environment |= {"WORKER_LOG__LEVEL": "error", "WORKER_TRAIN__WINDOW_RECORDS": "20000"}
    done = subprocess.run(  # our own command
        [sys.executable, "-m", "worker", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, check=True
    )
    return done.stdout


def measure(folder: Path, arguments: list[str]) -> dict[str, float]:
    """Metrics of one replay, with its wall time and peak memory, measured in a child that runs only this."""
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        command(folder, "replay", *arguments)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        (folder / "peak").write_text(str(peak))
        os._exit(0)
    os.waitpid(pid, 0)
    metrics: dict[str, float] = orjson.loads((folder / "out/replay/metrics.json").read_bytes())
    return {**metrics, "wall_s": time.perf_counter() - started, "peak_mb": int((folder / "peak").read_text())}


def make_file(path: Path) -> Path:
    """Card payments over 40 days, 1% with an amount that doesn't fit."""
    draw = random.Random(0)  # seeded on purpose
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number in range(RECORDS):
            second = number * 40 * 86_400 // RECORDS
            odd = draw.random() < 0.01
            row = {
                "id": number,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_767_225_600 + second)),
                "customer": f"c{draw.randrange(5000)}",
                "terminal": f"t{draw.randrange(10_000)}",
                "amount": round(draw.lognormvariate(3, 1) * (30 if odd else 1), 2),
                "fraud": int(odd),
            }
            file.write(orjson.dumps(row) + b"\n")
    return path


if __name__ == "__main__":
    main()
