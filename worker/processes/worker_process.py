"""Wires one `worker run` process together, takes its models from the store, and runs it until it drains."""

import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import structlog

from worker.broker.admin import ensure_compacted
from worker.broker.base import Delivery, Offsets
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.limits import RecordLimits
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.broker.topic_ids import begin_at_end
from worker.broker.topic_names import topic_names
from worker.broker.topics import require_topics
from worker.errors import BundleError, Hint, MissingTopic, StoreError, StoreUnavailable, TransientError
from worker.features.schema import load_schema
from worker.model.store.bundle import Bundle
from worker.ops.health import GuardedThread, Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model, Pipeline
from worker.processes import wiring
from worker.processes.first_records import FirstRecords
from worker.processes.outage import LastResort, OutageWatch
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
from worker.processes.signals import LoopSignals, ModelSignals, shown
from worker.records import Partition
from worker.rollout.watcher import CHECK_EVERY_S, ModelWatcher, StoreRollout, is_recent
from worker.settings import Settings
from worker.stream.breaker import Breaker
from worker.stream.checkpoint_format import CheckpointLog
from worker.stream.checkpoints import CheckpointChangelog, Checkpoints, Doubt, TopicCheckpoints
from worker.stream.loop import Loop
from worker.stream.sinks.base import SINKS, Sink
from worker.stream.sinks.kafka import KafkaSink
from worker.thresholds.budget import PartitionCount

RETRY_CONNECT_S = 2.0


