"""Which partition a key belongs to: the Java client's default partitioner.

murmur2 as in Kafka's `org.apache.kafka.common.utils.Utils.murmur2`, so that a producer in any
language that keeps Kafka's default agrees with ours.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_WORDS = struct.Struct("<I").iter_unpack


def murmur2(data: bytes) -> int:
    """MurmurHash2 of the data, 32 bits, unsigned."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for (word,) in _WORDS(data[:whole]):
        k = (word * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_of(experience_id: str, partitions: int) -> int:
    """The partition, 0 to partitions - 1, of every event about the experience."""
    if partitions == 1:
        return 0
    return (murmur2(experience_id.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF) % partitions


def share_of(total: int, partition: int, partitions: int) -> int:
    """The partition's share of a total, so that the shares of all partitions add up to it."""
    return total // partitions + (1 if partition < total % partitions else 0)
