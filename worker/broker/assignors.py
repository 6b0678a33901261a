"""How a group shares its partitions out."""

from collections.abc import Sequence
from typing import Any, Final

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from worker.registry import Registry


def _static_first(assignor: Any) -> Any:
    """The assignor, shown static members first.

    kafka-python 3.0.12 forgets members where static and dynamic ones alternate: they get no partitions.
    """

    class StaticFirst(assignor):  # type: ignore[misc]  # kafka-python ships no types
        @classmethod
        def assign(cls, cluster: Any, members: Sequence[Any]) -> Any:
            return super().assign(cluster, sorted(members, key=lambda member: member.group_instance_id is None))

    return StaticFirst


ASSIGNORS: Final[Registry[Any]] = Registry("assignor")
ASSIGNORS.register("range", _static_first(RangePartitionAssignor))
ASSIGNORS.register("roundrobin", _static_first(RoundRobinPartitionAssignor))
ASSIGNORS.register("cooperative-sticky", CooperativeStickyAssignor)
