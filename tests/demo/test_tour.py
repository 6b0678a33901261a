"""The demo as its user starts it: one command, everything real."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.brokers import eventually

pytestmark = pytest.mark.broker


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A demo whose temporary folder is made inside `folder`."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "worker", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        bufsize=1,
    )


def read_until(demo: "subprocess.Popen[str]", mark: str) -> list[str]:
    """Its lines up to the first that contains the mark; a test's time limit ends the waiting."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if mark in line:
            return lines
    raise AssertionError(f"ended without {mark!r}:\n{''.join(lines)}")


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


@pytest.mark.timeout(400)  # a minute at most where nothing else runs
def test_a_short_demo_finds_what_was_planted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "20", "--seed", "2") as demo:
        text, _ = demo.communicate(timeout=380)

    assert demo.returncode == 0, text
    assert "passed: at least 80% of the planted" in text
    assert "\x1b" not in text
    assert sum("→" in line for line in text.splitlines()) > 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_its_processes_and_files_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--seconds", "60") as demo:
        read_until(demo, "history")
        eventually(lambda: len(children(demo.pid)) == 2, 120.0, "broker and train run")
        started = children(demo.pid)

        demo.send_signal(number)

        assert demo.wait(120) == 130
        eventually(lambda: not any(running(pid) for pid in started), 10.0, "broker and train are gone")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(400)
def test_a_worker_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "20") as demo:
        lines = read_until(demo, "✓ run")
        worker = int(lines[-1].split("process ")[1].split(",")[0])

        os.kill(worker, signal.SIGKILL)
        text, _ = demo.communicate(timeout=120)

    assert demo.returncode == 1
    assert "error: worker run ended with exit code -9; it said last:" in text
    assert '"started"' in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds", "5"), "argument --seconds: '5' is not a number from 20"),
        (("--seconds", "nan"), "argument --seconds: 'nan' is not a number from 20"),
        (("--rate", "1"), "error: --rate 1: from 50 to 20000"),
        (("--seed", "-1"), "argument --seed: '-1' is not a whole number from 0 on"),
    ],
)
def test_values_out_of_range_are_wrong_usage(tmp_path: Path, arguments: tuple[str, str], message: str) -> None:
    with start(tmp_path, *arguments) as demo:
        text, _ = demo.communicate(timeout=60)

    assert demo.returncode == 2
    assert message in text
