"""Which partition a key belongs to, as Kafka's own producers decide it."""

from functools import lru_cache

_MASK, _MIX, _SHIFT, _SEED = 0xFFFFFFFF, 0x5BD1E995, 24, 0x9747B28C


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a record with a key: murmur2, sign bit off, modulo.

    Tells nothing where the producer had a partitioner of its own, or where the topic has got more partitions since.
    librdkafka's default is another hash (CRC32); there it needs `partitioner=murmur2_random`.

        key          the record's key; a record without one goes where its producer likes
        partitions   partitions of the topic, at least 1
        result       from 0 to partitions - 1

    >>> partition_of(b"21", 10)
    0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Appleby, 2008), 32 bits, unsigned, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.

    >>> murmur2(b"foobar") - (1 << 32)  # Java's int is signed
    -790332482
    """
    body = len(data) & ~3
    mixed = (_SEED ^ len(data)) & _MASK
    for start in range(0, body, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MIX & _MASK
        word = (word ^ word >> _SHIFT) * _MIX & _MASK
        mixed = (mixed * _MIX & _MASK) ^ word
    if body < len(data):
        mixed = (mixed ^ int.from_bytes(data[body:], "little")) * _MIX & _MASK
    mixed = (mixed ^ mixed >> 13) * _MIX & _MASK
    return mixed ^ mixed >> 15
