"""Brokers for tests: Apache Kafka where KAFKA_HOME is set, else the embedded one; and reading and writing topics."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from worker.broker.admin import topic_partitions
from worker.broker.client import Connection
from worker.broker.producer import AcknowledgedProducer
from worker.broker.ranges import TopicReader
from worker.demo.processes import EmbeddedBroker, dying_with_parent, free_port, wait_for_port
from worker.errors import BrokerUnavailable
from worker.records import Outgoing, RawMessage

KAFKA_HOME = os.environ.get("KAFKA_HOME")
CLUSTER_ID = "kafka-anomaly-tests-00"
# Apache Kafka's shortest session; on the embedded broker a join takes half a session, and any length will do.
JOIN_FAST: Mapping[str, Any] = {"session_timeout_ms": 6000 if KAFKA_HOME else 2000, "heartbeat_interval_ms": 400}
LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR"><Appenders><File name="f" fileName="{log}" append="true">
<PatternLayout pattern="%d %p %c{{1}} %m%n"/></File></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="f"/></Root></Loggers></Configuration>
"""


class Broker(Protocol):
    """A running broker that a test may hurt."""

    kind: Literal["apache", "embedded"]

    @property
    def bootstrap_servers(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""

    def restart(self) -> None:
        """Start it again after `kill` at the same address; Apache Kafka finds its records again."""

    def close(self) -> None:
        """The end of it."""


class ApacheBroker:
    """One Apache Kafka node (KRaft) on free ports of the loopback interface, with its data in `folder`."""

    kind: Literal["apache", "embedded"] = "apache"

    def __init__(self, home: Path, folder: Path, properties: Mapping[str, object] | None = None) -> None:
        self._folder = folder
        self._port, self._controller_port = free_ports(2)
        self._java = ["java", "-Xms256m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._java += [f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}", "-cp", str(home / "libs" / "*")]
        self._config = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.xml").write_text(LOG4J.format(log=folder / "broker.log"))
        settings = {**self._properties(), **(properties or {})}
        self._config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"formatting failed:\n{done.stdout}{done.stderr}"
        self.restart()

    def _properties(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._folder / "data",
            "num.partitions": 1,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 500,  # a member that is silent for a second can be one too many
            "broker.session.timeout.ms": 2000,  # a killed broker is back in seconds
            "broker.heartbeat.interval.ms": 500,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
            "log.retention.check.interval.ms": 500,
            "log.initial.task.delay.ms": 500,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            "log.cleaner.threads": 1,
        }

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def restart(self) -> None:
        assert self._process is None, "kill it first"
        command = [*self._java, "kafka.Kafka", str(self._config)]
        output = self._folder / "output.log"
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(self._port, self._process, 60.0, output)
        eventually(lambda: answers(self.bootstrap_servers), 60.0, "the broker answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def move(self, port: int) -> None:
        """Go on at another port with the same data; nothing is left at the old one."""
        self.kill()
        old, self._port = self.bootstrap_servers, port
        self._config.write_text(self._config.read_text().replace(f"//{old}", f"//{self.bootstrap_servers}"))
        self.restart()

    def log_file(self, topic: str, partition: int = 0) -> Path:
        """Where its records lie, as they are: what is changed there, a fetch brings."""
        return self._folder / "data" / f"{topic}-{partition}" / "00000000000000000000.log"

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class EmbeddedTestBroker:
    """The embedded broker with the handles of Broker; it forgets everything when it is killed."""

    kind: Literal["apache", "embedded"] = "embedded"

    def __init__(self, log_file: Path) -> None:
        self._folder = log_file.parent
        self._broker = EmbeddedBroker(log_file=log_file)
        self._broker.start()

    @property
    def bootstrap_servers(self) -> str:
        return self._broker.bootstrap_servers

    @property
    def pid(self) -> int:
        return self._broker.pid

    def restart(self) -> None:
        self._broker.start()

    def kill(self) -> None:
        self._broker.stop()

    def close(self) -> None:
        self._broker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_broker(properties: Mapping[str, object] | None = None) -> Broker:
    """Apache Kafka where KAFKA_HOME is set (with these extra broker properties), else the embedded broker."""
    folder = Path(tempfile.mkdtemp(prefix="broker-"))
    if KAFKA_HOME:
        return ApacheBroker(Path(KAFKA_HOME), folder, properties)
    return EmbeddedTestBroker(folder / "broker.log")


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process is stopped (SIGSTOP) inside the block, as in a pause of its machine."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Different free ports."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def answers(bootstrap_servers: str) -> bool:
    """Whether a client can connect and list topics."""
    try:
        topic_partitions(Connection(bootstrap_servers, connect_timeout_s=5.0))
    except BrokerUnavailable:
        return False
    return True


def eventually(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Returns once the condition holds; fails with `what` after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def produce(connection: Connection, records: Iterable[Outgoing], timeout_s: float = 30.0) -> None:
    """All records acknowledged."""
    producer = AcknowledgedProducer(connection)
    try:
        for record in records:
            producer.send(record)
        producer.flush(timeout_s)
    finally:
        producer.close(1.0)


def produce_values(connection: Connection, topic: str, values: Sequence[bytes], key: bytes | None = None) -> None:
    """One record for each value."""
    produce(connection, [Outgoing(topic, key, value) for value in values])


def read_all(
    connection: Connection, topic: str, *, read_committed: bool = False, timeout_s: float = 30.0
) -> list[RawMessage]:
    """Every record of a topic up to its end, offset order within each partition."""
    reader = TopicReader(connection, read_committed=read_committed, timeout_s=timeout_s)
    try:
        bounds = {partition: (0, end) for partition, end in reader.end_offsets(topic).items()}
        return [record for batch in reader.read(bounds) for record in batch]
    finally:
        reader.close(2.0)


def values_of(records: Iterable[RawMessage]) -> list[bytes | None]:
    """Their payloads."""
    return [record.value for record in records]


class BlackHole:
    """A port that accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.bootstrap_servers = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._socket.close()
