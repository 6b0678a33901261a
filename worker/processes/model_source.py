"""Where one worker's models come from: the first one, what follows it from the store, and what is compared with it."""

from collections.abc import Callable
from contextlib import ExitStack

import structlog

from worker.errors import BundleError, Hint, StoreError, StoreUnavailable
from worker.features.schema import load_schema
from worker.model.store.bundle import Bundle
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model
from worker.processes.model_signals import ModelSignals
from worker.processes.process import Stop, Stopped
from worker.processes.wiring import make_pairing, model_builder, model_store, utc_now
from worker.rollout.watcher import CHECK_EVERY_S, ModelWatcher, StoreRollout, is_recent
from worker.settings import Settings


class ModelSource:
    """The model store as one worker sees it: versions of its schema, built for its device."""

    def __init__(self, settings: Settings, stop: Stop, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._stop = stop
        self._health = health
        self._metrics = metrics
        self._schema = load_schema(settings.schema_file)
        self._store = model_store(settings)
        self._build_model = model_builder(settings)
        self._signals = ModelSignals(metrics, health)
        self._log = structlog.get_logger()

    def _build(self, bundle: Bundle) -> Model:
        bundle.require_schema(self._schema)
        try:
            model = self._build_model(bundle)
            model.warm_up()
        except RuntimeError as error:  # what torch raises for all that a device can't do
            raise BundleError(f"model {bundle.version} can't be used on {self._settings.device}: {error}") from error
        return model

    def first(self) -> Model:
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
            if logged != str(reason):
                logged = str(reason)
                self._log.warning(event, error=reason, store=self._settings.model_store)
            self._health.beat()
            if self._stop.wait(CHECK_EVERY_S):
                raise Stopped

    def watch(self, model: Model, stack: ExitStack) -> Callable[[int], StoreRollout]:
        """Follow the store from the first model on, by a thread that ends with the stack.

        Returns what makes the loop's rollout, once the number of the input topic's partitions is known.
        """
        settings, version = self._settings, model.bundle.version
        self._metrics.use_model(version)
        watcher = ModelWatcher(
            self._store, self._build, current=version, events=self._signals, shadow=settings.model_shadow
        )
        watcher.start()
        stack.callback(watcher.close)
        return lambda partitions: StoreRollout(
            watcher,
            model,
            make_pairing(settings, partitions),
            events=self._signals,
            wall_clock=utc_now,
            previous=self._previous_of(version),
        )

    def _previous_of(self, version: str) -> Model | None:
        """What a version that was promoted lately has to prove itself against, also after a restart; None = nothing.

        Whatever is wrong with an old version is no reason not to start.
        """
        if self._settings.model_canary_records == 0:
            return None
        try:
            mark, previous = self._store.marks().get(version), self._store.previous()
            if previous is None or mark is None or not is_recent(mark, utc_now()) or mark.forced:
                return None
            return self._build(self._store.load(previous))
        except (BundleError, StoreError) as error:
            self._log.warning("no canary: the previous version can't be used", version=version, error=error)
            return None
