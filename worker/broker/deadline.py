"""Deadlines around calls of the client that have none of their own."""

import threading
from collections.abc import Callable
from typing import TypeVar

from worker.errors import BrokerUnavailable

T = TypeVar("T")


def bounded(call: Callable[[], T], timeout_s: float, what: str) -> T:
    """The result of `call`, run in a helper thread; whatever it raises is raised here.

    When it isn't done after `timeout_s` seconds, raises BrokerUnavailable and leaves the (daemon) thread behind:
    it ends when the client lets go. What the call touched must not be used any more, except to close it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"bounded: {what}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if results:
        return results[0]
    raise BrokerUnavailable(f"{what}: no answer from the broker within {timeout_s:g} s")
