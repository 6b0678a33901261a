"""Watches the model store and makes a new current version ready in the background."""

import threading
from collections.abc import Callable

from worker.errors import BundleError, StoreError, WorkerError
from worker.model.bundle import Bundle
from worker.model.store import ModelStore
from worker.pipeline import Model

LOOK_EVERY_S = 1.0


class ModelWatcher:
    """Loads the store's current version whenever it changes; the loop takes it between two batches.

    build: a ready Model from a bundle; BundleError refuses it (another schema, not finite). A version that was refused
    is reported once and not tried again until the store names another: the last good one stays in force.
    """

    def __init__(
        self,
        store: ModelStore,
        build: Callable[[Bundle], Model],
        *,
        in_force: str | None,
        refused: Callable[[str, WorkerError], None],
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._store = store
        self._build = build
        self._seen = in_force
        self._refused = refused
        self._look_every_s = look_every_s
        self._ready: Model | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._watch, name="model-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; may be called without `start`."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def take(self) -> Model | None:
        """The newest model that is ready and was not taken yet. Does not block."""
        with self._lock:
            model, self._ready = self._ready, None
        return model

    def look(self) -> None:
        """Look at the store once."""
        try:
            version = self._store.current()
        except StoreError as error:
            self._say_once("?", error)
            return
        if version is None or version == self._seen:
            return
        try:
            model = self._build(self._store.load(version))
        except (BundleError, StoreError) as error:
            self._say_once(version, error)
            if isinstance(error, BundleError):
                self._seen = version
            return
        self._seen, self._trouble = version, None
        with self._lock:
            self._ready = model

    def _say_once(self, version: str, error: WorkerError) -> None:
        if self._trouble != str(error):
            self._trouble = str(error)
            self._refused(version, error)

    def _watch(self) -> None:
        while not self._stop.wait(self._look_every_s):
            self.look()
