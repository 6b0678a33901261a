"""How a group shares its partitions out."""

from collections.abc import Sequence
from typing import Any, Final

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from worker.registry import Registry

Assignor = str
"""The name of one of ASSIGNORS."""


def _static_first(members: Sequence[Any]) -> list[Any]:
    """kafka-python 3.0.12 forgets members where static and dynamic ones alternate: they get no partitions."""
    return sorted(members, key=lambda member: member.group_instance_id is None)


class Range(RangePartitionAssignor):  # type: ignore[misc]  # kafka-python ships no types
    """Neighbouring partitions for each member."""

    @classmethod
    def assign(cls, cluster: Any, members: Sequence[Any]) -> Any:
        """The partitions of each member."""
        return super().assign(cluster, _static_first(members))


class RoundRobin(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Partitions in turn."""

    @classmethod
    def assign(cls, cluster: Any, members: Sequence[Any]) -> Any:
        """The partitions of each member."""
        return super().assign(cluster, _static_first(members))


ASSIGNORS: Final[Registry[Any]] = Registry("assignor")
ASSIGNORS.register("range", Range)
ASSIGNORS.register("roundrobin", RoundRobin)
ASSIGNORS.register("cooperative-sticky", CooperativeStickyAssignor)
