"""A partition's checkpoint as records of a compacted topic, and back.

Keys: `group|topic|partition|head` and `group|topic|partition|slot-N`, one for each slot of the score window. All of one
input partition stand in one partition of the state topic. A commit writes the slots that changed, then the head: a head
in the log means that its slots are there.

    slot   incarnation (8 bytes), next offset (8, big-endian), the slot as the threshold encoded it
    head   zlib of one JSON object: the small rest of the state, and what CheckpointHead lists

A head's slots have its incarnation and the newest next offset that is not beyond its own. Its digest tells whether all
of them are those that it was written with: a slot that an outdated process wrote late, one that was cut short or one
that compaction took is noticed, and the threshold is rebuilt instead of mixed.

A head is taken for what it is only where it stands: it names its group, topic, partition and the topic's id, and has a
checksum of its own. All of it is checked for type and range before anything uses it, and unpacked to MAX_HEAD_BYTES at
most. What is not sound is left out, and `damaged` says why.

Limits. Digest and checksum are CRC-32 sums: they notice accidents, not a person who forges records; but no checkpoint,
forged or not, decides where a partition is read on. Of each key the last four values are kept while reading, so a
process that was frozen for more than four commits and then writes costs a rebuild. A reader of another format number
rebuilds all thresholds, once.

>>> slots = {0: b"the first 1000 scores", 1: b"the next 1000"}
>>> head = CheckpointHead(
...     place="group|topic|0|", topic_id=None, is_later=False, incarnation="0123456789abcdef", previous_offset=None,
...     next_offset=2000, model="v1", fingerprint="f", counters={"scored": 2000}, slots=2,
...     digest=digest_of(checksums(slots)), threshold=b"{}")
>>> log = CheckpointLog("group|topic|0|", committed=2000)
>>> for index, data in slots.items():
...     log.add(f"slot-{index}", CheckpointSlot(head.incarnation, 2000, data).encode())
>>> log.add("head", head.encode())
>>> log.state(log.exact[-1]).slots == slots
True
"""

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import attrgetter, xor
from typing import Any, NamedTuple

import orjson

from worker.thresholds.partition import ThresholdState

FORMAT = 3
MAX_HEAD_BYTES = 4 << 20  # unpacked; an open stride of 100,000 records takes 2.5 MB of it, 256 open groups 0.5 MB
MAX_OFFSET = (1 << 63) - 1
MAX_SLOTS = 100_000
_SLOT = struct.Struct(">8sQ")  # incarnation, next offset
_INCARNATION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class CheckpointHead:
    """The small part of a checkpoint.

    place            group, topic and partition that it is of, as its key begins
    topic_id         of the topic that its records were read from; None where the broker told none
    is_later         whether the group has read an earlier topic of this name
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

    place: str
    topic_id: str | None
    is_later: bool
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
        body = orjson.dumps(fields | {"threshold": orjson.Fragment(self.threshold)})
        return zlib.compress(
            orjson.dumps({"format": FORMAT, "sum": zlib.crc32(body), "head": orjson.Fragment(body)}), 1
        )


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
        document = orjson.loads(_unpack(value))
        if document["format"] != FORMAT:
            raise ValueError("the checkpoint has another format")
        fields = document["head"]
        if zlib.crc32(orjson.dumps(fields)) != document["sum"]:
            raise ValueError("the head of the checkpoint is not as it was written")
        head = CheckpointHead(**fields | {"threshold": orjson.dumps(fields["threshold"])})
    except (zlib.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the head of the checkpoint is damaged: {error!r}") from error
    if wrong := [name for name, is_sound in _soundness(head, fields).items() if not is_sound]:
        raise ValueError(f"the head of the checkpoint is damaged: {', '.join(wrong)}")
    return head


def _unpack(value: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(value, MAX_HEAD_BYTES)
    if not unpacker.eof:
        fault = f"unpacks to more than {MAX_HEAD_BYTES} bytes" if unpacker.unconsumed_tail else "is cut short"
        raise ValueError(f"the head of the checkpoint {fault}")
    return unpacked


def _soundness(head: CheckpointHead, fields: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each of its values is of the type and in the range that an honest one has."""

    def is_count(value: Any, top: int = MAX_OFFSET) -> bool:
        return type(value) is int and 0 <= value <= top  # a bool is none

    counters = head.counters
    return {
        "place": isinstance(head.place, str),
        "topic_id": head.topic_id is None or isinstance(head.topic_id, str),
        "is_later": isinstance(head.is_later, bool),
        "incarnation": isinstance(head.incarnation, str) and bool(_INCARNATION.fullmatch(head.incarnation)),
        "previous_offset": head.previous_offset is None or is_count(head.previous_offset),
        "next_offset": is_count(head.next_offset),
        "model": isinstance(head.model, str),
        "fingerprint": isinstance(head.fingerprint, str),
        "counters": isinstance(counters, dict) and all(map(is_count, counters.values())),
        "slots": is_count(head.slots, MAX_SLOTS),
        "digest": is_count(head.digest, 0xFFFF_FFFF),
        "threshold": isinstance(fields["threshold"], dict),
    }


