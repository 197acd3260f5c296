"""The state of one partition: typed access to its tables, its counters and its digest.

| table          | key after the partition (2 bytes)        | value                             |
|----------------|------------------------------------------|-----------------------------------|
| `meta`         |                                          | sealed JSON: position, counters, …|
| `ids`          | blake2b-128 of the experience id         | position, 8 bytes                 |
| `rows`         | position, 8 bytes                        | `pack_row`                        |
| `payloads`     | position                                 | the record's bytes, as in the log |
| `weakest`      | ageless weight (sortable), position      | empty; only under lowest_priority |
| `uses`         | position, blake2b-128 of the register    | `Use`                             |
| `parked`       | blake2b-128 of the experience id, number | the outcome's bytes               |
| `parked_order` | number, 8 bytes                          | key in `parked`                   |
| `recent`       | number of the chunk, 8 bytes             | event ids, 16 bytes each          |
| `quarantine`   | position                                 | reason, then the record's bytes   |

Numbers in keys are big-endian, so that byte order is their order. Positions are in keys only:
the digest covers values, and stays the same when a log is copied to other positions.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

from relive.core.recent_ids import RecentIds, unpack_ids
from relive.core.row import Row, pack_row, packed_id, unpack_row
from relive.core.sealed import sealed, unsealed
from relive.core.settings import EvictionPolicy, PriorityWeights, Settings
from relive.core.tail import Later, Table, Tail
from relive.errors import StateDamaged, StoreError

# Changed whenever the same log would give another state: older states are then rebuilt.
FOLD_VERSION = 2

RECENT_CHUNK = 1_000
MAX_REASON_BYTES = 1_000
OLDEST_AHEAD = 1_000

_PARTITION = struct.Struct(">H")
_NUMBER = struct.Struct(">Q")
_USE = struct.Struct("<qbd")
_DIGEST_MODULUS = 2**128


@dataclass(slots=True)
class Counters:
    """What happened in a partition since its log began; survives clearing.

    Attributes:
        size: live experiences.
        additions: experiences recorded.
        retrievals: distinct (retrieval, experience) pairs counted.
        outcomes: outcomes counted, one per retrieval and experience.
        evictions: removed for capacity.
        removals: removed by a person or a policy.
        clears: clearings.
        repeats: events seen before, and experiences recorded again with the same content.
        conflicts: experiences recorded again with other content.
        parked: outcomes waiting for their experience.
        orphans: outcomes and retrievals whose experience never came, or is gone.
        priority_updates, stale_updates, unknown_updates: of trainers.
        quarantined: events that could not be folded.
    """

    size: int = 0
    additions: int = 0
    retrievals: int = 0
    outcomes: int = 0
    evictions: int = 0
    removals: int = 0
    clears: int = 0
    repeats: int = 0
    conflicts: int = 0
    parked: int = 0
    orphans: int = 0
    priority_updates: int = 0
    stale_updates: int = 0
    unknown_updates: int = 0
    quarantined: int = 0


class Use(NamedTuple):
    """What is known of one retrieval of one experience.

    Attributes:
        revision: of the outcome.
        outcome: -1 none known, 0 failure, 1 success.
        reward: of the outcome; -inf for none.
    """

    revision: int
    outcome: int
    reward: float


class Recorded(NamedTuple):
    """What recorded live experiences: positions, and the bytes of the records."""

    positions: Sequence[int]
    payloads: Sequence[bytes]


class PackedRows(NamedTuple):
    """Live rows as they are stored: their positions, and see `pack_row`."""

    positions: Sequence[int]
    packed: Sequence[bytes]


class PartitionState:
    """The state of one partition at one position. Not safe for writing from two threads.

    Attributes:
        partition, partitions: which one, of how many.
        position: the next position to fold.
        settings: in force.
        counters: what happened so far.
        recent: ids of the last events.
    """

    def __init__(self, tables: Tail, partition: int, partitions: int) -> None:
        self._tables = tables
        self._prefix = _PARTITION.pack(partition)
        self.partition = partition
        self.partitions = partitions
        self.position = 0
        self.settings = Settings()
        self.counters = Counters()
        self.recent = RecentIds()
        self._next_parked = 0
        self._oldest_hint = 0
        self._oldest: deque[int] = deque()
        self._id_keys: dict[str, bytes] = {}  # of what was read ahead
        self._digest = 0
        self._quarantine_sum = 0
        self._saved_recent_end = 0
        self._saved_recent_start = 0
        self._load()

    # What a commit needs

    def save(self) -> None:
        """Write what is kept in memory to the tables; call before every commit."""
        self._save_recent()
        meta = {
            "fold_version": FOLD_VERSION,
            "partitions": self.partitions,
            "position": self.position,
            "next_parked": self._next_parked,
            "oldest_hint": self._oldest_hint,
            "recent_end": self.recent.end,
            "digest": f"{self._digest:032x}",
            "quarantine": f"{self._quarantine_sum:032x}",
            "settings": asdict(self.settings),
            "counters": asdict(self.counters),
        }
        self._tables.put(Table.META, self._prefix, sealed(json.dumps(meta).encode()))

    def _load(self) -> None:
        raw = self._tables.get(Table.META, self._prefix)
        if raw is not None:
            self._restore(json.loads(unsealed(raw, f"the summary of partition {self.partition}")))

    def _restore(self, meta: dict[str, Any]) -> None:
        if meta["fold_version"] != FOLD_VERSION or meta["partitions"] != self.partitions:
            raise StoreError(
                f"the state was made by fold version {meta['fold_version']} over "
                f"{meta['partitions']} partitions, this is version {FOLD_VERSION} over "
                f"{self.partitions}; start with an empty state directory to rebuild it"
            )
        self.position = meta["position"]
        self._next_parked = meta["next_parked"]
        self._oldest_hint = meta["oldest_hint"]
        self._digest = int(meta["digest"], 16)
        self._quarantine_sum = int(meta["quarantine"], 16)
        settings = meta["settings"]
        settings["weights"] = PriorityWeights(**settings["weights"])
        settings["eviction_policy"] = EvictionPolicy(settings["eviction_policy"])
        self.settings = Settings(**settings)
        self.counters = Counters(**meta["counters"])
        ids = [
            event_id for _, chunk in self._scan_all(Table.RECENT) for event_id in unpack_ids(chunk)
        ]
        self.recent = RecentIds(meta["recent_end"], ids)
        self._saved_recent_end = self.recent.end
        self._saved_recent_start = self.recent.start

    def _save_recent(self) -> None:
        recent = self.recent
        first_chunk = max(self._saved_recent_end, recent.start) // RECENT_CHUNK
        for chunk in range(first_chunk, -(-recent.end // RECENT_CHUNK)):
            start = max(chunk * RECENT_CHUNK, recent.start)
            stop = min((chunk + 1) * RECENT_CHUNK, recent.end)
            self._tables.put(Table.RECENT, self._number_key(chunk), recent.packed(start, stop))
        for chunk in range(self._saved_recent_start // RECENT_CHUNK, recent.start // RECENT_CHUNK):
            self._tables.delete(Table.RECENT, self._number_key(chunk))
        self._saved_recent_end, self._saved_recent_start = recent.end, recent.start

    def digest(self) -> str:
        """32 hexadecimal digits that are equal for equal states, wherever the records lie.

        Rows, uses, parked outcomes and quarantined events enter as a sum of hashes, so that it
        can be kept up to date by adding and subtracting (Bellare and Micciancio's AdHash).
        """
        counters = asdict(self.counters)
        del counters["repeats"]  # how often something was sent again changes nothing else
        rest = json.dumps(
            [
                FOLD_VERSION,
                f"{self._digest:032x}",
                f"{self.recent.digest:032x}",
                asdict(self.settings),
                counters,
            ],
            sort_keys=True,
        )
        return blake2b(rest.encode(), digest_size=16).hexdigest()

    def check(self) -> None:
        """Compare what is stored with its digest, and what rows are found by with the rows.

        Not payloads: the store vouches for them.

        Raises:
            StateDamaged: they differ.
        """
        rows = {key[2:]: packed for key, packed in self._scan_all(Table.ROWS)}
        found = sum(map(_hash_number, rows.values()))
        by_hash = {_hash16(packed_id(packed)): at for at, packed in rows.items()}
        if by_hash != {key[2:]: at for key, at in self._scan_all(Table.IDS)}:
            raise self._damaged(Table.IDS)
        if not self.counters.size == len(rows) == len(by_hash):
            raise self._damaged(Table.ROWS)
        for key, packed in self._scan_all(Table.USES):
            row = rows.get(key[2:10])
            if row is None:
                raise self._damaged(Table.USES)
            found += _hash_number(_use_identity(packed_id(row), key, packed))
        found += sum(_hash_number(raw) for _, raw in self._scan_all(Table.PARKED))
        found += sum(_hash_number(raw) for _, _, raw in self.quarantined())
        if found % _DIGEST_MODULUS != self._digest:
            raise self._damaged(Table.ROWS, Table.USES, Table.PARKED, Table.QUARANTINE)
        waiting = dict(self._scan_all(Table.PARKED_ORDER))
        parked = {key for key, _ in self._scan_all(Table.PARKED)}
        if set(waiting.values()) != parked or any(k[2:] != v[-8:] for k, v in waiting.items()):
            raise self._damaged(Table.PARKED_ORDER)
        self._check_weakest()
        set_aside = sum(_hash_number(k + v) for k, v in self._scan_all(Table.QUARANTINE))
        if set_aside % _DIGEST_MODULUS != self._quarantine_sum:
            raise self._damaged(Table.QUARANTINE)
        chunks = range(self.recent.start // RECENT_CHUNK, -(-self.recent.end // RECENT_CHUNK))
        if [key for key, _ in self._scan_all(Table.RECENT)] != [*map(self._number_key, chunks)]:
            raise self._damaged(Table.RECENT)

    def _check_weakest(self) -> None:
        kept = {key for key, _ in self._scan_all(Table.WEAKEST)}
        by_priority = self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY
        if kept != ({self._weakest_key(row) for row in self.rows()} if by_priority else set()):
            raise self._damaged(Table.WEAKEST)

    def _damaged(self, *tables: Table) -> StateDamaged:
        names = ", ".join(tables)
        return StateDamaged(f"partition {self.partition}: {names} do not match the digest")

    # Rows

    def read_ahead(self, experience_ids: Iterable[str]) -> None:
        """Look up at once what will be asked for one by one."""
        self._id_keys = keys = {
            experience_id: self._prefix + hash16(experience_id) for experience_id in experience_ids
        }
        found = self._tables.read_ahead(Table.IDS, keys.values())
        self._tables.read_ahead(Table.ROWS, [self._prefix + at for at in found if at is not None])

    def has_none_of(self, experience_ids: Iterable[str]) -> bool:
        """Whether none of the experiences is live."""
        found = self._tables.get_many(Table.IDS, list(map(self._id_key, experience_ids)))
        return found.count(None) == len(found)

    def row(self, experience_id: str) -> Row | None:
        """The live row of an experience."""
        found = self._tables.get(Table.IDS, self._id_key(experience_id))
        return None if found is None else self.row_at(_NUMBER.unpack(found)[0])

    def rows_of(self, experience_ids: Sequence[str]) -> dict[str, Row]:
        """The live rows of experiences, of those that have one."""
        wanted = list(dict.fromkeys(experience_ids))
        keys = [self._prefix + hash16(experience_id) for experience_id in wanted]
        places = self._tables.get_many(Table.IDS, keys)
        there = [(i, place) for i, place in zip(wanted, places, strict=True) if place is not None]
        packed = self._tables.get_many(Table.ROWS, [self._prefix + place for _, place in there])
        return {
            experience_id: unpack_row(self.partition, _NUMBER.unpack(place)[0], row)
            for (experience_id, place), row in zip(there, packed, strict=True)
            if row is not None
        }

    def row_at(self, position: int) -> Row | None:
        """The live row of the experience recorded at a position."""
        packed = self._tables.get(Table.ROWS, self._number_key(position))
        return None if packed is None else unpack_row(self.partition, position, packed)

    def rows(self) -> Iterator[Row]:
        """The live rows, oldest first."""
        start = self._number_key(self._oldest_hint)
        for key, packed in self._tables.scan(Table.ROWS, start, _after(self._prefix)):
            yield unpack_row(self.partition, _NUMBER.unpack(key[2:])[0], packed)

    def packed_rows(self, at_once: int, start: int = 0) -> Iterator[PackedRows]:
        """The live rows as stored, oldest first.

        Args:
            at_once: rows in each of what is returned.
            start: position of the first.
        """
        first = self._number_key(max(start, self._oldest_hint))
        rows = self._tables.scan(Table.ROWS, first, _after(self._prefix))
        while some := list(islice(rows, at_once)):
            keys, packed = zip(*some, strict=True)
            yield PackedRows([_NUMBER.unpack_from(key, 2)[0] for key in keys], packed)

    def recorded(self, at_once: int, start: int = 0) -> Iterator[Recorded]:
        """Positions and records of the live experiences, oldest first; as `packed_rows`.

        Raises:
            StateDamaged: a row has no record, or a record no row.
        """
        first = self._number_key(max(start, self._oldest_hint))
        payloads = self._tables.scan(Table.PAYLOADS, first, _after(self._prefix))
        for some in self.packed_rows(at_once, start):
            theirs = list(islice(payloads, len(some.positions)))
            if [self._number_key(at) for at in some.positions] != [key for key, _ in theirs]:
                raise self._damaged(Table.ROWS, Table.PAYLOADS)
            yield Recorded(some.positions, [payload for _, payload in theirs])
        if next(payloads, None) is not None:
            raise self._damaged(Table.ROWS, Table.PAYLOADS)

    def live(self, positions: Sequence[int]) -> list[tuple[bytes, Later] | None]:
        """The packed row of each experience and what reads its record, or None if it is not live.

        It is read as recorded, also when the experience is gone by then.
        """
        keys = [self._number_key(position) for position in positions]
        rows = self._tables.get_many(Table.ROWS, keys)
        payloads = self._tables.get_later(Table.PAYLOADS, keys)
        return [
            None if packed is None or payload is None else (packed, payload)
            for packed, payload in zip(rows, payloads, strict=True)
        ]

    def payload(self, position: int) -> bytes | None:
        """The bytes of the record at a position, if its experience is live."""
        return self._tables.get(Table.PAYLOADS, self._number_key(position))

    def add_rows(
        self,
        positions: Sequence[int],
        experience_ids: Sequence[str],
        packed: Sequence[bytes],
        payloads: Sequence[bytes],
    ) -> None:
        """Add new rows: where each is, of which experience, see `pack_row`, and its record."""
        prefix = self._prefix
        numbers = list(map(_NUMBER.pack, positions))
        keys = [prefix + number for number in numbers]
        ids = map(self._id_key, experience_ids)
        self._tables.put_many(Table.IDS, zip(ids, numbers, strict=True))
        self._tables.put_many(Table.ROWS, zip(keys, packed, strict=True))
        self._tables.put_many(Table.PAYLOADS, zip(keys, payloads, strict=True))
        self._digest = (self._digest + sum(map(_hash_number, packed))) % _DIGEST_MODULUS
        if self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
            for position, row in zip(positions, packed, strict=True):
                self._index_weakest(unpack_row(self.partition, position, row))
        self.counters.size += len(packed)

    def change_row(self, old: Row, new: Row) -> None:
        """Put a row in place of its former self."""
        packed = pack_row(new)
        self._tables.put(Table.ROWS, self._number_key(new.position), packed)
        self._take_from_digest(pack_row(old))
        self._add_to_digest(packed)
        self._unindex_weakest(old)
        self._index_weakest(new)

    def remove_row(self, row: Row) -> None:
        """Remove a row with all that hangs on it."""
        key = self._number_key(row.position)
        self._tables.delete(Table.IDS, self._id_key(row.experience_id))
        self._tables.delete(Table.ROWS, key)
        self._tables.delete(Table.PAYLOADS, key)
        self._take_from_digest(pack_row(row))
        self._unindex_weakest(row)
        if row.retrieval_count:
            for use_key, packed in list(self._tables.scan(Table.USES, key, _after(key))):
                self._tables.delete(Table.USES, use_key)
                self._take_from_digest(_use_identity(_id(row), use_key, packed))
        self.counters.size -= 1

    def eviction_candidate(self) -> Row:
        """The row that gives way next; the partition has at least one."""
        if self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
            stop = _after(self._prefix)
            key, _ = next(self._tables.scan(Table.WEAKEST, self._prefix, stop))
            row = self.row_at(_NUMBER.unpack(key[-8:])[0])
            assert row is not None
            return row
        while True:
            if not self._oldest:
                # Many at once: every scan has to put the tail's keys in order first.
                start, stop = self._number_key(self._oldest_hint), _after(self._prefix)
                rows = self._tables.scan_ahead(Table.ROWS, start, stop, OLDEST_AHEAD)
                self._oldest.extend(_NUMBER.unpack_from(key, 2)[0] for key, _ in rows)
            position = self._oldest.popleft()
            row = self.row_at(position)
            if row is not None:
                # All rows before it are gone, and none will come: positions rise.
                self._oldest_hint = position
                self._oldest.appendleft(position)
                return row

    # Uses

    def use(self, row: Row, register: bytes) -> Use | None:
        """What is known of one use of a row."""
        packed = self._tables.get(Table.USES, self._number_key(row.position) + register)
        return None if packed is None else Use(*_USE.unpack(packed))

    def put_use(self, row: Row, register: bytes, old: Use | None, new: Use) -> None:
        """Put what is now known of one use of a row."""
        key = self._number_key(row.position) + register
        packed = _USE.pack(*new)
        self._tables.put(Table.USES, key, packed)
        if old is not None:
            self._take_from_digest(_use_identity(_id(row), key, _USE.pack(*old)))
        self._add_to_digest(_use_identity(_id(row), key, packed))

    # Parked outcomes

    def park(self, experience_id: str, raw: bytes) -> None:
        """Keep an outcome whose experience is not here."""
        number = _NUMBER.pack(self.recent.end)
        key = self._prefix + hash16(experience_id) + number
        self._tables.put(Table.PARKED, key, raw)
        self._tables.put(Table.PARKED_ORDER, self._prefix + number, key)
        self._add_to_digest(raw)
        self.counters.parked += 1

    def unpark(self, experience_id: str) -> list[bytes]:
        """Take the outcomes that waited for an experience, in the order they came."""
        if not self.counters.parked:
            return []
        start = self._prefix + hash16(experience_id)
        waiting = list(self._tables.scan(Table.PARKED, start, _after(start)))
        for key, raw in waiting:
            self._drop_parked(key, raw)
        return [raw for _, raw in waiting]

    def expire_parked(self, before: int) -> int:
        """Drop the outcomes parked before that many events were folded; returns how many."""
        if not self.counters.parked or before <= 0:
            return 0
        start = self._number_key(self._next_parked)
        expired = list(self._tables.scan(Table.PARKED_ORDER, start, self._number_key(before)))
        for _, key in expired:
            raw = self._tables.get(Table.PARKED, key)
            assert raw is not None
            self._drop_parked(key, raw)
        self._next_parked = before
        return len(expired)

    def _drop_parked(self, key: bytes, raw: bytes) -> None:
        self._tables.delete(Table.PARKED, key)
        self._tables.delete(Table.PARKED_ORDER, self._prefix + key[-8:])
        self._take_from_digest(raw)
        self.counters.parked -= 1

    # Quarantine

    def quarantine(self, position: int, reason: str, raw: bytes) -> None:
        """Keep an event that could not be folded, with the reason."""
        said = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
        key, value = self._number_key(position), _PARTITION.pack(len(said)) + said + raw
        self._tables.put(Table.QUARANTINE, key, value)
        # Where and why are not of the state's digest, and still to be found as they were left.
        self._quarantine_sum = (self._quarantine_sum + _hash_number(key + value)) % _DIGEST_MODULUS
        self._add_to_digest(raw)
        self.counters.quarantined += 1

    def quarantined(self) -> Iterator[tuple[int, str, bytes]]:
        """Position, reason and bytes of every event in quarantine."""
        for key, value in self._scan_all(Table.QUARANTINE):
            end = 2 + _PARTITION.unpack(value[:2])[0]
            yield _NUMBER.unpack(key[2:])[0], value[2:end].decode("utf-8", "replace"), value[end:]

    # Settings

    def adopt(self, settings: Settings) -> None:
        """Put other settings in force."""
        before = self.settings
        self.settings = settings
        if (before.eviction_policy, before.weights) == (settings.eviction_policy, settings.weights):
            return
        for key, _ in list(self._scan_all(Table.WEAKEST)):
            self._tables.delete(Table.WEAKEST, key)
        if settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
            for row in list(self.rows()):
                self._index_weakest(row)

    def fix_dimensions(self, visual_dim: int | None, text_dim: int | None) -> None:
        """Fix dimensions that were open."""
        self.settings = replace(self.settings, visual_dim=visual_dim, text_dim=text_dim)

    # Encoding

    def _index_weakest(self, row: Row) -> None:
        if self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
            self._tables.put(Table.WEAKEST, self._weakest_key(row), b"")

    def _unindex_weakest(self, row: Row) -> None:
        if self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
            self._tables.delete(Table.WEAKEST, self._weakest_key(row))

    def _weakest_key(self, row: Row) -> bytes:
        weights = self.settings.weights
        weight = max(row.ageless_priority(weights), weights.floor) * row.factor
        # Non-negative IEEE 754 numbers sort as their big-endian bytes do.
        return self._prefix + struct.pack(">d", weight) + _NUMBER.pack(row.position)

    def _id_key(self, experience_id: str) -> bytes:
        return self._id_keys.get(experience_id) or self._prefix + hash16(experience_id)

    def _number_key(self, number: int) -> bytes:
        return self._prefix + _NUMBER.pack(number)

    def _scan_all(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        return self._tables.scan(table, self._prefix, _after(self._prefix))

    def _add_to_digest(self, value: bytes) -> None:
        self._digest = (self._digest + _hash_number(value)) % _DIGEST_MODULUS

    def _take_from_digest(self, value: bytes) -> None:
        self._digest = (self._digest - _hash_number(value)) % _DIGEST_MODULUS


def partition_keys(partition: int) -> tuple[bytes, bytes]:
    """The keys of a partition, in every table: from the first to before the second."""
    prefix = _PARTITION.pack(partition)
    return prefix, _after(prefix)


def combined_digest(states: list[PartitionState]) -> str:
    """The digest of all partitions together."""
    return joined_digest([state.digest() for state in states])


def joined_digest(digests: Sequence[str]) -> str:
    """The digest of all partitions together, of theirs in order."""
    return blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def hash16(text: str) -> bytes:
    """16 bytes that stand for a text in keys, whose length LMDB limits."""
    # "surrogatepass": reads may ask for ids that no experience can have.
    return _hash16(text.encode("utf-8", "surrogatepass"))


def _hash16(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()


def _hash_number(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=16).digest(), "little")


def _id(row: Row) -> bytes:
    return row.experience_id.encode("utf-8")


def _use_identity(experience_id: bytes, use_key: bytes, packed: bytes) -> bytes:
    return experience_id + use_key[-16:] + packed


def _after(prefix: bytes) -> bytes:
    """The first key that is greater than every key with the prefix."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
