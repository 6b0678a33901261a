"""A partition's threshold as records of a compacted topic, and back.

Keys: `group|topic|partition|head` and `group|topic|partition|slot-N`, one for each slot of the score window. All of one
input partition stand in one partition of the state topic. A commit writes the slots that changed, then the head: a head
in the log means that its slots are there.

    slot   life (8 bytes), next offset (8, big-endian), the slot as the threshold encoded it
    head   zlib of one JSON object: the small rest of the threshold, and what Head lists

A head's slots have its life and the newest next offset that is not beyond its own. Its digest tells whether all of them
are those that it was written with: a slot that an outdated process wrote late, one that was cut short or one that
compaction took is noticed, and the threshold is rebuilt instead of mixed.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Any, NamedTuple

import orjson

from worker.records import Partition
from worker.thresholds.partition import ThresholdState

FORMAT = 1
LIFE_BYTES = 8
_OFFSET_BYTES = 8


@dataclass(frozen=True, slots=True)
class Head:
    """The small part of a saved threshold.

    life        names an unbroken run of one threshold; another begins at a rebuild and at a model swap
    came_from   the group's committed offset when it was written, None where there was none
    next_offset the first input offset that the state does not contain
    model       version in force; fingerprint: of schema, model and threshold settings
    counters    records of this partition since its first state: scored, alerts, dead_letters
    slots       number of slots; digest: of all of them
    threshold   ThresholdState.head
    """

    life: str
    came_from: int | None
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


class Slot(NamedTuple):
    """One saved slot of a window."""

    life: str
    next_offset: int
    data: bytes

    def encode(self) -> bytes:
        """The record's value."""
        return bytes.fromhex(self.life) + self.next_offset.to_bytes(_OFFSET_BYTES, "big") + self.data


def decode_head(value: bytes) -> Head:
    """What `Head.encode` was given. ValueError when it is damaged or of another format."""
    try:
        fields = orjson.loads(zlib.decompress(value))
        if fields.pop("format") != FORMAT:
            raise ValueError("the saved state has another format")
        threshold = orjson.dumps(fields.pop("threshold"))
        return Head(**fields, threshold=threshold)
    except (zlib.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the head of the saved state is damaged: {error!r}") from error


def decode_slot(value: bytes) -> Slot:
    """What `Slot.encode` was given; ValueError when it is too short for one."""
    if len(value) < LIFE_BYTES + _OFFSET_BYTES:
        raise ValueError("a slot of the saved state is cut short")
    life, offset = value[:LIFE_BYTES], value[LIFE_BYTES : LIFE_BYTES + _OFFSET_BYTES]
    return Slot(life.hex(), int.from_bytes(offset, "big"), value[LIFE_BYTES + _OFFSET_BYTES :])


def key_prefix(group_id: str, partition: Partition) -> str:
    """What all keys of one input partition begin with."""
    return f"{group_id}|{partition.topic}|{partition.partition}|"


def digest_of(slots: Mapping[int, int]) -> int:
    """One number for all slots, from the checksum of each."""
    return reduce(xor, slots.values(), 0)


def checksum(index: int, data: bytes) -> int:
    """A number for one slot in its place."""
    return zlib.crc32(data, zlib.crc32(str(index).encode()))


class Log:
    """The latest saved records of one partition, in the order of the log.

    More than the very last of each key, because the last can be one too new (its head did not make it) or one too old
    (a process that was frozen wrote it late).
    """

    KEPT = 4

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.slots: dict[int, list[Slot]] = {}
        self.damaged: str | None = None

    def add(self, name: str, value: bytes | None) -> None:
        """A record, by its key without the prefix; a tombstone forgets the key, foreign names are left out."""
        try:
            if name == "head":
                self.heads = [] if value is None else [*self.heads, decode_head(value)][-self.KEPT :]
            elif name.startswith("slot-"):
                index = int(name.removeprefix("slot-"))
                known = self.slots.get(index, [])
                self.slots[index] = [] if value is None else [*known, decode_slot(value)][-self.KEPT :]
        except ValueError as error:
            self.damaged = str(error)

    def state(self, head: Head) -> ThresholdState:
        """The threshold that belongs to this head. ValueError when its slots are not those it was written with."""
        slots: dict[int, bytes] = {}
        for index, versions in self.slots.items():
            fitting = [slot for slot in versions if slot.life == head.life and slot.next_offset <= head.next_offset]
            if fitting:
                slots[index] = max(reversed(fitting), key=lambda slot: slot.next_offset).data
        if len(slots) != head.slots:
            raise ValueError(f"{head.slots - len(slots)} slots of the saved state are missing")
        if digest_of(checksums(slots.items())) != head.digest:
            raise ValueError("the slots of the saved state are not those that its head was written with")
        return ThresholdState(head.threshold, slots)

    def indices(self) -> set[int]:
        """The slots that have a value."""
        return {index for index, versions in self.slots.items() if versions}


def checksums(slots: Iterable[tuple[int, bytes]]) -> dict[int, int]:
    """The checksum of each slot."""
    return {index: checksum(index, data) for index, data in slots}
