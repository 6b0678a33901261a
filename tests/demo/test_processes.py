"""The demo's worker processes: their failures are told in their own words, and none of them is left behind."""

import os
from pathlib import Path

import pytest

from worker.demo.processes import WorkerCommand
from worker.errors import FatalError


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_failed_command_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        WorkerCommand(["train", "--once", "--from", "no.jsonl"], folder=tmp_path, settings={}) as train,
        pytest.raises(FatalError, match=r"train failed with exit code 1; it said last:\n  error: .*schema\.toml"),
    ):
        train.require_success()


def test_the_last_line_of_a_successful_command_is_what_it_said(tmp_path: Path) -> None:
    with WorkerCommand(["run", "--help"], folder=tmp_path, settings={}) as command:
        assert "worker run" in command.require_success()

    with pytest.raises(FatalError, match="worker run ended with exit code 0"):
        command.require_running()


def test_settings_of_the_surrounding_shell_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_NO_SUCH_SETTING", "1")

    with (
        WorkerCommand(["run"], folder=tmp_path, settings={"WORKER_SCHEMA_FILE": "none.toml"}) as command,
        pytest.raises(FatalError, match=r"none\.toml"),
    ):
        command.require_success()


def test_a_waiting_worker_stops_on_sigterm_and_is_gone(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text('[fields.x]\nkind = "numeric"\n')
    with WorkerCommand(["run"], folder=tmp_path, settings={}) as command:
        while not any("waiting for a model" in line for line in command.tail()):
            command.require_running()
        command.stop()

    assert gone(command.pid)


def test_a_process_does_not_outlive_its_block(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text('[fields.x]\nkind = "numeric"\n')

    with pytest.raises(ZeroDivisionError), WorkerCommand(["run"], folder=tmp_path, settings={}) as command:
        raise ZeroDivisionError

    assert gone(command.pid)
