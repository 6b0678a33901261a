"""A record loop on the in-memory broker, and what it has to publish."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from devtools import traffic
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryConsumer, MemoryProducer, MemoryReader, MemoryTransactionalProducer
from worker.alerts.encode import alert_id
from worker.broker.base import Consumer, RangeReader, Unreadable
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.errors import TransientError
from worker.pipeline import Model, Pipeline
from worker.records import Message, Outcome, Outgoing, Partition, RawMessage
from worker.rollout.rollout import Promotion, Rollout
from worker.stream.breaker import Breaker
from worker.stream.checkpoints import CheckpointChangelog, Checkpoints, Doubt, TopicCheckpoints
from worker.stream.events import Events
from worker.stream.loop import Loop
from worker.stream.sinks.kafka import KafkaSink
from worker.thresholds.factory import ThresholdFactory

Guarantee = Literal["at_least_once", "exactly_once"]
GROUP = "group"
WINDOW = 1000
Place = tuple[int, int]
Scored = dict[Place, set[tuple[float, float | None, str]]]


class Killed(Exception):
    """Stands for the end of a process: nothing catches it."""


@dataclass
class Seen(Events):
    """What the loop told."""

    batches: int = 0
    lost: list[str] = field(default_factory=list)
    retries: list[TransientError] = field(default_factory=list)
    swaps: list[tuple[str, str]] = field(default_factory=list)
    short: int = 0
    sizes: list[int] = field(default_factory=list)
    begun: dict[Partition, int] = field(default_factory=dict)
    restored: dict[Partition, int] = field(default_factory=dict)
    rebuilt: dict[Partition, str] = field(default_factory=dict)
    passed_over: list[Unreadable] = field(default_factory=list)
    owned: set[Partition] = field(default_factory=set)
    revoked: set[Partition] = field(default_factory=set)

    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        self.batches += 1

    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        self.owned = (self.owned - set(revoked)) | set(assigned)
        self.revoked |= set(revoked)

    def began(self, starts: Mapping[Partition, int]) -> None:
        self.begun.update(starts)

    def checkpoint_restored(self, partition: Partition, next_offset: int) -> None:
        self.restored[partition] = next_offset

    def checkpoint_rebuilt(self, partition: Partition, why: str) -> None:
        self.rebuilt[partition] = why

    def swapped(self, old: str, new: str) -> None:
        self.swaps.append((old, new))

    def retrying(self, error: TransientError, attempt: int) -> None:
        self.retries.append(error)

    def dropped(self, records: int, why: str) -> None:
        self.lost.append(why)

    def unreadable(self, partition: Partition, first_offset: int, last_offset: int, why: str) -> None:
        self.passed_over.append(Unreadable(partition, first_offset, last_offset, why))

    def shortened(self, records: int) -> None:
        self.short += records

    def slowed(self, records: int, seconds: float) -> None:
        self.sizes.append(records)


def threshold_factory(window: int = WINDOW) -> ThresholdFactory:
    """Twenty slots, an update every 64 records."""
    return ThresholdFactory(quantile=0.97, window=window, stride=64)


def make_model(seed: int) -> Model:
    """One for each worker: a model scores on one thread at a time."""
    return Model(traffic.bundle(seed))


def make_pipeline(seed: int = 0, window: int = WINDOW) -> Pipeline:
    return Pipeline(make_model(seed), threshold_factory=threshold_factory(window))


class SuppliedModels(Rollout):
    """Swaps to models that a test makes up."""

    def __init__(self, current: Model, new_model: Callable[[], Model | None]) -> None:
        super().__init__(current)
        self._new_model = new_model

    def swap(self, pipeline: Pipeline) -> bool:
        model = self._new_model()
        if model is not None:
            self.promote(Promotion(model, needs_canary=False))
        return super().swap(pipeline)


class Worker:
    """One process: step it, or let it drain the input."""

    def __init__(self, stage: "Stage", name: str, options: Mapping[str, Any]) -> None:
        options = {"batch_size": 100, "seed": 0, "window": WINDOW, "stateful": True, **options}
        self.stage = stage
        self.seen = Seen()
        self.settings = {"window": options["window"]}
        self.pipeline = make_pipeline(options.pop("seed"), options.pop("window"))
        self.consumer = stage.consumer()
        stateful = options.pop("stateful")
        if "rollout" in options:
            options["rollout"] = options["rollout"](self.pipeline.model)
        if "new_model" in options:
            options["rollout"] = SuppliedModels(self.pipeline.model, options.pop("new_model"))
        self.loop = Loop(
            self.consumer,
            stage.delivery(self.consumer, name),
            self.pipeline,
            kafka_sink=stage.kafka_sink(),
            breaker=options.pop("breaker", Breaker(invalid_ratio=1.0, window=100, consecutive=0)),
            events=self.seen,
            wall_clock=lambda: "2026-01-01T00:00:00.000Z",
            checkpoints=stage.checkpoints(self) if stateful else Checkpoints(),
            max_wait_ms=0,
            **options,
        )

    def drain(self, max_steps: int = 1000) -> "Worker":
        """Until everything in the input is committed."""
        for _ in range(max_steps):
            if self.stage.is_drained():
                return self
            self.loop.step()
        raise AssertionError(f"not drained after {max_steps} steps")

    def die(self) -> None:
        """The group notices that it is gone; nothing is finished."""
        self.consumer.close(1.0)


class Stage:
    """The topics of one deployment, on the in-memory broker."""

    doubt_s = 0.0

    def __init__(
        self, *, partitions: int = 1, state_partitions: int | None = None, guarantee: Guarantee = "at_least_once"
    ) -> None:
        self.guarantee = guarantee
        topics = {"in": partitions, "alerts": 1, "dead": 1, "scores": 1, "state": state_partitions or partitions}
        self.broker = MemoryBroker(topics, now_ms=lambda: 1_767_225_600_000, max_record_bytes=100_000)
        self.fed: list[Message] = []

    def feed(self, messages: Iterable[Message]) -> "Stage":
        """These messages, in their own partitions."""
        new = list(messages)
        self.fed += new
        self.broker.append([Outgoing("in", m.key, m.value, m.headers, m.partition) for m in new])
        return self

    def worker(self, name: str = "worker", **options: Any) -> Worker:
        """A process; same name, same transactional id."""
        return Worker(self, name, options)

    def consumer(self) -> Consumer:
        return MemoryConsumer(self.broker, ["in"], GROUP)

    def kafka_sink(self) -> KafkaSink:
        return KafkaSink(alerts_topic="alerts", dead_letter_topic="dead", scores_topic="scores")

    def delivery(self, consumer: Consumer, name: str) -> AtLeastOnce | ExactlyOnce:
        if self.guarantee == "at_least_once":
            return AtLeastOnce(consumer, lambda: MemoryProducer(self.broker))
        return ExactlyOnce(consumer, lambda: MemoryTransactionalProducer(self.broker, name))

    def checkpoints(self, worker: Worker) -> TopicCheckpoints:
        changelog = CheckpointChangelog(
            self.reader, topic="state", group_id=GROUP, transactional=self.guarantee == "exactly_once"
        )
        return TopicCheckpoints(
            worker.consumer,
            worker.pipeline,
            changelog,
            settings=worker.settings,
            events=worker.seen,
            doubt=Doubt(self.doubt_s),
        )

    def reader(self, read_committed: bool) -> RangeReader:
        del read_committed  # nothing uncommitted is ever in the log
        return MemoryReader(self.broker)

    def is_drained(self) -> bool:
        committed = self.broker.offsets(GROUP)
        ends = {partition: self.broker.bounds(partition)[1] for partition in self.broker.partitions("in")}
        return all(committed.get(partition, 0) == end for partition, end in ends.items())

    def published(self, topic: str) -> list[dict[str, Any]]:
        """The documents in a topic of results."""
        return [orjson.loads(message.value or b"") for message in self.records(topic)]

    def records(self, topic: str) -> Sequence[RawMessage]:
        """Everything in a topic."""
        return self.broker.records(topic)

    def scored(self) -> Scored:
        """Score, threshold and model that each record was published with; more than one if they ever differed."""
        scored: Scored = {}
        for score in self.published("scores"):
            place = score["source"]["partition"], score["source"]["offset"]
            scored.setdefault(place, set()).add((score["score"], score["threshold"], score["model_version"]))
        return scored

    def alerted(self) -> set[str]:
        """The ids on the alerts topic."""
        return {alert["alert_id"] for alert in self.published("alerts")}

    def repeated_alerts(self) -> int:
        """Alerts that were published more than once."""
        return len(self.published("alerts")) - len(self.alerted())


def undisturbed(messages: Sequence[Message], seed: int = 0) -> tuple[Scored, set[str]]:
    """What one pipeline makes of all messages at once: scores and alert ids."""
    outcome = make_pipeline(seed).process(messages)
    scores = outcome.scores
    rows = zip(scores.messages, scores.score.tolist(), scores.threshold.tolist(), strict=True)
    scored = {(m.partition, m.offset): {(score, limit, scores.model_version)} for m, score, limit in rows}
    return scored, {alert_id(a.message.topic, a.message.partition, a.message.offset) for a in outcome.alerts}


def assert_as_undisturbed(stage: Stage) -> None:
    """Every record scored with the very score and threshold of an undisturbed run, and the same alerts."""
    expected, alerts = undisturbed(stage.fed)
    published = stage.scored()
    assert published.keys() == expected.keys()
    assert {place: (published[place], scores) for place, scores in expected.items() if published[place] != scores} == {}
    assert stage.alerted() == alerts
    if stage.guarantee == "exactly_once":
        assert stage.repeated_alerts() == 0
        assert len(stage.published("scores")) == len(expected)
