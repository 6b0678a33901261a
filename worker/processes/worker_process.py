"""Wires one `worker run` process together and runs it from start to drain."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import structlog

from worker.broker.admin import ensure_compacted
from worker.broker.base import Delivery
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.errors import TransientError
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model, Pipeline
from worker.processes.loop_signals import LoopSignals
from worker.processes.model_source import ModelSource
from worker.processes.process import (
    CLOSE_S,
    Stop,
    Stopped,
    T,
    Words,
    calm_garbage_collector,
    patiently,
    start_logs,
    tune_process,
    watched,
)
from worker.processes.wiring import connection, make_pipeline, max_batch_s, utc_now
from worker.rollout.watcher import StoreRollout
from worker.settings import Settings
from worker.stream.breaker import Breaker
from worker.stream.checkpoints import CheckpointChangelog, Checkpoints, TopicCheckpoints
from worker.stream.loop import Loop
from worker.stream.sinks.base import SINKS, Sink
from worker.stream.sinks.kafka import KafkaSink

RETRY_CONNECT_S = 2.0


class WorkerProcess:
    """One process: wait for a model, join the group, loop, drain."""

    def __init__(self, settings: Settings, stop: Stop, message_of: Words = str) -> None:
        self._settings = settings
        self._stop = stop
        start_logs(settings, message_of)
        self._log = structlog.get_logger()
        self._metrics = Metrics()
        self._health = Health(stall_s=settings.http.stall_s, message_of=message_of)

    def run(self) -> int:
        """0 after a drain; FatalError otherwise."""
        tune_process(self._settings)
        with watched(self._settings, self._health, self._metrics.registry) as stack:
            try:
                source = ModelSource(self._settings, self._stop, self._health, self._metrics)
                model = source.first()
                self._consume(model, source.watch(model, stack), stack)
            except Stopped:
                pass
        return 0

    def _consume(self, model: Model, make_rollout: Callable[[int], StoreRollout], stack: ExitStack) -> None:
        settings, kafka = self._settings, self._settings.kafka
        if kafka.state_topic is None:
            self._log.warning("no state topic: thresholds start again after each restart and rebalance")
        else:
            self._patiently(self._prepare_state_topic)
        consumer = self._patiently(self._join)
        stack.callback(consumer.close, CLOSE_S)
        delivery = self._delivery(consumer)
        stack.callback(delivery.close, CLOSE_S)
        self._patiently(delivery.open)  # before the first poll: a predecessor's open transaction ends here
        partitions = self._patiently(self._count_partitions)
        pipeline = make_pipeline(settings, model, partitions)
        signals = LoopSignals(consumer, pipeline, self._metrics, self._health)
        loop = Loop(
            consumer,
            delivery,
            pipeline,
            kafka_sink=KafkaSink(
                alerts_topic=kafka.alerts_topic,
                dead_letter_topic=kafka.dead_letter_topic,
                scores_topic=kafka.scores_topic,
            ),
            sinks=[self._sink(name, stack) for name in settings.sinks],
            sink_timeout_s=kafka.delivery_timeout_ms / 1000,
            breaker=Breaker(
                invalid_ratio=settings.breaker.invalid_ratio,
                window=settings.breaker.invalid_window_records,
                consecutive=settings.breaker.consecutive,
            ),
            events=signals,
            wall_clock=utc_now,
            checkpoints=self._checkpoints(consumer, pipeline, signals),
            rollout=make_rollout(partitions),
            batch_size=settings.batch.size,
            max_wait_ms=settings.batch.max_wait_ms,
            max_batch_s=max_batch_s(settings),
        )
        calm_garbage_collector()  # the model and the clients are here to stay, too
        self._health.ready()
        self._log.info("started", topic=kafka.input_topic, model=model.bundle.version, delivery=settings.delivery)
        loop.run(self._stop)
        signals.report()
        self._log.info("stopped")

    def _patiently(self, build: Callable[[], T]) -> T:
        return patiently(
            build,
            self._stop,
            self._health,
            part="group",
            event="waiting for the broker",
            errors=TransientError,
            retry_s=RETRY_CONNECT_S,
        )

    def _prepare_state_topic(self) -> None:
        kafka = self._settings.kafka
        complaint = ensure_compacted(connection(self._settings), kafka.state_topic or "", kafka.input_topic)
        if complaint is not None:
            self._log.warning("the state topic is not as it should be", reason=complaint)

    def _join(self) -> GroupConsumer:
        kafka = self._settings.kafka
        return GroupConsumer(
            connection(self._settings),
            [kafka.input_topic],
            kafka.group_id,
            start=kafka.start_from,
            out_of_range=kafka.offset_out_of_range,
            read_committed=self._settings.delivery == "exactly_once",
            assignor=kafka.assignor,
            instance_id=self._settings.instance_id,
        )

    def _count_partitions(self) -> int:
        """Of the input topic; only an alert budget needs to know, so nobody else waits for the answer."""
        alerts = self._settings.alerts
        if alerts.per_day is None and alerts.per_hour is None:
            return 1
        reader = TopicReader(connection(self._settings))
        try:
            return len(reader.partitions(self._settings.kafka.input_topic))
        finally:
            reader.close(CLOSE_S)

    def _checkpoints(self, consumer: GroupConsumer, pipeline: Pipeline, signals: LoopSignals) -> Checkpoints:
        settings, link = self._settings, connection(self._settings)
        if settings.kafka.state_topic is None:
            return Checkpoints()
        changelog = CheckpointChangelog(
            lambda read_committed: TopicReader(link, read_committed=read_committed),
            topic=settings.kafka.state_topic,
            group_id=settings.kafka.group_id,
            transactional=settings.delivery == "exactly_once",
            beat=self._health.beat,
        )
        return TopicCheckpoints(
            consumer,
            pipeline,
            changelog,
            settings={
                **settings.threshold.model_dump(mode="json", exclude_none=True),
                **settings.alerts.model_dump(mode="json", include={"per_day", "per_hour"}),
            },
            events=signals,
        )

    @staticmethod
    def _sink(name: str, stack: ExitStack) -> Sink:
        sink = SINKS[name]()
        stack.callback(sink.close, CLOSE_S)
        return sink

    def _delivery(self, consumer: GroupConsumer) -> Delivery:
        settings, link = self._settings, connection(self._settings)
        timeout_ms = settings.kafka.delivery_timeout_ms
        if settings.delivery == "at_least_once":
            return AtLeastOnce(
                consumer,
                lambda: AcknowledgedProducer(link, delivery_timeout_ms=timeout_ms, request_timeout_ms=timeout_ms // 2),
                flush_timeout_s=timeout_ms / 1000 + 5,
            )
        name = settings.instance_id or f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        name = f"{settings.kafka.group_id}-{name}"
        return ExactlyOnce(consumer, lambda: TransactionalKafkaProducer(link, name, timeout_s=timeout_ms / 1000))
