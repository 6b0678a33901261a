"""What the loop tells the world: logs, metrics and health listen here."""

from collections.abc import Collection

from worker.errors import StoreError, TransientError, WorkerError
from worker.records import Outcome, Partition
from worker.trial.probation import Verdict
from worker.trial.shadow import Difference, Tally


class Events:
    """Called on the loop's thread, between two steps; must not block. This one ignores everything."""

    def beat(self) -> None:
        """The loop is alive: after every poll."""

    def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
        """A batch was delivered and committed."""

    def rebalanced(self, assigned: Collection[Partition], revoked: Collection[Partition]) -> None:
        """Partitions came or went."""

    def state_restored(self, partition: Partition, next_offset: int) -> None:
        """A partition's threshold goes on from its saved state, which holds up to this offset."""

    def state_rebuilt(self, partition: Partition, why: str) -> None:
        """A partition's threshold starts again from the calibration, since its saved state can't be used."""

    def swapped(self, old: str, new: str) -> None:
        """Another model version scores from here on."""

    def retrying(self, error: TransientError, attempt: int) -> None:
        """Nothing was committed and the same step is tried again."""

    def dropped(self, records: int, why: str) -> None:
        """A batch was put down before it was committed: whoever owns its partitions reads it again."""

    def shortened(self, records: int) -> None:
        """Results were larger than the broker takes and went out cut down and marked."""

    def slowed(self, records: int, seconds: float) -> None:
        """A batch took so long that the next ones have at most so many records."""


class ModelEvents:
    """What becomes of model versions. Must not block; the first three are called on the watcher's thread, the others on
    the loop's. This one ignores everything."""

    def refused(self, version: str, error: WorkerError) -> None:
        """A version can't be used, the one in force stays; "?" where the store can't even say which."""

    def store_unavailable(self, error: StoreError) -> None:
        """The store is away; it is asked again."""

    def rolled_back_in_store(self, left: str, current: str) -> None:
        """The store has the version before a rejected one as the current one."""

    def probation_began(self, version: str, before: str) -> None:
        """A version has to prove itself against the one that it follows."""

    def probation_ended(self, verdict: Verdict) -> None:
        """It stays, or the one before it takes over again."""

    def probation_dropped(self, version: str) -> None:
        """Another version has taken over that has nothing to prove."""

    def shadow_began(self, candidate: str, beside: str | None) -> None:
        """A candidate is compared with the version in force; with none (None) once it is that version itself."""

    def shadowed(self, tally: Tally) -> None:
        """The sample of a batch was scored by the candidate, too."""

    def compared(self, difference: Difference) -> None:
        """Enough was sampled for a report."""
