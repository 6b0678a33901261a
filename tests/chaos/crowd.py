"""What a chaos run hurts: a broker, a group of workers, and traffic that never stops."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from devtools import traffic
from devtools.brokers import ApacheBroker, eventually, free_ports
from devtools.sites import Site, WorkerProcess
from tests.chaos.shadow import THRESHOLD
from worker.broker.admin import ensure_topics, topic_partitions
from worker.broker.client import Connection, admin_client
from worker.broker.producer import AcknowledgedProducer
from worker.broker.record_batch import HeaderName
from worker.errors import WorkerError
from worker.records import Outgoing

PARTITIONS = 4
RECORDS_PER_BURST, BURST_S = 30, 0.1
# A node that comes back can wait for members that died before it, as long as the poll interval (worker.broker.client).
SESSION = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "max_poll_interval_ms": 40_000}
# For some seconds a node that comes back acts on what it led (worker.broker.assignments). A transaction that it aborts
# for its age then gets no markers (Apache Kafka 4.3.1: CompleteAbort in its log, none in the partitions), and what was
# aborted is committed with the producer's next transaction. So ages are looked at nearly as late as by default (10 s),
# not as often as on the tests' other brokers (0.5 s).
CAREFUL = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": 8000}
LARGE = 900_000  # bytes: near the most that a topic takes by default
BROKEN: tuple[bytes | None, ...] = (b"{", b"", b"[1]", b'{"amount": "much"}', b'{"amount": 1e999}', b"\xff", None)


@dataclass
class Member:
    """A place in the group, and the process that fills it now. instance_id: a static member where it has one."""

    name: str
    instance_id: str | None
    process: WorkerProcess


class Crowd:
    """A broker, workers and traffic in one folder."""

    def __init__(self, home: Path, folder: Path, delivery: str, workers: int) -> None:
        folder.mkdir(parents=True)
        self.broker = ApacheBroker(home, folder / "broker", CAREFUL)
        here = self.broker.bootstrap_servers
        self.addresses = (here, f"127.0.0.1:{free_ports(1)[0]}")  # it is at one of them at a time
        self.connection = Connection(",".join(self.addresses), options=SESSION)
        threshold = {f"WORKER_THRESHOLD__{key.upper()}": str(value) for key, value in THRESHOLD if value is not None}
        self.site = Site(
            folder,
            self.connection,
            "in",
            WORKER_DELIVERY=delivery,
            WORKER_KAFKA__OPTIONS=orjson.dumps(SESSION).decode(),
            WORKER_KAFKA__DELIVERY_TIMEOUT_MS="10000",
            WORKER_BATCH__SIZE="128",
            WORKER_LOG__FORMAT="console",
            OMP_NUM_THREADS="1",
            **threshold,
        )
        self.topics = {"in": PARTITIONS, self.site.scores: 2, self.site.alerts: 1, self.site.dead_letters: 1}
        ensure_topics(self.connection, self.topics)
        self.site.put_model()
        # One dynamic member; the others are static, so that both ways of coming back are seen.
        names = [(f"w{number}", f"static-{number}" if number else None) for number in range(workers)]
        self.members = [Member(name, instance, self.launch(instance)) for name, instance in names]
        self.traffic = Traffic(self.connection)

    def launch(self, instance_id: str | None) -> WorkerProcess:
        """A new worker process."""
        return self.site.start(settings={"WORKER_INSTANCE_ID": instance_id or ""})

    def add_partitions(self, count: int) -> None:
        """The input topic has so many from now on, and the traffic reaches them at once."""
        topic = self.site.input_topic
        with admin_client(self.connection) as admin:
            admin.create_partitions({topic: count})
        eventually(lambda: topic_partitions(self.connection)[topic] == count, 30.0, f"{count} partitions")
        self.topics[topic] = count
        self.site.ends()
        self.traffic.reconnect()

    def dead(self) -> list[Member]:
        """Members whose process has ended without being told to."""
        return [member for member in self.members if member.process.process.poll() is not None]

    def close(self) -> None:
        """Ends everything; logs and the broker's data stay."""
        self.traffic.close()
        self.site.close()
        self.broker.kill()


class Traffic:
    """Some hundred records a second, a few of them broken, from a thread of its own; waits while the broker is away."""

    def __init__(self, connection: Connection) -> None:
        options = {"request_timeout_ms": 3000, "delivery_timeout_ms": 6000, "max_block_ms": 3000}
        self._connection = Connection(connection.bootstrap_servers, options=options, connect_timeout_s=5.0)
        self._records = _endless()
        self._poison = 0
        self._stop, self._anew = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._flow, name="traffic", daemon=True)
        self._thread.start()

    def _flow(self) -> None:
        producer: AcknowledgedProducer | None = None
        while not self._stop.wait(BURST_S):
            if producer is not None and self._anew.is_set():
                producer.close(1.0)
                producer = None
            self._anew.clear()
            try:
                producer = producer or AcknowledgedProducer(self._connection)
                for _ in range(RECORDS_PER_BURST):
                    producer.send(next(self._records))
                for number in range(self._poison):
                    producer.send(_poisoned(number))
                producer.flush(8.0)
                self._poison = 0
            except WorkerError:
                if producer is not None:
                    producer.close(0.2)
                producer = None
        if producer is not None:
            producer.close(1.0)

    def poison(self, count: int) -> None:
        """With the next burst come so many records with header names that are no text, every third one large: half of
        those a record, half of them none.
        """
        self._poison = count

    def reconnect(self) -> None:
        """A new producer for the next burst: it asks which partitions there are."""
        self._anew.set()

    def close(self) -> None:
        """The end of it."""
        self._stop.set()
        self._thread.join()


def _poisoned(number: int) -> Outgoing:
    record: dict[str, Any] = traffic.row(number, np.random.default_rng(number))
    if number % 3 == 0:
        record["note"] = "x" * LARGE
    value = orjson.dumps(record)
    headers = [(HeaderName(bytes([0xFF, 0xFE, number % 256])), b"x"), ("plain", b"y")]
    return Outgoing("in", str(number).encode(), value[:-1] if number % 2 else value, headers)


def _endless() -> Iterator[Outgoing]:
    rng = np.random.default_rng(0)
    for number in count():
        key = str(number % 97).encode()
        if number % 40 == 39:
            yield Outgoing("in", key, BROKEN[number // 40 % len(BROKEN)])
            continue
        record: dict[str, Any] = traffic.row(number, rng)
        if number % 50 == 10:
            record["amount"] = 5e6
        yield Outgoing("in", key, orjson.dumps(record))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Any, timeout_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
