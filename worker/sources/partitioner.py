"""Which partition a key belongs to, as Kafka's own producers decide it."""

from functools import lru_cache

_MASK, _MIX, _SHIFT, _SEED = 0xFFFFFFFF, 0x5BD1E995, 24, 0x9747B28C


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions`, by murmur2 as in Kafka's default partitioner."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, unsigned, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    whole = len(data) & ~3
    mixed = (_SEED ^ len(data)) & _MASK
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MIX & _MASK
        word = (word ^ word >> _SHIFT) * _MIX & _MASK
        mixed = (mixed * _MIX & _MASK) ^ word
    if whole < len(data):
        mixed = (mixed ^ int.from_bytes(data[whole:], "little")) * _MIX & _MASK
    mixed = (mixed ^ mixed >> 13) * _MIX & _MASK
    return mixed ^ mixed >> 15
