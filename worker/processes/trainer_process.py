"""Wires one `worker train` process together: a first model where there is none, then check after check."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from worker.broker.ranges import TopicReader
from worker.errors import BundleError, DataError, RegistryUnavailable, StoreConflict, StoreError, TransientError
from worker.features.schema import Schema
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.ops.health import Health
from worker.ops.metrics import TrainerMetrics
from worker.pipeline import Model
from worker.processes import wiring
from worker.processes.inputs import newest_records
from worker.processes.outage import LastResort, OutageWatch
from worker.processes.process import CLOSE_S, Stop, Stopped, Words, patiently, watched
from worker.processes.signals import TrainerSignals
from worker.settings import Settings
from worker.trainer.sidecar import Sidecar

POLL_S = 2.0
RETRY_S = 5.0
STEP_WINDOWS = 4  # in windows, the records of one step: more would only push each other out of the reservoir


class TrainerProcess:
    """One trainer.

    stop         asked between two steps, and while a version is fitted
    asked        whether somebody asked for a check since it was called last
    message_of   the words for an error in health
    """

    def __init__(
        self, settings: Settings, schema: Schema, *, stop: Stop, asked: Callable[[], bool], message_of: Words = str
    ) -> None:
        self._settings = settings
        self._schema = schema
        self._stop = stop
        self._asked = asked
        self._metrics = TrainerMetrics()
        self._health = Health(stall_s=settings.http.stall_s, message_of=message_of)
        self._log = structlog.get_logger()
        self._link = wiring.connection(settings, "anomaly-trainer")
        self._is_saving = False

    def run(self) -> int:
        """0 after a stop; FatalError otherwise."""
        with watched(self._settings, self._health, self._metrics.registry, self._checks()), suppress(Stopped):
            store = wiring.model_store(self._settings)
            self._run(self._sidecar(self._first(store), store))
        self._log.info("stopped")
        return 0

    def _checks(self) -> Sequence[Callable[[], None]]:
        contact = self._link.contact
        self._metrics.last_contact_seconds.set_function(contact.silence_s)
        outage = OutageWatch(contact, self._link.bootstrap_servers, self._health)
        return outage.check, LastResort(self._stop, contact, lambda: self._is_saving).check

    def _first(self, store: ModelStore) -> Model:
        """The current model; where there is none yet, one that is fitted once there are records for it."""

        topic, count = self._settings.kafka.input_topic, self._settings.train.window_records
        newest = newest_records(self._settings, topic, count, self._link)

        def fitted_or_current() -> Model:
            if store.current() is None:
                self._log.info("no model yet, fitting one on recent records")
                bundle = wiring.fit_version(self._settings, self._schema, self._progress, newest)
                store.save(bundle)
                try:
                    store.promote(bundle.version, expected=None)
                    report = bundle.report
                    passed_over = {name: report[name] for name in ("left_out", "unreadable") if name in report}
                    self._log.info("first model", version=bundle.version, rows=report["rows"], **passed_over)
                except StoreConflict:
                    pass  # another trainer was faster: its version is the current one
            return self._build(store.load())

        return patiently(
            fitted_or_current,
            self._stop,
            self._health,
            part="model",
            event="no model yet",
            errors=(DataError, TransientError, StoreError),
            retry_s=RETRY_S,
        )

    def _build(self, bundle: Bundle) -> Model:
        bundle.require_schema(self._schema)
        return wiring.model_builder(self._settings)(bundle)

    def _sidecar(self, current: Model, store: ModelStore) -> Sidecar:
        settings, train = self._settings, self._settings.train
        self._metrics.show_current(current.bundle.version)
        return Sidecar(
            wiring.make_trainer(settings, current, self._build),
            store,
            self._build,
            topic=settings.kafka.input_topic,
            interval_s=train.interval_s,
            max_records=STEP_WINDOWS * train.window_records,
            keep=train.keep_versions,
            state_file=Path(train.state_file),
            decoder=wiring.make_decoder(settings),
            events=TrainerSignals(self._metrics, self._health),
            now=wiring.utc_now,
            progress=self._progress,
        )

    def _progress(self, step: int, steps: int, loss: float) -> None:
        del step, steps, loss
        self._health.beat()
        if self._stop():
            raise Stopped

    def _run(self, sidecar: Sidecar) -> None:
        self._health.ready()
        self._health.ready("model")
        self._log.info("started", topic=self._settings.kafka.input_topic, interval_s=self._settings.train.interval_s)
        reader: TopicReader | None = None
        trouble = ""
        asked = False  # kept until a step has answered it: a request in an outage is not lost
        while not self._stop():
            self._health.beat()
            asked = asked or self._asked()
            try:
                committed = self._settings.kafka.read_committed
                reader = reader or TopicReader(self._link, read_committed=committed)
                sidecar.step(reader, asked=asked)
                asked, trouble = False, ""
                self._health.ready("broker")
                self._health.ready("registry")
            except (TransientError, StoreError, BundleError) as error:
                is_broker = not isinstance(error, RegistryUnavailable)
                self._health.waiting("broker" if is_broker else "registry", error)
                if str(error) != trouble and "contact" not in self._health.reasons():  # once for each reason
                    trouble = str(error)
                    self._log.warning("trying again", error=error, kind=type(error).__name__)
                if reader is not None and is_broker and isinstance(error, TransientError):
                    reader.close(CLOSE_S)
                    reader = None
            self._stop.wait(min(POLL_S, self._settings.train.interval_s))
        self._is_saving = True
        sidecar.save()
        if reader is not None:
            reader.close(CLOSE_S)
