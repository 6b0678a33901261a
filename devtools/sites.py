"""Real `worker` processes on a real broker, in a folder of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from devtools import traffic
from devtools.brokers import JOIN_FAST, eventually
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.ranges import TopicReader
from worker.demo.processes import dying_with_parent
from worker.model.store.model_store import ModelStore
from worker.records import Partition

START_S = 60.0


class Site:
    """A folder with schema, model store and logs, and the environment that points `worker` at it."""

    def __init__(self, folder: Path, connection: Connection, input_topic: str, **settings: str) -> None:
        self.folder = folder
        self.connection = connection
        self.input_topic = input_topic
        self.group = f"group-{input_topic}"
        self.alerts, self.dead_letters, self.scores = (f"{input_topic}-{name}" for name in ("alerts", "dead", "scores"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WORKER_")},
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": connection.bootstrap_servers,
            "WORKER_KAFKA__INPUT_TOPIC": input_topic,
            "WORKER_KAFKA__GROUP_ID": self.group,
            "WORKER_KAFKA__ALERTS_TOPIC": self.alerts,
            "WORKER_KAFKA__DEAD_LETTER_TOPIC": self.dead_letters,
            "WORKER_KAFKA__SCORES_TOPIC": self.scores,
            "WORKER_KAFKA__OPTIONS": json.dumps(dict(JOIN_FAST)),
            "WORKER_SCHEMA_FILE": str(folder / "schema.toml"),
            "WORKER_MODEL_STORE": str(folder / "models"),
            **settings,
        }
        (folder / "schema.toml").write_text(traffic.SCHEMA_TEXT)
        self._workers: list[WorkerProcess] = []
        self._partitions: list[Partition] = []

    def create_topics(self, partitions: int = 1, scores: int = 1) -> None:
        """The input topic and that of scores with so many partitions, those of alerts and of dead letters with one."""
        results = {self.alerts: 1, self.dead_letters: 1, self.scores: scores}
        ensure_topics(self.connection, {self.input_topic: partitions, **results})

    def put_model(self, seed: int = 0) -> None:
        """A model that was fitted in a second becomes the current one."""
        store = ModelStore(self.folder / "models")
        store.save(traffic.bundle(seed))
        store.promote(traffic.bundle(seed).version)

    def start(
        self, *arguments: str, settings: Mapping[str, str] | None = None, module: str = "worker"
    ) -> "WorkerProcess":
        """A running `worker` (by default `worker run`). module: another that stands for it."""
        worker = WorkerProcess(self, arguments or ("run",), settings or {}, module)
        self._workers.append(worker)
        return worker

    def run(self, *arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A `worker` command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=self.folder,
            env={**self.environment, **(settings or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @cached_property
    def _watcher(self) -> GroupConsumer:
        """Never polls, so it never joins the group: it only asks for its committed offsets."""
        return GroupConsumer(self.connection, [self.input_topic], self.group)

    def close(self) -> None:
        """Ends what is still running and closes the connection that watched it."""
        for worker in self._workers:
            worker.kill()
        if "_watcher" in self.__dict__:
            self._watcher.close(1.0)

    def ends(self) -> dict[Partition, int]:
        """End offsets of the input topic's partitions."""
        reader = TopicReader(self.connection)
        try:
            ends = dict(reader.end_offsets(self.input_topic))
        finally:
            reader.close(1.0)
        self._partitions = list(ends)
        return ends

    def committed(self) -> dict[Partition, int]:
        """The group's committed offsets, of the partitions that there were when ends were last asked for."""
        if not self._partitions:
            self.ends()
        offsets = self._watcher.committed(self._partitions)
        return {key: offset for key, offset in offsets.items() if offset is not None}

    def wait_until_beyond(self, records: int, timeout_s: float = 90.0) -> None:
        """Until more than so many records are committed."""
        eventually(lambda: sum(self.committed().values()) > records, timeout_s, f"more than {records} committed")

    def wait_until_drained(self, timeout_s: float = 90.0) -> None:
        """Until everything in the input topic is committed."""
        ends = {key: end for key, end in self.ends().items() if end > 0}
        eventually(lambda: ends.items() <= self.committed().items(), timeout_s, f"{ends} committed")


class WorkerProcess:
    """One `worker` process; its standard error goes to a file."""

    _count = 0

    def __init__(
        self, site: Site, arguments: tuple[str, ...], settings: Mapping[str, str], module: str = "worker"
    ) -> None:
        WorkerProcess._count += 1
        self.log = site.folder / f"worker-{WorkerProcess._count}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                dying_with_parent([sys.executable, "-m", module, *arguments]),
                cwd=site.folder,
                env={**site.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self, text: str) -> bool:
        """Whether the log has this text."""
        return text in self.log.read_text(errors="replace")

    def count(self, text: str) -> int:
        """How often the log has this text."""
        return self.log.read_text(errors="replace").count(text)

    def wait_for_count(self, text: str, times: int, timeout_s: float = START_S) -> None:
        """Until the log has this text so many times."""
        eventually(lambda: self.count(text) >= times, timeout_s, f"{times} times {text!r} in {self.log.read_text()}")

    def wait_for(self, text: str, timeout_s: float = START_S) -> None:
        """Until the log has this text; fails at once when the process ends without it."""
        eventually(
            lambda: self.said(text) or self.process.poll() is not None, timeout_s, f"{text!r} in {self.log.read_text()}"
        )
        assert self.said(text), self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit code, once it ends by itself."""
        return self.process.wait(timeout_s)
