"""The state topic: which partition holds what, and reading it back."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from worker.broker.base import RangeReader
from worker.records import Outgoing, Partition
from worker.stream.checkpoint_format import Log, key_prefix

WAIT_S = 0.2
CLOSE_S = 1.0
LAST_OFFSET = 1 << 62


class MakeReader(Protocol):
    """Builds a reader of the state topic. May raise BrokerUnavailable, FatalError."""

    def __call__(self, *, read_committed: bool) -> RangeReader:
        """read_committed: leave out what open and aborted transactions wrote."""


class CheckpointChangelog:
    """Saved state of all partitions of a group, in one topic.

    State of input partition p stands in partition p of the topic; p modulo its partitions where it has fewer.
    transactional: written in transactions. patience_s: how long to wait for one of the last owner's to end.
    beat: called while waiting.
    """

    def __init__(
        self,
        make_reader: MakeReader,
        *,
        topic: str,
        group_id: str,
        transactional: bool,
        beat: Callable[[], None] = lambda: None,
        patience_s: float = 30.0,
    ) -> None:
        self._make_reader = make_reader
        self._topic = topic
        self._group_id = group_id
        self._transactional = transactional
        self._beat = beat
        self._patience_s = patience_s
        self._places = 0

    def record(self, partition: Partition, name: str, value: bytes | None) -> Outgoing:
        """A record to publish; `read` has been called before."""
        key = f"{key_prefix(self._group_id, partition)}{name}".encode()
        return Outgoing(self._topic, key, value, partition=self._place(partition))

    def read(
        self, partitions: Collection[Partition], committed: Mapping[Partition, int | None]
    ) -> dict[Partition, Log]:
        """The saved state of these partitions, one pass over the partitions of the topic that hold them.

        committed: offsets that were committed before this call; in transactions, the state is at least as new.
        Raises MissingTopic, BrokerUnavailable (after the reader's timeout without an answer), FatalError.
        """
        reader = self._make_reader(read_committed=self._transactional)
        try:
            self._places = len(reader.partitions(self._topic))
            logs = self._read_once(reader, partitions)
            if self._transactional and any(_is_behind(log, committed[key]) for key, log in logs.items()):
                # A transaction's offsets can be visible a little before its records are.
                self._wait_for_open_transactions(reader)
                logs = self._read_once(reader, partitions)
        finally:
            reader.close(CLOSE_S)
        return logs

    def _read_once(self, reader: RangeReader, partitions: Collection[Partition]) -> dict[Partition, Log]:
        logs = {partition: Log() for partition in partitions}
        prefixes = {key_prefix(self._group_id, partition): log for partition, log in logs.items()}
        places = {Partition(self._topic, self._place(partition)) for partition in partitions}
        for batch in reader.read(dict.fromkeys(places, (0, LAST_OFFSET))):
            for message in batch:
                prefix, bar, name = (message.key or b"").decode(errors="replace").rpartition("|")
                log = prefixes.get(prefix + bar)
                if log is not None:
                    log.add(name, message.value)
            self._beat()
        return logs

    def _wait_for_open_transactions(self, committed_reader: RangeReader) -> None:
        reader = self._make_reader(read_committed=False)
        try:
            wanted = reader.end_offsets(self._topic)
        finally:
            reader.close(CLOSE_S)
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            ends = committed_reader.end_offsets(self._topic)
            if all(ends[partition] >= end for partition, end in wanted.items()):
                return
            self._beat()
            time.sleep(WAIT_S)

    def _place(self, partition: Partition) -> int:
        return partition.partition % self._places


def _is_behind(log: Log, committed: int | None) -> bool:
    newest = max((head.next_offset for head in log.heads), default=-1)
    return committed is not None and newest < committed
