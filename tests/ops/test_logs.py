"""Logs: one JSON object per line on standard error, whoever wrote the entry."""

import subprocess
import sys
from typing import Any

import orjson
import pytest

from worker.ops.logs import RateLimit


def logged(code: str, *, log_format: str = "json", level: str = "info") -> list[str]:
    """Lines on standard error of a process that sets up logs and runs `code`."""
    script = (
        "import logging, structlog, threading, warnings\n"
        "from worker.ops.logs import configure_logs\n"
        f"configure_logs({log_format!r}, {level!r})\nlog = structlog.get_logger()\n{code}"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


def entries(code: str, *, level: str = "info") -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in logged(code, level=level)]


def test_an_entry_is_one_json_object_with_its_values() -> None:
    (entry,) = entries("log.info('batch', records=3, topic='t')")

    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "batch", "level": "info", "records": 3, "topic": "t"}


def test_entries_below_the_level_are_left_out() -> None:
    assert [entry["event"] for entry in entries("log.info('a'); log.warning('b')", level="warning")] == ["b"]


def test_console_entries_are_plain_text_without_colours_in_a_pipe() -> None:
    (line,) = logged("log.info('batch', records=3)", log_format="console")

    assert "batch" in line
    assert "records=3" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_secret_is_masked_whoever_logs_it_and_however_it_is_quoted(log_format: str) -> None:
    secret = "hun'tör\"2"
    code = (
        f"secret = {secret!r}\nconfigure_logs({log_format!r}, 'debug', secrets=[secret, ''])\n"
        "logging.getLogger('kafka').debug('Starting with %s', {'sasl_plain_password': secret})\n"
        "logging.getLogger('kafka').debug('Sending %s', secret.encode())\n"
        "log.error('refused', error=f'no user {secret}')\n"
        "try: raise ValueError(secret)\nexcept ValueError: log.exception('failed')"
    )

    text = "\n".join(logged(code))

    assert text.count("[secret]") >= 4
    assert "hun" not in text


def test_errors_and_texts_are_in_the_words_that_the_command_line_gives() -> None:
    code = (
        "from worker.cli.hints import message_of\nfrom worker.errors import Hint, StoreError\n"
        "configure_logs('json', 'info', message_of=message_of)\n"
        "log.error('refused', error=StoreError('no model', hint=Hint.FIT_A_MODEL), why='[model.hidden] = 0')"
    )

    (entry,) = entries(code)

    assert entry["error"] == "no model; fit one with: worker train --once --from FILE"
    assert entry["why"] == "WORKER_MODEL__HIDDEN = 0"


def test_a_traceback_is_a_field_and_shows_no_local_variables() -> None:
    code = "password = 'hunter2'\ntry: 1 / 0\nexcept ZeroDivisionError: log.exception('failed')"

    (entry,) = entries(code)
    lines = logged(code, log_format="console")

    assert "ZeroDivisionError" in entry["exception"]
    assert any("ZeroDivisionError" in line for line in lines)
    assert not any("hunter2" in line for line in lines)


def test_entries_of_other_libraries_come_out_the_same_way_from_warning_on() -> None:
    code = "other = logging.getLogger('kafka.client'); other.info('chatter'); other.warning('lost %s', 'broker')"

    (entry,) = entries(code)

    assert (entry["event"], entry["level"], entry["logger"]) == ("lost broker", "warning", "kafka.client")


def test_debug_shows_what_other_libraries_chatter() -> None:
    assert entries("logging.getLogger('kafka').debug('chatter')", level="debug")[0]["event"] == "chatter"


def test_a_noisy_library_gets_five_entries_of_a_kind() -> None:
    code = "for n in range(100): logging.getLogger('kafka').warning('lost %s', n)\nlog.info('still here')"

    assert [entry["event"] for entry in entries(code)] == [f"lost {n}" for n in range(5)] + ["still here"]

    code = (
        "warnings.warn('old')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='t1')\nthread.start(); thread.join()"
    )

    warning, death = entries(code)

    assert "old" in warning["event"]
    assert (death["event"], death["thread"]) == ("thread died", "t1")
    assert "ZeroDivisionError" in death["exception"]


def test_setting_up_twice_writes_each_entry_once() -> None:
    assert len(entries("configure_logs('json', 'info'); logging.getLogger('x').warning('once')")) == 1


def test_the_rate_limit_says_how_many_it_left_out() -> None:
    now = 0.0
    limit = RateLimit(limit=2, period_s=60, clock=lambda: now)

    first = [limit.admit("a") for _ in range(5)]
    other = limit.admit("b")
    now = 61.0

    assert first == [0, 0, None, None, None]
    assert other == 0
    assert limit.admit("a") == 3


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        logged("", level="loud")


HOSTILE = [
    r"'\x1b[2J'",
    r"'two\nlines'",
    r"'\x9b2J'",
    r"'\u202e'",
    r"'\ud800'",
    "2**70",
    "{1: 2}",
    "b'\\xff'",
    "object()",
]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_whatever_a_value_holds_an_entry_is_one_line(log_format: str) -> None:
    code = f"for value in [{', '.join(HOSTILE)}]: log.info('odd', value=value, nested={{'deep': [value]}})"

    lines = logged(code, log_format=log_format)

    assert len(lines) == len(HOSTILE)
    assert all("odd" in line and "deep" in line for line in lines)
    assert log_format == "json" or not set("".join(lines)) & set("\x1b\x9b\u202e")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_secret_inside_of_a_nested_value_is_masked(log_format: str) -> None:
    code = (
        f"configure_logs({log_format!r}, 'info', secrets=['hunter2'])\nlog.info('x', fields={{'hunter2': ['hunter2']}})"
    )

    (line,) = logged(code, log_format=log_format)

    assert line.count("[secret]") == 2
    assert "hunter2" not in line


def test_bytes_on_the_wire_are_not_logged_not_even_with_debug() -> None:
    text = "\n".join(
        logged(
            "logging.getLogger('kafka.protocol.parser').debug('Recv: %r', b'a record')\n"
            "logging.getLogger('kafka.net.connection').warning('lost')\n"
            "logging.getLogger('kafka.consumer.fetcher').debug('fetched')",
            level="debug",
        )
    )

    assert "a record" not in text
    assert "lost" in text
    assert "fetched" in text
