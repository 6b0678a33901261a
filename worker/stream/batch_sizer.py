"""How many records a batch may have, so that the loop polls often enough whatever is slow."""


class BatchSizer:
    """The size of the next batch: `most` while all goes well, fewer when a batch kept the loop busy for too long.

    longest_s: how long a batch may take from its scoring to its commit. Beyond the client's max_poll_interval_ms the
    member is thrown out of its group and its batch is read again: at the same size that would go on for ever.
    """

    def __init__(self, *, most: int, longest_s: float) -> None:
        self._most = most
        self._longest_s = longest_s
        self.size = most

    def took(self, records: int, seconds: float) -> bool:
        """A batch of so many records took so long. Whether the next one has to be smaller because of it."""
        before = self.size
        if seconds > self._longest_s:
            self.size = max(1, min(before, int(records * self._longest_s / seconds)))
        elif seconds <= self._longest_s / 2:
            self.size = min(self._most, before * 2)
        return self.size < before

    def halve(self) -> None:
        """A batch could not be delivered at all."""
        self.size = max(1, self.size // 2)
