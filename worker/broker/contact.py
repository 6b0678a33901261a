"""When a broker last answered, and what a client does while none does: it asks, and begins with the list again.

What kafka-python says of itself during an outage is memory: membership, assignment and ends of the log stay what they
were. And a client whose known brokers have all gone never asks its bootstrap list again (KIP-899). So its connections
are watched from below, on its own IO thread, whatever its callers do.
"""

import math
import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Final
from weakref import WeakSet

from kafka import errors as kafka_errors
from kafka.cluster import ClusterMetadata
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from typing_extensions import override

ASK_AFTER_S: Final = 1.5  # of silence; an idle consumer hears from its fetches every half second
CHECK_EVERY_S: Final = 1.0
BOOTSTRAP_S: Final = 3.0  # for each address of the list


class Contact:
    """When a broker last answered, over all clients of a process. Any thread may call any method; none blocks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients: WeakSet[Any] = WeakSet()
        self._last = clock()  # an answer to any client; the start counts as one
        self._unanswered_since: float | None = None  # for a client that was closed meanwhile
        self._last_outage = -math.inf
        self._lock = threading.Lock()

    def opened(self, client: Any) -> None:
        """It begins to wait for an answer. `client.heard_at` is when it got the last one."""
        client.heard_at = self._clock()
        with self._lock:
            self._clients.add(client)

    def heard(self, client: Any) -> None:
        """It got an answer."""
        client.heard_at = self._last = self._clock()
        self._unanswered_since = None

    def closed(self, client: Any) -> None:
        """It waits no more. What it has waited for in vain is still not there."""
        with self._lock:
            was_open = client in self._clients
            self._clients.discard(client)
        if was_open and self._clock() - client.heard_at > 2 * ASK_AFTER_S:
            self._unanswered_since = min(client.heard_at, self._unanswered_since or client.heard_at)

    def note_outage(self) -> None:
        """A client has asked in vain, and again."""
        self._last_outage = self._clock()

    def since_outage_s(self) -> float:
        """Seconds since a client last asked in vain; infinite where none has."""
        return self._clock() - self._last_outage

    def silence_s(self) -> float:
        """Seconds since the last answer, for the client that has waited longest; without a client, for the last one."""
        return self._clock() - min(self._waiting(), default=self._last)

    def is_asking(self) -> bool:
        """Whether a client waits for answers, or the last one was closed without."""
        return bool(self._waiting())

    def _waiting(self) -> list[float]:
        with self._lock:
            waiting = [float(client.heard_at) for client in self._clients]
        return waiting if self._unanswered_since is None else [*waiting, self._unanswered_since]


def watched_client(contact: Contact, rebootstrap_s: float, **config: Any) -> KafkaNetClient:
    """A network client whose answers `contact` hears of.

    rebootstrap_s: seconds without an answer, after which the bootstrap list is asked again
    """
    net = NetworkSelector(**config)
    return KafkaNetClient(net, _WatchedManager(net, contact, rebootstrap_s, **config))


class _Metadata(ClusterMetadata):  # type: ignore[misc]  # kafka-python ships no types
    """Metadata for which no topic is forgotten.

    kafka-python 3.0.12 drops a request for an update that is made while an older one is on its way. A consumer that
    subscribes in that moment doesn't know its topic until metadata_max_age_ms have passed: as the leader of its group
    it assigns nothing to anybody until then ("No partition metadata for topic").
    """

    _asked_for: AbstractSet[str] = frozenset()

    @override
    def metadata_request(self) -> Any:
        self._asked_for = set(self._topics)
        return super().metadata_request()

    @override
    def update_metadata(self, metadata: Any) -> None:
        super().update_metadata(metadata)
        if not self._topics <= self._asked_for:
            self.request_update()


class _WatchedManager(KafkaConnectionManager):  # type: ignore[misc]
    """Connections whose every answer counts, on the client's IO thread."""

    def __init__(self, net: Any, contact: Contact, rebootstrap_s: float, **config: Any) -> None:
        super().__init__(net, **config)
        known = self.config.keys() & ClusterMetadata.DEFAULT_CONFIG
        self.cluster = _Metadata(**{name: self.config[name] for name in known})
        self.cluster.attach(self)
        self.heard_at = 0.0
        self._contact = contact
        self._rebootstrap_s = rebootstrap_s
        self._asked: dict[Any, Any] = {}  # node -> its answer to come
        contact.opened(self)
        self.call_soon(self._keep_asking)

    @override
    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> Any:
        is_new = node_id not in self._conns
        connection = super().get_connection(node_id, *args, **options)
        if is_new:
            receive = connection.data_received

            def heard(data: bytes) -> None:
                if connection.connected:  # what comes before may be a login that is refused
                    self._contact.heard(self)
                receive(data)

            connection.data_received = heard
        return connection

    @override
    def close(self, node_id: Any = None, timeout_ms: Any = None) -> None:
        if node_id is None:
            self._contact.closed(self)
        super().close(node_id, timeout_ms)

    async def _keep_asking(self) -> None:
        silent_checks = 0  # in a row
        while not self.closed:
            await self._net.sleep(CHECK_EVERY_S)
            silence_s = time.monotonic() - self.heard_at
            if silence_s < ASK_AFTER_S or not self.cluster.brokers():  # else it is still at its first bootstrap
                silent_checks = 0
                continue
            silent_checks += 1
            if silent_checks > 1:  # a process that was frozen looks once, and then reads what has come meanwhile
                self._contact.note_outage()
            try:
                self._ask()
                if silence_s >= self._rebootstrap_s:
                    await self._bootstrap_again()
            except (kafka_errors.KafkaError, OSError):
                continue  # not authorised any more, ...: whoever uses the client hears of it

    def _ask(self) -> None:
        """One small question to a broker that owes no answer to the last one, a connected one first."""
        nodes = [broker.node_id for broker in self.cluster.brokers()]
        self._asked = {node: answer for node, answer in self._asked.items() if not answer.is_done}
        free = [node for node in nodes if node not in self._asked and not self.connection_delay(node)]
        node = min(free, key=lambda node: node not in self._conns, default=None)
        if node is not None:
            self._asked[node] = self.send(_question(), node)

    async def _bootstrap_again(self) -> None:
        """Ask each address of the list in turn, its name resolved anew, which brokers there are now."""
        self.cluster._bootstrap_brokers = self.cluster._generate_bootstrap_brokers()  # noqa: SLF001
        for broker in self.cluster.bootstrap_brokers():
            node = broker.node_id
            try:
                connection = await self.get_connection(
                    node, timeout_ms=BOOTSTRAP_S * 1000, refresh_metadata_on_err=False, reset_backoff_on_connect=False
                )
                answer = await connection.send_request(self.cluster.metadata_request(), BOOTSTRAP_S * 1000)
            except (kafka_errors.KafkaError, OSError):
                continue
            finally:
                if (used := self._conns.pop(node, None)) is not None:
                    used.close()
            if answer.brokers:
                self._follow(answer)
                return

    def _follow(self, metadata: Any) -> None:
        """Leave every connection: it leads to where a broker was."""
        cluster = self.cluster
        cluster.update_metadata(metadata)
        for broker in cluster.brokers():
            node = f"coordinator-{broker.node_id}"
            if node in cluster._coordinator_brokers:  # noqa: SLF001
                moved = MetadataResponse.MetadataResponseBroker(node, broker.host, broker.port, None)
                cluster._coordinator_brokers[node] = moved  # noqa: SLF001
        self._backoff.clear()
        for connection in list(self._conns.values()):
            connection.close(kafka_errors.KafkaConnectionError("the brokers have moved"))
        cluster.request_update()


def _question() -> Any:
    return MetadataRequest(
        topics=MetadataRequest.NO_TOPICS,
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )
