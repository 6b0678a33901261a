"""Two Apache Kafka nodes: one is the controller, too, the other can be killed and the first lives on."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kafka import errors as kafka_errors
from kafka.protocol.metadata import CoordinatorType

from devtools.brokers import ApacheBroker, eventually
from worker.broker.client import Connection, admin_client

T = TypeVar("T")
REPLICATED = {
    "default.replication.factor": 2,
    "offsets.topic.replication.factor": 2,
    "transaction.state.log.replication.factor": 2,
}


class SecondNode(ApacheBroker):
    """A broker without a controller of its own."""

    def __init__(self, home: Path, folder: Path, first: ApacheBroker) -> None:
        self._controller = first._controller_port
        super().__init__(home, folder, REPLICATED)

    def _properties(self) -> dict[str, object]:
        return {
            **super()._properties(),
            "process.roles": "broker",
            "node.id": 2,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
        }


class Cluster:
    """Nodes 1 and 2. Every topic has a replica on both; what node 2 leads moves to node 1 when it is killed."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.first = ApacheBroker(home, folder / "1", REPLICATED)
        self.second = SecondNode(home, folder / "2", self.first)
        self.bootstrap_servers = f"{self.first.bootstrap_servers},{self.second.bootstrap_servers}"
        self._link = Connection(self.bootstrap_servers)
        eventually(lambda: len(self._ask(lambda admin: admin.describe_cluster()["brokers"])) == 2, 30, "two nodes")

    def _ask(self, question: Callable[[Any], T]) -> T:
        with admin_client(self._link) as admin:  # a new one each time: it keeps what it has found once
            return question(admin)

    def leaders(self, topic: str) -> list[int]:
        """The node that leads each partition."""
        (topic_metadata,) = self._ask(lambda admin: admin.describe_topics([topic]))
        return [partition["leader_id"] for partition in topic_metadata["partitions"]]

    def coordinators(self, kind: CoordinatorType, names: Sequence[str]) -> dict[str, int]:
        """The node that coordinates each group or transactional id."""
        coordinators: dict[str, int] = {}

        def known() -> bool:
            with contextlib.suppress(kafka_errors.CoordinatorNotAvailableError):  # the first question makes the topic
                coordinators.update(
                    self._ask(lambda admin: admin._manager.run(admin._find_coordinator_ids, names, kind))
                )
            return len(coordinators) == len(names)

        eventually(known, 30, "the coordinators are known")
        return coordinators

    def led_by_the_second(self, kind: CoordinatorType, pattern: str) -> str:
        """A name made from the pattern with a number, whose coordinator is node 2."""
        coordinators = self.coordinators(kind, [pattern.format(number) for number in range(30)])
        return next(name for name, node in coordinators.items() if node == 2)

    def close(self) -> None:
        self.second.close()
        self.first.close()