class WorkerProcess:
    """One process: wait for a model, join the group, loop, drain. SchemaError, StoreError (on creation)."""

    def __init__(self, settings: Settings, stop: Stop, message_of: Words = str) -> None:
        self._settings = settings
        self._stop = stop
        start_logs(settings, message_of)
        self._log = structlog.get_logger()
        self._metrics = Metrics()
        self._health = Health(stall_s=settings.http.stall_s, message_of=message_of)
        self._schema = load_schema(settings.schema_file)
        if (unknown := wiring.unknown_redacted(settings, self._schema)) is not None:
            self._log.warning("redacted fields may be misspelt", reason=unknown)
        self._store = wiring.model_store(settings)
        self._signals = ModelSignals(self._metrics, self._health)
        self._link = wiring.connection(settings)
        self._loop: Loop | None = None

    def run(self) -> int:
        """0 after a drain; FatalError otherwise."""
        tune_process(self._settings)
        with watched(self._settings, self._health, self._metrics.registry, self._checks()) as stack, suppress(Stopped):
            model = self._first_model()
            version = model.bundle.version
            self._metrics.use_model(version)
            watcher = ModelWatcher(
                self._store,
                self._build,
                current=version,
                events=self._signals,
                shadow=self._settings.model_shadow,
                make_thread=partial(GuardedThread, self._health),
            )
            watcher.start()
            stack.callback(watcher.close)
            self._consume(model, watcher, stack)
        return 0

    def _checks(self) -> Sequence[Callable[[], None]]:
        contact, servers = self._link.contact, self._link.bootstrap_servers
        self._metrics.last_contact_seconds.set_function(contact.silence_s)
        outage = OutageWatch(contact, servers, self._health, on_outage=self._metrics.forget_lag)
        return outage.check, LastResort(self._stop, contact, self._is_delivering).check

    def _is_delivering(self) -> bool:
        return self._loop is not None and self._loop.is_delivering

    def _build(self, bundle: Bundle) -> Model:
        bundle.require_schema(self._schema)
        try:
            model = wiring.model_builder(self._settings)(bundle)
            model.warm_up()
        except RuntimeError as error:  # what torch raises for all that a device can't do
            raise BundleError(f"model {bundle.version} can't be used on {self._settings.device}: {error}") from error
        return model

    def _first_model(self) -> Model:
        """Wait until the store has a model; Stopped when told to stop first. A broken one is an error at once."""
        logged = ""
        while True:
            try:
                if self._store.current() is not None:
                    model = self._build(self._store.load())
                    self._health.ready("model")
                    return model
                event, reason = "waiting for a model", StoreError("no model yet", hint=Hint.FIT_A_MODEL)
            except StoreUnavailable as error:
                event, reason = "waiting for the model store", error
            self._health.waiting("model", reason)
            if logged != str(reason):  # once for each reason: a store may stay empty for days
                logged = str(reason)
                self._log.warning(event, error=reason, store=self._settings.model_store)
            self._health.beat()
            if self._stop.wait(CHECK_EVERY_S):
                raise Stopped

    def _previous_of(self, version: str) -> Model | None:
        """What a version that was promoted lately has to prove itself against, also after a restart; None = nothing."""
        if self._settings.model_canary_records == 0:
            return None
        try:
            mark, previous = self._store.marks().get(version), self._store.previous()
            if previous is None or mark is None or not is_recent(mark, wiring.utc_now()) or mark.forced:
                return None
            return self._build(self._store.load(previous))
        except (BundleError, StoreError) as error:  # whatever is wrong with an old version is no reason not to start
            self._log.warning("no canary: the previous version can't be used", version=version, error=error)
            return None

    def _consume(self, model: Model, watcher: ModelWatcher, stack: ExitStack) -> None:
        settings, kafka, link = self._settings, self._settings.kafka, self._link
        if kafka.start_from == "latest":
            doubt = Doubt()
            starts = self._patiently(lambda: self._begin_at_end(link, doubt))
            if starts:
                self._log.info("the group begins at the end", starts=shown(dict(starts)))
        if kafka.state_topic is None:
            self._log.warning("no state topic: thresholds start again after each restart and rebalance")
        else:
            topics = kafka.state_topic, kafka.input_topic
            complaint = self._patiently(lambda: ensure_compacted(link, *topics))
            if complaint is not None:
                self._log.warning("the state topic is not as it should be", reason=complaint)
        consumer = self._patiently(lambda: self._join(link))
        # The stack closes in the opposite order: the producer before the consumer, whose place in the group is its
        # right to commit, and both before health and metrics.
        stack.callback(consumer.close, CLOSE_S)
        delivery = self._delivery(consumer, link)
        stack.callback(delivery.close, CLOSE_S)
        self._patiently(delivery.open)  # before the first poll: a predecessor's open transaction ends here
        partitions = PartitionCount(lambda: consumer.partition_count(kafka.input_topic))
        pipeline = wiring.make_pipeline(settings, model, partitions)
        first_records = FirstRecords(self._schema, wiring.make_decoder(settings, any_size=True))
        signals = LoopSignals(consumer, pipeline, self._metrics, self._health, first_records)
        sinks: list[Sink] = []
        for name in settings.sinks:
            sinks.append(SINKS[name]())
            stack.callback(sinks[-1].close, CLOSE_S)
        loop = Loop(
            consumer,
            delivery,
            pipeline,
            kafka_sink=KafkaSink(
                alerts_topic=kafka.alerts_topic,
                dead_letter_topic=kafka.dead_letter_topic,
                scores_topic=kafka.scores_topic,
            ),
            sinks=sinks,
            sink_timeout_s=kafka.delivery_timeout_ms / 1000,
            breaker=Breaker(
                invalid_ratio=settings.breaker.invalid_ratio,
                window=settings.breaker.invalid_window_records,
                consecutive=settings.breaker.consecutive,
            ),
            events=signals,
            wall_clock=wiring.utc_now,
            checkpoints=self._checkpoints(consumer, pipeline, signals, link),
            rollout=StoreRollout(
                watcher,
                model,
                wiring.make_pairing(settings, partitions),
                events=self._signals,
                wall_clock=wiring.utc_now,
                previous=self._previous_of(model.bundle.version),
            ),
            batch_size=settings.batch.size,
            max_batch_bytes=settings.batch.max_bytes,
            max_wait_ms=settings.batch.max_wait_ms,
            max_batch_s=wiring.max_batch_s(settings),
        )
        self._loop = loop
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

    def _join(self, link: Connection) -> GroupConsumer:
        kafka = self._settings.kafka
        return GroupConsumer(
            link,
            topic_names(kafka.input_topic) or [kafka.input_topic],
            kafka.group_id,
            out_of_range=kafka.offset_out_of_range,
            read_committed=kafka.read_committed,
            assignor=kafka.assignor,
            instance_id=self._settings.instance_id,
            tell=lambda text: self._log.warning("reading goes on elsewhere", reason=text),
        )

    def _begin_at_end(self, link: Connection, doubt: Doubt) -> Offsets:
        """Where the group begins on its first start. Checkpoints of this topic say that it has had one before."""
        kafka, changelog = self._settings.kafka, self._changelog(link)

        def require_no_history(
            partitions: Collection[Partition], topic_ids: Mapping[str, str]
        ) -> Collection[Partition]:
            logs: Mapping[Partition, CheckpointLog] = {}
            if changelog is not None:
                with suppress(MissingTopic):
                    logs = changelog.read(dict.fromkeys(partitions), topic_ids)
            has_history = any(log.heads for log in logs.values())
            doubt.check("the group has checkpoints and no committed offsets, asking again" if has_history else "")
            return [partition for partition, log in logs.items() if log.is_later]

        return begin_at_end(link, kafka.input_topic, kafka.group_id, require_no_history)

    def _checkpoints(
        self, consumer: GroupConsumer, pipeline: Pipeline, signals: LoopSignals, link: Connection
    ) -> Checkpoints:
        settings, changelog = self._settings, self._changelog(link)
        if changelog is None:
            return Checkpoints()
        # What the state of a threshold depends on: a checkpoint that was made under other settings begins anew.
        thresholds = settings.threshold.model_dump(mode="json", exclude_none=True)
        budgets = settings.alerts.model_dump(mode="json", include={"per_day", "per_hour"})
        return TopicCheckpoints(consumer, pipeline, changelog, settings={**thresholds, **budgets}, events=signals)

    def _changelog(self, link: Connection) -> CheckpointChangelog | None:
        settings, topic = self._settings, self._settings.kafka.state_topic
        if topic is None:
            return None
        return CheckpointChangelog(
            lambda read_committed: TopicReader(link, read_committed=read_committed),
            topic=topic,
            group_id=settings.kafka.group_id,
            transactional=settings.delivery == "exactly_once",
            beat=self._health.beat,
        )

    def _delivery(self, consumer: GroupConsumer, link: Connection) -> Delivery:
        settings, kafka, limits = self._settings, self._settings.kafka, RecordLimits()
        timeout_ms = kafka.delivery_timeout_ms

        def known_limits() -> RecordLimits:
            """For each producer anew, so that a topic that is denied or gone is named before anything is published."""
            require_topics(link, wiring.topics(settings), limits)
            return limits

        if settings.delivery == "at_least_once":
            return AtLeastOnce(
                consumer,
                lambda: AcknowledgedProducer(
                    link, known_limits(), delivery_timeout_ms=timeout_ms, request_timeout_ms=timeout_ms // 2
                ),
                flush_timeout_s=timeout_ms / 1000 + 5,
            )
        name = settings.instance_id or f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        name = f"{kafka.group_id}-{name}"  # two processes of one name would fence each other
        return ExactlyOnce(
            consumer, lambda: TransactionalKafkaProducer(link, name, known_limits(), timeout_s=timeout_ms / 1000)
        )