def checksums(slots: Mapping[int, bytes]) -> dict[int, int]:
    """A number for each slot in its place."""
    return {index: zlib.crc32(data, zlib.crc32(str(index).encode())) for index, data in slots.items()}


def digest_of(sums: Mapping[int, int]) -> int:
    """One number for all slots, from the checksum of each."""
    return reduce(xor, sums.values(), 0)


@dataclass(eq=False)
class CheckpointLog:
    """The last four checkpoint records of each key of one partition, in the order of the topic.

    More than the very last, because that can be one too new (its commit did not make it) or one too old (a process that
    was frozen wrote it late).

    place       group, topic and partition, as the keys begin
    topic_id    of the topic that is there now; None: not known
    committed   the group's offset; None: there is none, and no checkpoint can be of use
    heads       of this topic, whatever their offset
    exact       of these, the ones that end where the group has committed
    written     slots that have a value
    ahead       incarnations of which there is more than was committed
    earlier     id of the topic that the newest head is of, where it is not the one that is there now
    is_later    whether the group has read an earlier topic of this name
    damaged     what is wrong with a record
    """

    place: str
    topic_id: str | None = None
    committed: int | None = None
    heads: list[CheckpointHead] = field(default_factory=list, init=False)
    exact: list[CheckpointHead] = field(default_factory=list, init=False)
    slots: dict[int, list[CheckpointSlot]] = field(default_factory=dict, init=False)
    written: set[int] = field(default_factory=set, init=False)
    ahead: set[str] = field(default_factory=set, init=False)
    earlier: str | None = field(default=None, init=False)
    is_later: bool = field(default=False, init=False)
    damaged: str | None = field(default=None, init=False)

    @property
    def newest_offset(self) -> int:
        """The highest next offset of a head; -1 where there is none."""
        return max((head.next_offset for head in self.heads), default=-1)

    def add(self, name: str, value: bytes | None) -> None:
        """A record, by its key without the prefix; a tombstone forgets the key, foreign names are left out."""
        try:
            if name == "head":
                self._add_head(value)
            elif name.startswith("slot-"):
                self._add_slot(int(name.removeprefix("slot-")), value)
        except struct.error:
            self.damaged = "a slot of the checkpoint is cut short"
        except ValueError as error:
            self.damaged = str(error)

    def _add_head(self, value: bytes | None) -> None:
        if value is None:
            self.heads, self.exact = [], []
            return
        head = decode_head(value)
        if head.place != self.place:
            raise ValueError(f"the head of the checkpoint is of {head.place!r}")
        if None not in (head.topic_id, self.topic_id) and head.topic_id != self.topic_id:
            self.earlier, self.is_later = head.topic_id, True
            return
        self.earlier, self.is_later = None, self.is_later or head.is_later
        self.heads = [*self.heads[-3:], head]
        if head.next_offset == self.committed:
            self.exact = [*self.exact[-3:], head]
        self._note_ahead(head)

    def _add_slot(self, index: int, value: bytes | None) -> None:
        if not 0 <= index < MAX_SLOTS:
            raise ValueError(f"slot {index} is none of a checkpoint")
        if value is None:
            self.slots.pop(index, None)
            self.written.discard(index)
            return
        self.written.add(index)
        slot = CheckpointSlot.of(value)
        if not self._note_ahead(slot):
            self.slots[index] = [*self.slots.get(index, [])[-3:], slot]

    def _note_ahead(self, part: CheckpointHead | CheckpointSlot) -> bool:
        """Whether the group has not committed so far; what such a part holds is of no use."""
        is_ahead = self.committed is None or part.next_offset > self.committed
        if is_ahead:
            self.ahead.add(part.incarnation)
        return is_ahead

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
