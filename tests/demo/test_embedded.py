"""The embedded broker starts, answers, and never outlives its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.brokers import answers, eventually
from worker.demo import processes
from worker.demo.processes import EmbeddedBroker, find_binary
from worker.errors import BrokerUnavailable, FatalError, Hint

PARENT = """
import sys, time
from pathlib import Path
from worker.demo.processes import EmbeddedBroker
with EmbeddedBroker(log_file=Path(sys.argv[1])) as broker:
    print(broker.pid, flush=True)
    time.sleep(60)
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_answers_inside_the_block_and_is_gone_behind_it(tmp_path: Path) -> None:
    with EmbeddedBroker(log_file=tmp_path / "broker.log") as broker:
        pid = broker.pid
        assert answers(broker.bootstrap_servers)

    assert not runs(pid)
    assert (tmp_path / "broker.log").exists()


def test_it_can_be_stopped_and_started_again_at_the_same_address(tmp_path: Path) -> None:
    broker = EmbeddedBroker(log_file=tmp_path / "broker.log")
    broker.start()
    address = broker.bootstrap_servers
    broker.stop()
    broker.stop()

    broker.start()

    assert broker.bootstrap_servers == address
    assert answers(address)
    broker.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can tie a child to its parent")
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "broker.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        os.kill(parent.pid, signal.SIGKILL)

    eventually(lambda: not runs(pid), 10, "the broker is gone")


def test_a_missing_binary_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(processes, "_PACKAGE", "no-such-package")

    with pytest.raises(FatalError, match="not installed") as refused:
        find_binary()
    assert refused.value.hint is Hint.INSTALL_DEMO


def test_a_broker_that_ends_at_once_names_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "find_binary", lambda: "/bin/false")

    with pytest.raises(FatalError, match=r"broker\.log"):
        EmbeddedBroker(log_file=tmp_path / "broker.log").start()


def test_a_broker_that_never_listens_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "deaf"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(processes, "find_binary", lambda: str(script))

    with pytest.raises(BrokerUnavailable, match=r"broker\.log"):
        EmbeddedBroker(log_file=tmp_path / "broker.log", start_timeout_s=0.3).start()
