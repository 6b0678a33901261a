"""Time and memory of texts, where no two lines are the same: python -m benchmarks.texts [LINES].

What a line costs in a batch of 8,192 (form alone; template, novelty and rarity), what a fit costs, and how the memory
of this process grows over so many lines (5 million by default) that are read, and over as many that are learned from.
"""

import random
import resource
import sys
import time
from collections.abc import Callable, Iterator

from worker.features.kinds import Text
from worker.features.kinds.lexicon import fit_lexicon
from worker.features.kinds.masks import masked, template

BATCH = 8192
LETTERS = "abcdefghijklmnopqrst"
USERS = [f"{first}{last}" for first in ("ali", "bo", "ca", "de", "e") for last in ("ce", "b", "rol", "nis", "ve")]
REPEATS = 5


class Lines:
    """So many lines of a log, made anew whenever they are walked through; a tenth are of a sort of their own."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __iter__(self) -> Iterator[str]:
        draw = random.Random(self.seed)
        for n in range(self.count):
            port, address, user = draw.randrange(1024, 65536), f"10.0.{n % 8}.{draw.randrange(250)}", draw.choice(USERS)
            body = (
                f"sshd[{port}]: Accepted password for {user} from {address} port {port} ssh2",
                f"api[77]: GET /v1/orders/{n} status 200 in {port % 300} ms",
                f"dn[12]: Receiving block blk_{n * 7919} src: /{address}:{port} dest: /{address}:50010",
                f"worker[{port}]: {''.join(draw.choices(LETTERS, k=9))} {''.join(draw.choices(LETTERS, k=9))} ended",
            )[3 if n % 10 == 0 else n % 3]
            yield f"Mar {1 + n % 28:2d} {n % 24:02d}:{n % 60:02d}:07 web-{n % 4} {body}"


def best(function: Callable[[], object]) -> float:
    """Processor seconds of the fastest of `REPEATS` calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def peak_mb() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print microseconds a line, and megabytes by lines."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    lines = list(Lines(BATCH, seed=1))
    unread = Text("message").read(lines)[0]
    field = Text("message").knowing(fit_lexicon("message", Lines(20_000), 1024, masked))
    print(f"{sum(map(len, lines)) / BATCH:.0f} characters a line, {BATCH} lines a batch")
    steps: dict[str, Callable[[], object]] = {
        "form alone": lambda: list(map(template, lines)),
        "read": lambda: field.categories(field.read(lines)[0]),
        "fit": lambda: Text("message").learn(unread),
    }
    for name, step in steps.items():
        print(f"{name:20s} {best(step) / BATCH * 1e6:6.1f} us a line")
    for what, walk in (("read", lambda lines: _read(field, lines)), ("learned from", _learn)):
        for part in (count // 100, count // 10, count):
            start = time.perf_counter()
            walk(Lines(part, seed=2))
            print(f"{part:12,d} lines {what}: {peak_mb():7.1f} MB, {time.perf_counter() - start:.0f} s")


def _read(field: Text, lines: Lines) -> None:
    batch = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            field.categories(field.read(batch)[0])
            batch.clear()


def _learn(lines: Lines) -> None:
    fit_lexicon("message", lines, 1024, masked)


if __name__ == "__main__":
    main()
