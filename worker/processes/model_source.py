"""Where one worker's models come from: the first one, what follows it from the store, and what is tried beside."""

from contextlib import ExitStack

import structlog

from worker.errors import BundleError, StoreError, StoreUnavailable
from worker.features.schema import load_schema
from worker.model.store.bundle import Bundle
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model
from worker.processes.model_signals import ModelObserver
from worker.processes.process import StopSignal
from worker.processes.wiring import (
    make_canary,
    make_decoder,
    model_builder,
    model_store,
    sample_threshold_factory,
    utc_now,
)
from worker.rollout.rollout import TriedModels
from worker.rollout.watcher import LOOK_EVERY_S, ModelWatcher, is_recent
from worker.settings import Settings


class ModelSource:
    """The model store as one worker sees it: versions of its schema, built for its device."""

    def __init__(self, settings: Settings, stop: StopSignal, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._stop = stop
        self._health = health
        self._metrics = metrics
        self._schema = load_schema(settings.schema_file)
        self._store = model_store(settings)
        self._build_model = model_builder(settings)
        self._observer = ModelObserver(metrics)
        self._log = structlog.get_logger()
        self._watcher: ModelWatcher | None = None
        self._before: Model | None = None

    def _build(self, bundle: Bundle) -> Model:
        bundle.require_schema(self._schema)
        try:
            model = self._build_model(bundle)
            model.warm_up()
        except RuntimeError as error:  # what torch raises for all that a device can't do
            raise BundleError(f"model {bundle.version} can't be used on {self._settings.device}: {error}") from error
        return model

    def first(self) -> Model | None:
        """Wait until the store has a model; None when told to stop first. A broken one is an error at once."""
        said = ""
        while True:
            try:
                if self._store.current() is not None:
                    model = self._build(self._store.load())
                    self._health.ready("model")
                    return model
                why = "waiting for a model: fit one with worker train --once"
            except StoreUnavailable as error:
                why = f"waiting for the model store: {error}"
            if said != why:
                said = why
                self._health.waiting("model", why)
                self._log.warning(why, store=self._settings.model_store)
            self._health.beat()
            if self._stop.wait(LOOK_EVERY_S):
                return None

    def watch(self, model: Model, stack: ExitStack) -> None:
        """Look for later versions, on a thread that ends with the stack. model: the first one."""
        version = model.bundle.version
        self._metrics.use_model(version)
        self._before = self._version_before(version)
        self._watcher = ModelWatcher(
            self._store, self._build, current=version, events=self._observer, shadow=self._settings.model_shadow
        )
        self._watcher.start()
        stack.callback(self._watcher.close)

    def _version_before(self, version: str) -> Model | None:
        """What a version that was promoted lately has to prove itself against, also after a restart; None = nothing.

        Whatever is wrong with an old version is no reason not to start.
        """
        if self._settings.model_canary_records == 0:
            return None
        try:
            mark, before = self._store.marks().get(version), self._store.before()
            if before is None or mark is None or not is_recent(mark, utc_now()) or mark.insisted:
                return None
            return self._build(self._store.load(before))
        except (BundleError, StoreError) as error:
            self._log.warning("no canary: the version before can't be used", model=version, error=error)
            return None

    def models(self, model: Model, partitions: int) -> TriedModels:
        """What the loop asks for its model; after `watch`. partitions: of the input topic."""
        assert self._watcher is not None, "watch first"  # noqa: S101
        settings = self._settings
        models = TriedModels(
            self._watcher,
            model,
            threshold_factory=sample_threshold_factory(settings, partitions),
            decoder=make_decoder(settings, any_size=True),
            make_canary=lambda new, old, thresholds: make_canary(settings, new, old, thresholds, partitions),
            events=self._observer,
            wall_clock=utc_now,
            before=self._before,
        )
        self._before = None
        return models
