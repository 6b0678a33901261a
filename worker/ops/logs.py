"""Logs on standard error: one JSON object per line, or text for people. Nothing is logged per record.

Log with `structlog.get_logger()`. Records of the standard library's loggers (the Kafka client's are the noisy ones),
warnings and errors of background threads come out the same way.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, Literal

import orjson
import structlog

Mask = Callable[[str], str]

MASKED = "[secret]"
_LIMIT = 5
_PERIOD_S = 60.0


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

    def in_words(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in entry.items():
            if isinstance(value, Exception | str) and name not in {"exc_info", "stacks"}:
                entry[name] = message_of(value)
        return entry

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            in_words,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_json(mask) if log_format == "json" else _console(mask)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min_level),
        logger_factory=(
            structlog.BytesLoggerFactory(sys.stderr.buffer)
            if log_format == "json"
            else structlog.WriteLoggerFactory(sys.stderr)
        ),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, ForeignLogs)]
    root.addHandler(ForeignLogs())
    root.setLevel(min_level if min_level == logging.DEBUG else max(min_level, logging.WARNING))
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_error


def masking(secrets: Collection[str]) -> Mask:
    """Replaces the secrets in a text, also where Python or JSON quoted them, as text or as bytes."""
    forms = {
        form
        for text in filter(None, secrets)
        for form in (text, repr(text)[1:-1], repr(text.encode())[2:-1], orjson.dumps(text).decode()[1:-1])
    }
    # A secret may be part of another one, which has to go first.
    by_length = sorted(forms, key=len, reverse=True)

    def mask(text: str) -> str:
        for form in by_length:
            text = text.replace(form, MASKED)
        return text

    return mask


def _json(mask: Mask) -> list[Any]:
    def mask_values(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: mask(value) if isinstance(value, str) else value for name, value in entry.items()}

    render = structlog.processors.JSONRenderer(serializer=orjson.dumps)
    return [structlog.processors.format_exc_info, mask_values, render]


def _console(mask: Mask) -> list[Any]:
    # The default formatter prints every local variable, passwords included.
    plain = structlog.dev.plain_traceback
    render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [render, lambda _, __, line: mask(line)]


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    thread = args.thread.name if args.thread else "unknown"
    structlog.get_logger().error("thread died", thread=thread, exc_info=args.exc_value)


class RateLimit:
    """Lets `limit` entries of a kind through per period and counts the rest."""

    def __init__(self, limit: int = _LIMIT, period_s: float = _PERIOD_S, clock: Callable[[], float] = time.monotonic):
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
            if len(self._seen) > 1_000:
                self._seen.clear()
            self._seen[kind] = (begin, count + 1)
            return 0 if count < self._limit else None


class ForeignLogs(logging.Handler):
    """Hands the entries of the standard library's loggers to structlog, five of each kind a minute."""

    def __init__(self, rate_limit: RateLimit | None = None) -> None:
        super().__init__()
        self._rate_limit = rate_limit or RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        """Log one entry; its kind is its logger, its level and its text before the values are filled in."""
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
