"""What the sidecar tells the world: logs, metrics and health listen here."""

from worker.records import Partition
from worker.trainer.trainer import Verdict


class Reports:
    """Called on the trainer's thread; this one ignores everything."""

    def read(self, records: int) -> None:
        """Records were read from the topic."""

    def passed_over(self, partition: Partition, records: int) -> None:
        """Records were left out, since more came than the trainer reads in a step."""

    def looked(self, verdict: Verdict, seconds: float) -> None:
        """A look was taken."""

    def champion(self, version: str, why: str) -> None:
        """Another version is current."""

    def vetoed(self, version: str, why: str) -> None:
        """A person vetoed the held candidate: its traffic is not ordinary."""

    def outrun(self, version: str, why: str) -> None:
        """Somebody else changed the current version first; this candidate stays in the store."""

    def forgot(self, why: str) -> None:
        """What was remembered can't be used; the window begins anew."""

    def not_saved(self, why: str) -> None:
        """The window could not be saved; a restart would begin with an older one."""
