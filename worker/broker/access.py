"""What this user's broker allows, for `worker check`."""

from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.net.sasl.scram import ScramClient

from worker.broker.admin import close_admin
from worker.broker.client import Connection, build_admin
from worker.broker.deadline import bounded
from worker.broker.translate import translated
from worker.errors import BrokerUnavailable, FatalError

_SETTING = "auto.create.topics.enable"
SCRAM = frozenset(ScramClient.MECHANISMS)


def scram_exchange(user: str, password: str, mechanism: str) -> Any:
    """One SCRAM login, a message at a time, as the Kafka client does it; mechanism: one of SCRAM."""
    return ScramClient(user, password, mechanism)


def creates_topics(connection: Connection) -> bool:
    """Whether the broker creates a topic when somebody writes to it; False where it doesn't tell.

    Raises BrokerUnavailable, FatalError when no client can be built.
    """
    admin = build_admin(connection)

    def ask() -> bool:
        broker = str(admin.describe_cluster()["brokers"][0]["broker_id"])
        resource = ConfigResource(ConfigResourceType.BROKER, broker, [_SETTING])
        answer = admin.describe_configs([resource], config_filter="all")
        return bool(answer["broker"][broker][_SETTING]["value"] == "true")

    try:
        with translated("asking for the broker's settings"):
            return bounded(ask, connection.connect_timeout_s, "asking for the broker's settings")
    except (FatalError, BrokerUnavailable, LookupError):
        return False  # not authorised, or a broker that knows no such question
    finally:
        close_admin(admin)
