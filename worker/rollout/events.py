"""What becomes of model versions: logs and metrics listen here."""

from worker.errors import StoreError, WorkerError
from worker.rollout.canary import CanaryVerdict
from worker.rollout.shadow import ShadowCounts, ShadowReport


class ModelEvents:
    """What becomes of model versions. Must not block; the first three are called on the watcher's thread, the others on
    the loop's. This one ignores everything."""

    def refused(self, version: str, error: WorkerError) -> None:
        """A version can't be used, the one in force stays; "?" where the store can't even say which."""

    def store_unavailable(self, error: StoreError) -> None:
        """The store is away; it is asked again."""

    def rolled_back_in_store(self, left: str, current: str) -> None:
        """The store has the version before a rejected one as the current one."""

    def canary_began(self, version: str, before: str) -> None:
        """A version has to prove itself against the one that it follows."""

    def canary_ended(self, verdict: CanaryVerdict) -> None:
        """It stays, or the one before it takes over again."""

    def canary_dropped(self, version: str) -> None:
        """Another version has taken over that has nothing to prove."""

    def shadow_began(self, candidate: str, beside: str | None) -> None:
        """A candidate is compared with the version in force; with none (None) once it is that version itself."""

    def shadowed(self, tally: ShadowCounts) -> None:
        """The sample of a batch was scored by the candidate, too."""

    def compared(self, difference: ShadowReport) -> None:
        """Enough was sampled for a report."""
