"""Shared fixtures: a broker for the session, a topic of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
import torch

from devtools.brokers import JOIN_FAST, KAFKA_HOME, Broker, start_broker
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection

if TYPE_CHECKING:
    from devtools.objects import ObjectServer

pytest.register_assert_rewrite("devtools.stage")
_numbers = itertools.count()
torch.set_num_threads(1)  # as the worker does; more threads only spin on networks of this size


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    skip = pytest.mark.skip(reason="needs Apache Kafka: set KAFKA_HOME (make test-kafka)")
    for item in items:
        if not KAFKA_HOME and item.get_closest_marker("kafka"):
            item.add_marker(skip)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


@pytest.fixture(autouse=True)
def _logs_end_with_their_test() -> Iterator[None]:
    """A stream that a test has set up for logs and closed is no place for those of the next one."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    """A broker that all tests share: never kill or freeze this one."""
    broker = start_broker()
    yield broker
    broker.close()


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker of this test alone, to kill, restart and freeze."""
    broker = start_broker()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def object_server() -> "Iterator[ObjectServer]":
    """An object store that all tests share: never stop this one."""
    from devtools.objects import ObjectServer

    server = ObjectServer()
    yield server
    server.stop()


@pytest.fixture
def connection(kafka_broker: Broker) -> Connection:
    """How to reach the shared broker; group members join fast and time out soon."""
    return Connection(kafka_broker.bootstrap_servers, options=JOIN_FAST)


@pytest.fixture
def topic(connection: Connection) -> str:
    """A fresh topic with one partition."""
    return new_topic(connection, 1)


@pytest.fixture
def make_topic(connection: Connection) -> Callable[[int], str]:
    """Makes fresh topics with so many partitions."""
    return lambda partitions: new_topic(connection, partitions)


def new_topic(connection: Connection, partitions: int) -> str:
    """A topic that no other test uses."""
    name = f"topic-{next(_numbers)}"
    ensure_topics(connection, {name: partitions})
    return name


@pytest.fixture
def group() -> str:
    """A fresh consumer group."""
    return f"group-{next(_numbers)}"
