"""A record loop on a real broker, stepped by a test."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from devtools.brokers import eventually, produce, read_all
from devtools.stage import Guarantee, Stage, Worker
from worker.broker.admin import ensure_compacted, ensure_topics
from worker.broker.base import Consumer, RangeReader
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.limits import RecordLimits
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.broker.topics import Topics, require_topics
from worker.records import Message, Outgoing, Partition, RawMessage
from worker.stream.checkpoints import CheckpointChangelog, TopicCheckpoints
from worker.stream.sinks.kafka import KafkaSink

PARTITIONS = 4
DEADLINE_S = 90.0


class KafkaStage(Stage):
    """The topics of one deployment, on a real broker.

    transaction_s      deadline of a transaction
    results_settings   what the broker has to set for the topics of results
    tells_limits       whether the broker tells how large their records may be
    """

    transaction_s = 30.0

    def __init__(
        self,
        connection: Connection,
        name: str,
        guarantee: Guarantee,
        assignor: str = "range",
        *,
        results_settings: Mapping[str, str] | None = None,
        tells_limits: bool = True,
    ) -> None:
        self.connection = connection
        self.guarantee = guarantee
        self.assignor = assignor
        self.input = f"{name}-in"
        self.group = f"{name}-group"
        self.state_topic = f"{name}-state"
        self.topics = {topic: f"{name}-{topic}" for topic in ("alerts", "dead", "scores")}
        self.fed: list[Message] = []
        self.open = ExitStack()
        ensure_topics(connection, {self.input: PARTITIONS})
        ensure_topics(connection, dict.fromkeys(self.topics.values(), 1), results_settings)
        self.tells_limits = tells_limits
        assert ensure_compacted(connection, self.state_topic, like=self.input) is None
        self.watcher = GroupConsumer(connection, [self.input], self.group)
        self.open.callback(self.watcher.close, 1.0)

    def feed(self, messages: Iterable[Message]) -> "KafkaStage":
        new = [replace(message, topic=self.input) for message in messages]
        self.fed += new
        produce(self.connection, [Outgoing(m.topic, m.key, m.value, m.headers, m.partition) for m in new])
        return self

    def consumer(self) -> Consumer:
        consumer = GroupConsumer(
            self.connection,
            [self.input],
            self.group,
            read_committed=self.guarantee == "exactly_once",
            assignor=self.assignor,
        )
        self.open.callback(consumer.close, 1.0)
        return consumer

    def kafka_sink(self) -> KafkaSink:
        alerts, dead, scores = self.topics.values()
        return KafkaSink(alerts_topic=alerts, dead_letter_topic=dead, scores_topic=scores)

    def delivery(self, consumer: Consumer, name: str) -> AtLeastOnce | ExactlyOnce:
        delivery: AtLeastOnce | ExactlyOnce
        limits = RecordLimits()
        if self.guarantee == "at_least_once":
            delivery = AtLeastOnce(consumer, lambda: AcknowledgedProducer(self.connection, self.known(limits)))
        else:
            delivery = ExactlyOnce(
                consumer,
                lambda: TransactionalKafkaProducer(
                    self.connection, f"{self.group}-{name}", self.known(limits), timeout_s=self.transaction_s
                ),
            )
        self.open.callback(delivery.close, 1.0)
        return delivery

    def known(self, limits: RecordLimits) -> RecordLimits:
        """What a process asks of the broker before it builds a producer."""
        if self.tells_limits:
            require_topics(self.connection, Topics([self.input], list(self.topics.values())), limits)
        return limits

    def checkpoints(self, worker: Worker) -> TopicCheckpoints:
        changelog = CheckpointChangelog(
            self.reader,
            topic=self.state_topic,
            group_id=self.group,
            transactional=self.guarantee == "exactly_once",
        )
        return TopicCheckpoints(worker.consumer, worker.pipeline, changelog, settings={}, events=worker.seen)

    def reader(self, read_committed: bool) -> RangeReader:
        return TopicReader(self.connection, read_committed=read_committed)

    def is_drained(self) -> bool:
        ends = {Partition(self.input, number): 0 for number in range(PARTITIONS)}
        for message in self.fed:
            ends[Partition(self.input, message.partition)] += 1
        return self.watcher.committed(ends) == ends

    def records(self, topic: str) -> Sequence[RawMessage]:
        return read_all(self.connection, self.topics[topic], read_committed=self.guarantee == "exactly_once")


def step_until(workers: Sequence[Worker], condition: Callable[[], bool], what: str) -> None:
    """Each worker on a thread of its own: a member that joins waits for the others to poll."""
    done = threading.Event()

    def step(worker: Worker) -> None:
        while not done.is_set():
            worker.loop.step()

    with ThreadPoolExecutor(len(workers)) as threads:
        running = [threads.submit(step, worker) for worker in workers]
        try:
            eventually(lambda: condition() or any(future.done() for future in running), DEADLINE_S, what)
        finally:
            done.set()
    for future in running:
        future.result()
