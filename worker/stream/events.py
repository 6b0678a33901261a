"""What the loop tells the world: logs, metrics and health listen here."""

from collections.abc import Collection

from worker.broker.base import Offsets
from worker.errors import TransientError
from worker.records import Outcome, Partition


class Events:
    """Called on the loop's thread, between two steps; must not block. This one ignores everything."""

    def beat(self) -> None:
        """The loop is alive: after every poll."""

    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        """A batch was delivered and committed."""

    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        """Partitions came or went."""

    def began(self, starts: Offsets) -> None:
        """The group had committed nothing of these partitions, and begins at these offsets."""

    def checkpoint_restored(self, partition: Partition, next_offset: int) -> None:
        """A partition's threshold goes on from its checkpoint, which holds up to this offset."""

    def checkpoint_rebuilt(self, partition: Partition, why: str) -> None:
        """A partition's threshold starts again from the calibration, since its checkpoint can't be used."""

    def swapped(self, old: str, new: str) -> None:
        """Another model version scores from here on."""

    def retrying(self, error: TransientError, attempt: int) -> None:
        """Nothing was committed and the same step is tried again."""

    def dropped(self, records: int, why: str) -> None:
        """A batch was put down before it was committed: whoever owns its partitions reads it again."""

    def unreadable(self, partition: Partition, first_offset: int, last_offset: int, why: str) -> None:
        """Records that can't be read were passed over, from the first of these offsets to the last."""

    def shortened(self, records: int) -> None:
        """Results were larger than the broker takes and went out cut down and marked."""

    def slowed(self, records: int, seconds: float) -> None:
        """A batch took so long that the next ones have at most so many records."""
