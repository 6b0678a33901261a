"""Watches the model store and makes a new current version ready in the background."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from worker.errors import BundleError, StoreConflict, StoreError, StoreUnavailable
from worker.model.store.bundle import Bundle
from worker.model.store.pointer import NEVER_AGAIN, Mark, Status
from worker.pipeline import Model
from worker.rollout.events import ModelEvents

LOOK_EVERY_S = 1.0

CANARY_AGAIN = timedelta(days=1)
"""A worker that starts within this time of a promotion begins the canary anew: what it knew is gone, and starts are
frequent just when a model is bad. After it the version counts as proved."""


class Store(Protocol):
    """What the watcher needs of a model store. All of it may block, and raise StoreError."""

    def current(self) -> str | None:
        """The version in force."""

    def load(self, version: str | None = None) -> Bundle:
        """A version, checked; BundleError where it is broken."""

    def marks(self) -> Mapping[str, Mark]:
        """What was decided about the versions."""

    def rollback(self, *, leaving: str | None = None, mark: Mark | None = None) -> str:
        """Back to the version before `leaving`; StoreConflict where that is not the current one."""


class Ready(NamedTuple):
    """A model to go on with. needs_canary: it has to prove itself against the one that it follows."""

    model: Model
    needs_canary: bool


class _Rejection(NamedTuple):
    version: str
    mark: Mark


def has_to_prove_itself(marks: Mapping[str, Mark], version: str, before: str | None) -> bool:
    """Whether a version that follows another one is new.

    Not after a rollback or a veto: then it has been in force before. Nor where an operator has promoted it anew
    although it was rolled back or vetoed: that is the last word.
    """
    left, mark = marks.get(before or ""), marks.get(version)
    return not (left is not None and left.status in NEVER_AGAIN) and not (mark is not None and mark.insisted)


def is_recent(mark: Mark, now: str) -> bool:
    """Whether a promotion is so recent that a worker that starts puts the version on canary. now: RFC 3339, UTC."""
    try:
        age = datetime.fromisoformat(now) - datetime.fromisoformat(mark.at)
    except ValueError:
        return False
    return mark.status == Status.PROMOTED and age <= CANARY_AGAIN


class ModelWatcher:
    """Loads the store's current version whenever it changes; the loop takes it between two batches.

    build: a Model that has scored before, from a bundle; BundleError refuses it (another schema, not finite). A version
    that was refused is reported once and not tried again until the store names another: the last good one stays in
    force. While the store is away everything stays as it is. shadow: a version to make ready beside, None = none.
    """

    def __init__(
        self,
        store: Store,
        build: Callable[[Bundle], Model],
        *,
        current: str | None,
        events: ModelEvents,
        shadow: str | None = None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._store = store
        self._build = build
        self._seen = current
        self._events = events
        self._shadow = shadow
        self._look_every_s = look_every_s
        self._ready: Ready | None = None
        self._shadow_ready: Model | None = None
        self._rejection: _Rejection | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._trouble: str | None = None
        self._rejection_trouble: str | None = None
        self._thread = threading.Thread(target=self._watch, name="model-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; may be called without `start`."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def take(self) -> Ready | None:
        """The newest model that is ready and was not taken yet. Does not block."""
        with self._lock:
            ready, self._ready = self._ready, None
        return ready

    def take_shadow(self) -> Model | None:
        """The shadow's model, once. Does not block."""
        with self._lock:
            model, self._shadow_ready = self._shadow_ready, None
        return model

    def reject(self, version: str, mark: Mark, *, current: str) -> None:
        """Roll this version back in the store, with this mark, as soon as that can be written; does not block.

        current: the version that the loop has gone back to. Until the store agrees, the rejected version is not taken.
        """
        with self._lock:
            self._rejection = _Rejection(version, mark)
            self._seen = current

    def look(self) -> None:
        """Look at the store once."""
        try:
            self._write_rejection()
            self._look_for_current()
            self._look_for_shadow()
        except StoreError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                self._report(error)
        else:
            self._trouble = None

    def _report(self, error: StoreError) -> None:
        if isinstance(error, StoreUnavailable):
            self._events.store_unavailable(error)
        else:
            self._events.refused("?", error)

    def _write_rejection(self) -> None:
        rejection = self._rejection
        if rejection is None:
            return
        try:
            current = self._store.rollback(leaving=rejection.version, mark=rejection.mark)
        except StoreConflict:
            pass  # the store names another version already: go where it points
        except StoreUnavailable:
            raise
        except StoreError as error:
            if self._store.current() == rejection.version:  # nothing sound to go back to: another has to be promoted
                if self._rejection_trouble != str(error):
                    self._rejection_trouble = str(error)
                    self._events.refused(rejection.version, error)
                return
        else:
            self._events.rolled_back_in_store(rejection.version, current)
        self._rejection_trouble = None
        with self._lock:
            self._rejection = None

    def _look_for_current(self) -> None:
        version = self._store.current()
        with self._lock:
            before, rejected = self._seen, self._rejection.version if self._rejection else None
        if version is None or version in {before, rejected}:
            return
        model = self._load(version)
        needs_canary = model is not None and has_to_prove_itself(self._store.marks(), version, before)
        with self._lock:
            if self._rejection is None or self._rejection.version != version:
                self._seen = version
                self._ready = self._ready if model is None else Ready(model, needs_canary)

    def _look_for_shadow(self) -> None:
        version = self._shadow
        if version is None or version == self._seen:
            return
        model = self._load(version)
        self._shadow = None
        with self._lock:
            self._shadow_ready = model

    def _load(self, version: str) -> Model | None:
        """A model that is ready, None where the version can't be used; StoreError where it may be later."""
        try:
            return self._build(self._store.load(version))
        except BundleError as error:
            self._events.refused(version, error)
            return None

    def _watch(self) -> None:
        while not self._stop.wait(self._look_every_s):
            self.look()
