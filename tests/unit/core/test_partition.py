import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.partition import murmur2, partition_of, share_of


@pytest.mark.parametrize(
    ("text", "expected"),
    # The values of Kafka's own UtilsTest.testMurmur2.
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected % 2**32


@given(st.text(max_size=20), st.integers(1, 100))
def test_a_key_has_one_partition_among_those_there_are(key: str, partitions: int) -> None:
    at = partition_of(key, partitions)
    assert at == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
    assert 0 <= at < partitions


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_shares_add_up_to_the_total_and_differ_by_one_at_most(total: int, partitions: int) -> None:
    shares = [share_of(total, partition, partitions) for partition in range(partitions)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
