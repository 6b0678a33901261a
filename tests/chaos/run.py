"""Rounds: hurt, wait until all is worked off, judge."""

import time
from collections.abc import Iterable
from random import Random
from types import TracebackType
from typing import Self

from tests.chaos.crowd import Crowd, Member, cpu_s, wait_until
from tests.chaos.faults import Fault, Misbehaved, draw
from tests.chaos.oracle import Verdict, judge
from tests.chaos.shadow import Shadow
from tests.chaos.witness import Witness
from worker.broker.ranges import TopicReader
from worker.errors import WorkerError
from worker.records import Partition

STARTED_S, DRAINED_S, READ_S = 120.0, 120.0, 60.0
IDLE_CPU = 0.10


class Failed(AssertionError):
    """A round that broke the promise."""


class Run:
    """The rounds of one run, with its reader and its judge."""

    def __init__(self, crowd: Crowd, *, exactly_once: bool) -> None:
        self._crowd = crowd
        self._exactly_once = exactly_once
        site = crowd.site
        self._witness = Witness(
            crowd.connection,
            crowd.topics,
            inputs=site.input_topic,
            scores=site.scores,
            alerts=site.alerts,
            dead=site.dead_letters,
        )
        self._shadow = Shadow()
        self._verdict = Verdict(0, 0, 0, 0, 0, 0, [])
        self._anew = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._witness.close()

    def round(self, number: int, seed: int, fault: Fault | None = None) -> None:
        """One fault, by default one that is drawn. Raises Failed."""
        started, rng = time.monotonic(), Random(seed)
        try:
            what = (fault or draw(rng))(self._crowd, self._witness, rng)
        except Misbehaved as error:
            raise Failed(f"round {number} (seed {seed}): {error}") from error
        hurt = time.monotonic()
        self.settle(f"round {number} (seed {seed}): {what}")
        seen, now = self._verdict, time.monotonic()
        print(  # noqa: T201  # a line a round
            f"round {number:3}  {now - started:5.1f} s ({now - hurt:4.1f} to recover)  "
            f"{seen.records:7} records {seen.alerts:5} alerts {seen.dead_letters:5} dead letters  "
            f"{seen.lost} lost {seen.duplicates} again {self._anew} other thresholds  {what}",
            flush=True,
        )

    def settle(self, what: str) -> None:
        """Until everything that is in the topic now is worked off and read. Raises Failed when something is wrong."""
        if not wait_until(lambda: all(map(_is_up, self._crowd.members)), STARTED_S):
            raise Failed(f"{what}: not all workers are up after {STARTED_S:g} s; their logs say why")
        until = self._ends_of_input()
        if not wait_until(lambda: self._is_committed(until) or self._crowd.dead(), DRAINED_S):
            raise Failed(f"{what}: not worked off in {DRAINED_S:g} s: {self._committed()} of {until}")
        for member in self._crowd.dead():
            raise Failed(f"{what}: {member.name} ended with {member.process.process.returncode}: {member.process.log}")
        self._judge(what, until)

    def _judge(self, what: str, until: dict[int, int]) -> None:
        committed = self._committed()
        ends = self._ends(self._crowd.topics)
        if not wait_until(lambda: self._witness.has_reached(ends), READ_S):
            raise Failed(f"{what}: results up to {ends} could not be read in {READ_S:g} s: an open transaction?")
        with self._witness.lock:
            self._witness.seen.committed = committed
            self._verdict = judge(self._witness.seen, exactly_once=self._exactly_once, until=until)
            fresh, self._witness.unjudged = self._witness.unjudged, []
            compared = dict(self._witness.compared)
        self._shadow.follow(fresh)
        scores, thresholds = self._shadow.differing(compared)
        self._anew = len(thresholds)
        problems = [self._witness.trouble, *self._verdict.problems]
        problems.append(f"{len(scores)} other scores than undisturbed, first at {scores[0]}" if scores else "")
        if self._exactly_once and thresholds:
            problems.append(f"{len(thresholds)} other thresholds than undisturbed, first at {thresholds[0]}")
        if any(problems):
            raise Failed(f"{what}: {'; '.join(filter(None, problems))}")

    def _ends_of_input(self) -> dict[int, int]:
        ends = self._ends([self._crowd.site.input_topic])
        return {partition.partition: end for partition, end in ends.items()}

    def _ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """The ends of the logs, open transactions included; asked for until the broker answers."""
        deadline = time.monotonic() + DRAINED_S
        while True:
            try:
                reader = TopicReader(self._crowd.connection, timeout_s=10.0)
                try:
                    return {place: end for topic in topics for place, end in reader.end_offsets(topic).items()}
                finally:
                    reader.close(1.0)
            except WorkerError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"the ends of {topics} can't be read: {error}") from error

    def _committed(self) -> dict[int, int]:
        try:
            return {place.partition: offset for place, offset in self._crowd.site.committed().items()}
        except WorkerError:
            return {}

    def _is_committed(self, until: dict[int, int]) -> bool:
        committed = self._committed()
        return all(committed.get(partition, 0) >= end for partition, end in until.items() if end)

    def summary(self, rounds: int, seed: int, seconds: float) -> str:
        """The last line of a run."""
        seen = self._verdict
        again = "duplicates" if self._exactly_once else "repeated with the same id"
        name = "exactly_once" if self._exactly_once else "at_least_once"
        return (
            f"chaos: {rounds} rounds, {name}: {seen.lost} lost, {seen.duplicates} {again}, "
            f"{self._anew} of {seen.scores} scores with another threshold than undisturbed; "
            f"{seen.records} records, {seen.alerts} alerts, {seen.dead_letters} dead letters, "
            f"{seconds / 60:.1f} min, seed {seed}"
        )


def _is_up(member: Member) -> bool:
    return member.process.said("started") or member.process.process.poll() is not None


def outage(seconds: float) -> Fault:
    """The broker away for so long: the workers wait with little CPU, and go on by themselves."""

    def away(crowd: Crowd, witness: Witness, rng: Random) -> str:
        del witness, rng
        crowd.broker.kill()
        time.sleep(min(2.0, seconds / 4))  # what is in flight fails first
        pids = [member.process.process.pid for member in crowd.members]
        before, started = [cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(max(0.0, seconds - 2.0))
        elapsed = time.monotonic() - started
        used = max(cpu_s(pid) - spent for pid, spent in zip(pids, before, strict=True)) / elapsed
        crowd.broker.restart()
        if used > IDLE_CPU:
            raise Misbehaved(f"a worker used {used:.0%} of a core while the broker was away")
        return f"broker away for {seconds:g} s, at most {used:.1%} of a core used"

    return away
