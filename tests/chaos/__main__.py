# ruff: noqa: T201  # a command prints its result
"""make chaos: real workers on Apache Kafka, one seeded fault a round, and a judge after each.

python -m tests.chaos --rounds 30 --seed 1 --delivery exactly_once
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="round r draws from seed + r")
    parser.add_argument("--delivery", choices=["exactly_once", "at_least_once"], default="exactly_once")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--outage-s", type=float, default=60.0, help="length of the last outage; 0 = none")
    parser.add_argument("--fault", help="this one in each round, by its function's name")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported: a fit that shares its cores is slower with more
    home = os.environ.get("KAFKA_HOME", "")
    if not (Path(home) / "libs").is_dir() or not home or shutil.which("java") is None:
        print("error: make chaos needs Apache Kafka 4 (KAFKA_HOME=… with libs/) and Java 17 on PATH", file=sys.stderr)
        return 1
    from tests.chaos.crowd import Crowd
    from tests.chaos.faults import FAULTS
    from tests.chaos.run import Failed, Run, outage

    only = {fault.__name__: fault for fault in FAULTS}
    if args.fault and args.fault not in only:
        print(f"error: no fault {args.fault!r}; there are: {', '.join(only)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"chaos: {args.rounds} rounds, {args.delivery}, {args.workers} workers, seed {args.seed}, in {folder}")
    started = time.monotonic()
    crowd = Crowd(Path(home), folder / "site", args.delivery, args.workers)
    failure = ""
    done = 0
    try:
        with Run(crowd, exactly_once=args.delivery == "exactly_once") as run:
            try:
                run.settle("start")
                for done in range(args.rounds):
                    run.round(done + 1, args.seed + done, only.get(args.fault))
                done = args.rounds
                if args.outage_s:
                    run.round(done + 1, args.seed, outage(args.outage_s))
            except Failed as error:
                failure = str(error)
            print(run.summary(done, args.seed, time.monotonic() - started), flush=True)
    finally:
        crowd.close()
    if failure:
        again = f"make chaos ROUNDS={done + 1} SEED={args.seed} DELIVERY={args.delivery}"
        print(f"FAILED: {failure}\nlogs and the broker's data: {folder}; again: {again}", flush=True)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
