"""Logs on standard error: one JSON object per line, or text for people. Nothing is logged per record.

Log with `structlog.get_logger()`. Records of the standard library's loggers (the Kafka client's are the noisy ones),
warnings and errors of background threads come out the same way.

A keyword argument of a logger is a key of its line, so a name from data is none: it stands inside of a value.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import Any, Literal

import orjson
import structlog
from typing_extensions import override

from worker.texts import printable

MASKED = "[secret]"
_BEARER = re.compile(r"(Bearer )[\w.~+/=-]+")  # tokens come and go while a process runs
WIRE_LOGGERS = ("kafka.protocol", "kafka.net")  # their debug entries quote all bytes that come in, records and all
MIN_LINE = 16  # characters of a line of a secret that is masked by itself
Entry = MutableMapping[str, Any]
_TRACES = ("exc_info", "stacks")


def configure_logs(
    log_format: Literal["json", "console"] = "json",
    level: str = "info",
    *,
    secrets: Collection[str] = (),
    message_of: Callable[[Exception | str], str] = str,
) -> None:
    """Set up logging for this process. Calling it again replaces the earlier set-up.

    log_format   one JSON object a line, or text for people
    level        debug, info, warning or error; other libraries' entries below warning come only with debug
    secrets      texts that never appear, whoever logs them: with debug, the Kafka client logs its whole configuration
    message_of   the words for an error or a text that is a value of an entry, such as `error=error`
    """
    mask = masking(secrets)
    min_level = logging.getLevelNamesMapping()[level.upper()]

    def in_words(_: Any, __: str, entry: Entry) -> Entry:
        return {
            name: message_of(value) if isinstance(value, Exception | str) and name not in _TRACES else value
            for name, value in entry.items()
        }

    def masked(_: Any, __: str, entry: Entry) -> Entry:
        return {name: _with_texts(value, mask) for name, value in entry.items()}

    def for_terminals(_: Any, __: str, entry: Entry) -> Entry:
        return {name: value if name in _TRACES else _with_texts(value, printable) for name, value in entry.items()}

    processors: list[Any] = [
        structlog.processors.add_log_level,
        in_words,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: Any
    if log_format == "json":
        render = structlog.processors.JSONRenderer(serializer=_to_json)
        processors += [structlog.processors.format_exc_info, masked, render]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        # structlog's own formatter of tracebacks prints every local variable, passwords included.
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        processors += [for_terminals, console, lambda _, __, line: mask(line)]
        factory = structlog.WriteLoggerFactory(sys.stderr)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(min_level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, ForeignLogs)]
    root.addHandler(ForeignLogs())
    root.setLevel(min_level if min_level == logging.DEBUG else max(min_level, logging.WARNING))
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_error


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with each text in it changed, names included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_with_texts(name, change): _with_texts(item, change) for name, item in value.items()}
    return [_with_texts(item, change) for item in value] if isinstance(value, list | tuple) else value


def _to_json(entry: Entry, default: Callable[[Any], Any]) -> bytes:
    try:
        return orjson.dumps(entry, default=default)
    except TypeError:  # a lone surrogate, a whole number of more than 64 bits, a name that is no text
        return json.dumps(entry, default=default).encode()


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    thread = args.thread.name if args.thread else "unknown"
    structlog.get_logger().error("thread died", thread=thread, exc_info=args.exc_value)


def masking(secrets: Collection[str]) -> Callable[[str], str]:
    """Replaces the secrets in a text, also where Python or JSON quoted them, as text or as bytes; of one of several
    lines, such as a private key, each long line, too. And bearer tokens."""
    lines = [line for text in secrets if "\n" in text.strip() for line in text.splitlines()]
    forms = {
        form
        for text in (*filter(None, secrets), *(line for line in lines if len(line) >= MIN_LINE))
        for form in (text, repr(text)[1:-1], repr(text.encode())[2:-1], orjson.dumps(text).decode()[1:-1])
    }
    # A secret may be part of another one, which has to go first.
    by_length = sorted(forms, key=len, reverse=True)

    def mask(text: str) -> str:
        for form in by_length:
            text = text.replace(form, MASKED)
        return _BEARER.sub(rf"\1{MASKED}", text)

    return mask


class RateLimit:
    """Lets `limit` entries of a kind through in each period and counts the rest."""

    def __init__(self, limit: int = 5, period_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._period_s, self._clock = limit, period_s, clock
        self._seen: dict[object, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def admit(self, kind: object) -> int | None:
        """None when the entry is one too many, else how many of its kind were left out before it."""
        now = self._clock()
        with self._lock:
            begin, count = self._seen.get(kind, (now, 0))
            if now - begin >= self._period_s:
                self._seen[kind] = (now, 1)
                return max(0, count - self._limit)
            if len(self._seen) > 1_000:  # kinds are made of texts that other libraries choose
                self._seen.clear()
            self._seen[kind] = (begin, count + 1)
            return 0 if count < self._limit else None


class ForeignLogs(logging.Handler):
    """Hands the entries of the standard library's loggers to structlog, five of each kind a minute.

    A kind is a logger, a level, and a text before the values are filled in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rate_limit = RateLimit()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.DEBUG and record.name.startswith(WIRE_LOGGERS):
            return
        left_out = self._rate_limit.admit((record.name, record.levelno, str(record.msg)))
        if left_out is None:
            return
        extra: dict[str, Any] = {"left_out": left_out} if left_out else {}
        if record.exc_info and record.exc_info[1]:
            extra["exc_info"] = record.exc_info[1]
        try:
            structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, **extra)
        except Exception:  # noqa: BLE001 - logging's own rule: a log entry never breaks the caller
            self.handleError(record)
