"""Results that are too large for their topic, cut down until they fit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from worker.alerts.encode import DEAD_LETTER_HEADERS
from worker.broker.limits import record_bytes
from worker.errors import SettingsError
from worker.records import Headers, Outgoing

MAX_SHORT_TEXT: Final = 200  # characters that are kept of each text
TRUNCATED: Final = "truncated"
TRUNCATED_PARTS: Final = "truncated.parts"
_EMPTY: Final[dict[str, Any]] = {"explanation": [], "ids": {}, "group": {"key": {}}}


def shortened(outgoing: Outgoing, fits: Callable[[Outgoing], bool]) -> Outgoing:
    """The record without its largest part, and so on until it is smaller and fits.

    Parts of an alert are its record, its long texts, its explanation, its ids and its group's key; of a score its long
    texts; of a dead letter its value, of which the first half stays each time, and the headers that came with it; of
    all three the Kafka key. A header `truncated` says that something is missing, `truncated.parts` says what, and so
    does `truncated` in the JSON of an alert or a score.

    Raises SettingsError when nothing is left to do without.
    """
    short, missing = outgoing, _missing(outgoing)
    while parts := [(record_bytes(rest), name, rest) for name, rest in _parts(short)]:
        size, name, rest = min(parts, key=lambda part: part[0])
        if size >= record_bytes(short):
            break
        missing = missing if name in missing else (*missing, name)
        short = rest
        marked = _marked(short, missing)
        if record_bytes(marked) < record_bytes(outgoing) and fits(marked):
            return marked
    raise SettingsError(
        f"the topic {outgoing.topic} takes no record of {record_bytes(short)} bytes, which is what remains of a result "
        "after all that is long was left out: raise its max.message.bytes"
    )


def _missing(outgoing: Outgoing) -> tuple[str, ...]:
    """What an earlier call left out."""
    parts = [value or b"" for name, value in outgoing.headers[-1:] if name == TRUNCATED_PARTS]
    return tuple(parts[0].decode().split(",")) if parts else ()


def _own_headers(outgoing: Outgoing) -> Headers:
    """Without the marks of an earlier call, which are the last."""
    return outgoing.headers[: -2 if _missing(outgoing) else None]


def _marked(outgoing: Outgoing, missing: tuple[str, ...]) -> Outgoing:
    marks = ((TRUNCATED, b"true"), (TRUNCATED_PARTS, ",".join(missing).encode()))
    return replace(outgoing, headers=(*_own_headers(outgoing), *marks))


def _parts(outgoing: Outgoing) -> Iterator[tuple[str, Outgoing]]:
    """Each part by its name, with the record that remains without it."""
    headers = _own_headers(outgoing)
    if outgoing.key is not None:
        yield "key", replace(outgoing, key=None)
    if any(name == DEAD_LETTER_HEADERS[0] for name, _ in headers):
        if outgoing.value:
            yield "value", replace(outgoing, value=outgoing.value[: len(outgoing.value) // 2])
        ours = headers[-len(DEAD_LETTER_HEADERS) :]
        yield "headers", replace(outgoing, headers=(*ours, *outgoing.headers[len(headers) :]))
        return
    document = orjson.loads(outgoing.value or b"{}") | {TRUNCATED: True}
    for name, rest in _document_parts(document):
        yield name, replace(outgoing, value=orjson.dumps(rest))


def _document_parts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    record = {"record": document["record"]} if "record" in document else {}
    if record.get("record") is not None:
        yield "record", document | {"record": None}
    texts = {name: _short(value) for name, value in document.items() if name != "record"} | record
    if texts != document:
        yield "texts", texts
        return  # what is left of them may fit as a whole
    for name, empty in _EMPTY.items():
        if document.get(name):
            yield name, document | {name: document[name] | empty if name == "group" else empty}


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {_short(name): _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value[:MAX_SHORT_TEXT] + "…" if isinstance(value, str) and len(value) > MAX_SHORT_TEXT + 1 else value
