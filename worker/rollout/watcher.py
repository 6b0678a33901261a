"""Follows the model store: a thread makes its current version ready, and the rollout takes that between batches."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from typing_extensions import override

from worker.errors import BundleError, StoreConflict, StoreError, StoreUnavailable
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import NEVER_AGAIN, Mark, Status
from worker.pipeline import Model, Pipeline
from worker.records import Outcome
from worker.rollout.canary import CanaryVerdict
from worker.rollout.paired import Pairing
from worker.rollout.rollout import Promotion, Rollout, RolloutEvents
from worker.texts import quoted

CHECK_EVERY_S = 1.0
CLOSE_S = 2.0

# A worker that starts within this time of a promotion begins the canary anew: what it knew is gone, and starts are
# frequent just when a model is bad. After it the version counts as proven.
CANARY_AGAIN = timedelta(days=1)


def needs_canary(marks: Mapping[str, Mark], version: str, previous: str | None) -> bool:
    """Whether a version that follows another one has yet to prove itself.

    Not after a rollback or a veto: then it has been current before. Nor where an operator has promoted it anew although
    it was rolled back or vetoed: that is the last word.
    """
    left, mark = marks.get(previous or ""), marks.get(version)
    return not (left is not None and left.status in NEVER_AGAIN) and not (mark is not None and mark.forced)


def is_recent(mark: Mark, now: str) -> bool:
    """Whether a promotion is so recent that a worker that starts puts the version on canary. now: RFC 3339, UTC."""
    try:
        age = datetime.fromisoformat(now) - datetime.fromisoformat(mark.at)
    except ValueError:
        return False
    return mark.status == Status.PROMOTED and age <= CANARY_AGAIN


def daemon_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A thread that doesn't keep the process alive."""
    return threading.Thread(target=target, name=name, daemon=True)


class ModelWatcher:
    """Loads the store's current version whenever it changes.

    A version that was refused is reported once and not tried again until the store names another: the last good one
    goes on. While the store is away everything stays as it is.

    build           a Model that has scored before, from a bundle; BundleError refuses it
    current         the version that scores now
    shadow          a version to make ready beside it, None = none
    check_every_s   seconds between two checks of the store
    make_thread     a daemon thread of this target and name; whoever makes it hears of its death
    """

    def __init__(
        self,
        store: ModelStore,
        build: Callable[[Bundle], Model],
        *,
        current: str | None,
        events: RolloutEvents,
        shadow: str | None = None,
        check_every_s: float = CHECK_EVERY_S,
        make_thread: Callable[[Callable[[], None], str], threading.Thread] = daemon_thread,
    ) -> None:
        self._store = store
        self._build = build
        self._known = current  # the version that was handed out last, or refused
        self._events = events
        self._shadow = shadow
        self._check_every_s = check_every_s
        self._ready: Promotion | None = None
        self._shadow_ready: Model | None = None
        self._rejected: tuple[str, Mark] | None = None  # not written to the store yet
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._trouble: str | None = None
        self._rejection_trouble: str | None = None
        self._thread = make_thread(self._watch, "model-watcher")

    def start(self) -> None:
        """Begin to watch, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching, and leave a store that doesn't answer; may be called without `start`."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def take(self) -> Promotion | None:
        """The newest version that is ready and was not taken yet. Does not block."""
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

        current: the version that scores again. Until the store agrees, the rejected version is not taken.
        """
        with self._lock:
            self._rejected = version, mark
            self._known = current

    def check(self) -> None:
        """Check the store once."""
        try:
            self._write_rejection()
            self._check_current()
            if self._shadow is not None and self._shadow != self._known:
                model, self._shadow = self._load(self._shadow), None
                with self._lock:
                    self._shadow_ready = model
        except StoreError as error:
            if self._trouble != str(error):  # once for each outage, not once a second
                self._trouble = str(error)
                if isinstance(error, StoreUnavailable):
                    self._events.store_unavailable(error)
                else:
                    self._events.refused("?", error)
        else:
            self._trouble = None

    def _write_rejection(self) -> None:
        if self._rejected is None:
            return
        version, mark = self._rejected
        try:
            current = self._store.rollback(leaving=version, mark=mark)
        except StoreConflict:
            pass  # the store names another version already: go where it points
        except StoreUnavailable:
            raise
        except StoreError as error:
            if self._store.current() == version:  # nothing sound to go back to: another has to be promoted
                if self._rejection_trouble != str(error):
                    self._rejection_trouble = str(error)
                    self._events.refused(version, error)
                return
        else:
            self._events.rolled_back_in_store(version, current)
        self._rejection_trouble = None
        with self._lock:
            self._rejected = None

    def _check_current(self) -> None:
        version = self._store.current()
        with self._lock:
            previous, rejected = self._known, self._rejected[0] if self._rejected else None
        if version is None or version in {previous, rejected}:
            return
        model = self._load(version)
        on_canary = model is not None and needs_canary(self._store.marks(), version, previous)
        with self._lock:
            if self._rejected is None or self._rejected[0] != version:  # it may have been rejected during the load
                self._known = version
                self._ready = self._ready if model is None else Promotion(model, on_canary)

    def _load(self, version: str) -> Model | None:
        """A model that is ready, None where the version can't be used; StoreError where it may be later."""
        try:
            return self._build(self._store.load(version))
        except BundleError as error:
            self._events.refused(version, error)
            return None

    def _watch(self) -> None:
        while not self._stop.wait(self._check_every_s):
            try:
                self.check()
            except Exception as error:  # noqa: BLE001 - the edge of this thread: the next version must still be seen
                if self._trouble != repr(error):
                    self._trouble = repr(error)
                    self._events.refused("?", StoreError(f"unexpected {type(error).__name__}: {quoted(error)}"))


class StoreRollout(Rollout):
    """A rollout that promotes what a watcher has made ready, and has it roll back in the store what fails its canary.

    wall_clock: RFC 3339, UTC, for the mark of a rollback.
    """

    def __init__(
        self,
        watcher: ModelWatcher,
        current: Model,
        pairing: Pairing,
        *,
        events: RolloutEvents,
        wall_clock: Callable[[], str],
        previous: Model | None = None,
    ) -> None:
        super().__init__(current, pairing, events=events, previous=previous)
        self._watcher = watcher
        self._wall_clock = wall_clock

    @override
    def swap(self, pipeline: Pipeline) -> bool:
        promotion = self._watcher.take()
        if promotion is not None:
            self.promote(promotion)
        return super().swap(pipeline)

    @override
    def observe(self, outcome: Outcome) -> CanaryVerdict | None:
        candidate = self._watcher.take_shadow()
        if candidate is not None:
            self.shadow(candidate)
        verdict = super().observe(outcome)
        if verdict is not None and not verdict.passed:
            mark = Mark(Status.ROLLED_BACK, self._wall_clock(), "worker", verdict.why, dict(verdict.figures))
            self._watcher.reject(verdict.version, mark, current=verdict.previous)
        return verdict
