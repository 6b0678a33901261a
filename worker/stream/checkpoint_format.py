"""A partition's checkpoint as records of a compacted topic, and back.

Keys: `group|topic|partition|head` and `group|topic|partition|slot-N`, one for each slot of the score window. All of one
input partition stand in one partition of the state topic. A commit writes the slots that changed, then the head: a head
in the log means that its slots are there.

    slot   incarnation (8 bytes), next offset (8, big-endian), the slot as the threshold encoded it
    head   zlib of one JSON object: the small rest of the state, and what CheckpointHead lists

A head's slots have its incarnation and the newest next offset that is not beyond its own. Its digest tells whether all
of them are those that it was written with: a slot that an outdated process wrote late, one that was cut short or one
that compaction took is noticed, and the threshold is rebuilt instead of mixed.

Limits. The digest is an xor of CRC-32 sums: it notices accidents, not a person who forges records. Of each key the last
four values are kept while reading, so a process that was frozen for more than four commits and then writes costs a
rebuild. A reader of another format number rebuilds all thresholds, once.

>>> slots = {0: b"the first 1000 scores", 1: b"the next 1000"}
>>> head = CheckpointHead(
...     incarnation="0123456789abcdef", previous_offset=None, next_offset=2000, model="v1", fingerprint="f",
...     counters={"scored": 2000}, slots=2, digest=digest_of(checksums(slots)), threshold=b"{}")
>>> log = CheckpointLog()
>>> for index, data in slots.items():
...     log.add(f"slot-{index}", CheckpointSlot(head.incarnation, 2000, data).encode())
>>> log.add("head", head.encode())
>>> log.state(log.heads[-1]).slots == slots
True
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter, xor
from typing import Any, NamedTuple

import orjson

from worker.thresholds.partition import ThresholdState

FORMAT = 2
_SLOT = struct.Struct(">8sQ")  # incarnation, next offset


@dataclass(frozen=True, slots=True)
class CheckpointHead:
    """The small part of a checkpoint.

    incarnation      names an unbroken run of one threshold; another begins at a rebuild and at a model swap
    previous_offset  the group's committed offset when it was written, None where there was none
    next_offset      the first input offset that the state does not contain
    model            current version
    fingerprint      of schema, model and threshold settings
    counters         records of this partition since its first checkpoint: scored, alerts, dead_letters
    slots            number of slots
    digest           of all slots
    threshold        ThresholdState.head
    """

    incarnation: str
    previous_offset: int | None
    next_offset: int
    model: str
    fingerprint: str
    counters: Mapping[str, int]
    slots: int
    digest: int
    threshold: bytes

    def encode(self) -> bytes:
        """The record's value."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        fields |= {"format": FORMAT, "threshold": orjson.Fragment(self.threshold)}
        return zlib.compress(orjson.dumps(fields), 1)


class CheckpointSlot(NamedTuple):
    """One slot of a window in a checkpoint."""

    incarnation: str
    next_offset: int
    data: bytes

    def encode(self) -> bytes:
        """The record's value."""
        return _SLOT.pack(bytes.fromhex(self.incarnation), self.next_offset) + self.data

    @classmethod
    def of(cls, value: bytes) -> "CheckpointSlot":
        """What `encode` was given; struct.error when it is too short for one."""
        incarnation, next_offset = _SLOT.unpack_from(value)
        return cls(incarnation.hex(), next_offset, value[_SLOT.size :])


def decode_head(value: bytes) -> CheckpointHead:
    """What `CheckpointHead.encode` was given. ValueError when it is damaged or of another format."""
    try:
        fields = orjson.loads(zlib.decompress(value))
        if fields.pop("format") != FORMAT:
            raise ValueError("the checkpoint has another format")
        return CheckpointHead(**fields | {"threshold": orjson.dumps(fields["threshold"])})
    except (zlib.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the head of the checkpoint is damaged: {error!r}") from error


def checksums(slots: Mapping[int, bytes]) -> dict[int, int]:
    """A number for each slot in its place."""
    return {index: zlib.crc32(data, zlib.crc32(str(index).encode())) for index, data in slots.items()}


def digest_of(sums: Mapping[int, int]) -> int:
    """One number for all slots, from the checksum of each."""
    return reduce(xor, sums.values(), 0)


class CheckpointLog:
    """The last four checkpoint records of each key of one partition, in the order of the topic.

    More than the very last, because that can be one too new (its head did not make it) or one too old (a process that
    was frozen wrote it late).
    """

    def __init__(self) -> None:
        self.heads: list[CheckpointHead] = []
        self.slots: dict[int, list[CheckpointSlot]] = {}
        self.damaged: str | None = None

    @property
    def newest_offset(self) -> int:
        """The largest next offset of a head; -1 where there is none."""
        return max((head.next_offset for head in self.heads), default=-1)

    def add(self, name: str, value: bytes | None) -> None:
        """A record, by its key without the prefix; a tombstone forgets the key, foreign names are left out."""
        try:
            if name == "head":
                self.heads = [] if value is None else [*self.heads[-3:], decode_head(value)]
            elif name.startswith("slot-"):
                index = int(name.removeprefix("slot-"))
                self.slots[index] = [] if value is None else [*self.slots.get(index, [])[-3:], CheckpointSlot.of(value)]
        except struct.error:
            self.damaged = "a slot of the checkpoint is cut short"
        except ValueError as error:
            self.damaged = str(error)

    def state(self, head: CheckpointHead) -> ThresholdState:
        """The threshold that belongs to this head. ValueError when its slots are not those it was written with."""
        slots: dict[int, bytes] = {}
        for index, versions in self.slots.items():
            own = [s for s in versions if s.incarnation == head.incarnation and s.next_offset <= head.next_offset]
            if own:  # the latest of those with the newest offset
                slots[index] = max(reversed(own), key=attrgetter("next_offset")).data
        if len(slots) != head.slots:
            raise ValueError(f"{head.slots - len(slots)} slots of the checkpoint are missing")
        if digest_of(checksums(slots)) != head.digest:
            raise ValueError("the slots of the checkpoint are not those that its head was written with")
        return ThresholdState(head.threshold, slots)
