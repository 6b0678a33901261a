"""How many records the next batch may have, by how long the last ones took."""

from dataclasses import dataclass


@dataclass(eq=False, kw_only=True)
class BatchSizer:
    """The size of the next batch: the maximum while all goes well, less after a batch that took too long.

    A member that does not poll for max_poll_interval_ms is thrown out of its group, and its batch is read again: at
    the same size that would never end. A batch that took longer than `max_batch_s` sets the size to what would have
    fitted into it, in proportion; one that took up to half of it doubles the size; in between nothing changes.

    It assumes that time grows with the number of records. After a batch that was slow for another reason, such as a
    broker that hung for a minute, the next ones are small for nothing: from 1 back to 8,192 takes 13 batches.

    max_records  size at the start, and at most
    max_batch_s  seconds that a batch may take from its scoring to its commit

    >>> sizer = BatchSizer(max_records=1000, max_batch_s=10.0)
    >>> sizer.adapt(1000, 40.0), sizer.size
    (True, 250)
    >>> sizer.adapt(250, 2.0), sizer.size
    (False, 500)
    """

    max_records: int
    max_batch_s: float

    def __post_init__(self) -> None:
        self.size = self.max_records

    def adapt(self, records: int, seconds: float) -> bool:
        """A batch of so many records took so long. Whether the next one has to be smaller because of it."""
        before = self.size
        if seconds > self.max_batch_s:
            self.size = max(1, min(before, int(records * self.max_batch_s / seconds)))
        elif seconds <= self.max_batch_s / 2:
            self.size = min(self.max_records, before * 2)
        return self.size < before

    def halve(self, records: int) -> None:
        """A batch of so many records could not be delivered at all; its bytes may have kept it small."""
        self.size = max(1, min(self.size, records) // 2)
