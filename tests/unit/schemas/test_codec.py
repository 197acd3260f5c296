import io
import tracemalloc
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from relive.errors import UndecodableEvent
from relive.schemas import (
    BufferCleared,
    Event,
    ExperienceRecorded,
    ExperienceRetired,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    PriorityUpdated,
    SettingsChanged,
    decode,
    encode,
)
from relive.schemas.codec import (
    CONFLUENT_MARKER,
    HEADER_BYTES,
    MAX_EVENT_BYTES,
    SINGLE_OBJECT_MARKER,
)
from relive.schemas.events import EVENT_TYPES
from relive.schemas.released import current_schema, released_schemas

TEXT = st.text(max_size=40)
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
FLOAT = st.floats(allow_nan=False)  # NaN travels too, but is not equal to itself
HEAD: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.binary(min_size=16, max_size=16),
    "source": TEXT,
    "event_time_us": INT64,
}
EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    ExperienceRecorded: st.builds(
        ExperienceRecorded,
        **HEAD,
        experience_id=TEXT,
        visual=st.none() | st.binary(max_size=64),
        text=st.none() | st.binary(max_size=64),
        question=TEXT,
        input_uri=st.none() | TEXT,
        input_sha256=st.none() | st.binary(min_size=32, max_size=32),
        trajectory=TEXT,
        total_reward=FLOAT,
        final_answer=TEXT,
        model_confidence=FLOAT,
        initial_priority=st.none() | FLOAT,
        episode_id=st.none() | TEXT,
        step=st.none() | INT64,
        metadata=TEXT,
    ),
    OutcomeReported: st.builds(
        OutcomeReported,
        **HEAD,
        experience_id=TEXT,
        retrieval_id=st.none() | TEXT,
        success=st.booleans(),
        reward=st.none() | FLOAT,
        revision=INT64,
    ),
    ExperiencesRetrieved: st.builds(
        ExperiencesRetrieved,
        **HEAD,
        retrieval_id=TEXT,
        kind=TEXT,
        experience_ids=st.lists(TEXT).map(tuple),
        scores=st.lists(FLOAT).map(tuple),
        seed=st.none() | INT64,
        positions=st.lists(INT64).map(tuple),
    ),
    PriorityUpdated: st.builds(
        PriorityUpdated, **HEAD, experience_id=TEXT, priority=FLOAT, expected_version=INT64
    ),
    PrioritiesUpdated: st.builds(
        PrioritiesUpdated,
        **HEAD,
        experience_ids=st.lists(TEXT).map(tuple),
        priorities=st.lists(FLOAT).map(tuple),
        expected_versions=st.lists(INT64).map(tuple),
    ),
    ExperienceRetired: st.builds(ExperienceRetired, **HEAD, experience_id=TEXT, reason=TEXT),
    BufferCleared: st.builds(BufferCleared, **HEAD, reason=TEXT),
    SettingsChanged: st.builds(
        SettingsChanged,
        **HEAD,
        reason=TEXT,
        capacity=INT64,
        eviction_policy=TEXT,
        visual_dim=st.none() | INT32,
        text_dim=st.none() | INT32,
        confidence_weight=FLOAT,
        reward_weight=FLOAT,
        age_weight=FLOAT,
        priority_floor=FLOAT,
        half_life_s=FLOAT,
    ),
}
ANY_EVENT = st.one_of(*EVENTS.values())
HEADERS = st.sampled_from([SINGLE_OBJECT_MARKER + s.fingerprint for s in released_schemas()])


def varint(number: int) -> bytes:
    """Avro's long: zigzag, seven bits a byte."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def header(name: str) -> bytes:
    return SINGLE_OBJECT_MARKER + current_schema(name).fingerprint


def decode_or_refuse(raw: bytes) -> Event | None:
    """The event, or None where it was refused in the one way that is allowed."""
    try:
        event = decode(raw)
    except UndecodableEvent:
        return None
    assert isinstance(event, EVENT_TYPES)
    return event


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.__name__)
def test_every_event_comes_back_as_it_went(event_type: type[Event]) -> None:
    @given(EVENTS[event_type])
    def comes_back(event: Event) -> None:
        back = decode(encode(event))
        assert back == event
        assert type(back) is event_type
        assert [type(value) for value in back] == [type(value) for value in event]

    comes_back()


@given(ANY_EVENT)
def test_a_body_is_what_fastavro_writes(event: Event) -> None:
    schema = current_schema(type(event).__name__)
    body = io.BytesIO()
    schemaless_writer(body, schema.parsed, event._asdict())
    assert encode(event)[HEADER_BYTES:] == body.getvalue()


def test_a_value_that_does_not_fit_its_field_is_refused() -> None:
    event = BufferCleared(b"0" * 16, "source", 1, "reason")
    with pytest.raises(ValueError, match="5 bytes for a field of 16"):
        encode(event._replace(event_id=b"short"))
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        encode(event._replace(event_time_us=2**63))


def test_a_record_starts_with_the_marker_and_the_fingerprint() -> None:
    raw = encode(BufferCleared(b"i" * 16, "s", 1, ""))
    assert raw.hex() == "c301" + "60267e4fb8634fd0" + "69" * 16 + "0273" + "02" + "00"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    assert decode_or_refuse(raw) is None


@given(HEADERS, st.binary(max_size=200))
def test_arbitrary_bodies_are_an_event_or_refused(head: bytes, body: bytes) -> None:
    decode_or_refuse(head + body)


@given(ANY_EVENT, st.data())
def test_a_record_cut_short_is_refused(event: Event, data: st.DataObject) -> None:
    raw = encode(event)
    kept = data.draw(st.integers(0, len(raw) - 1))
    assert decode_or_refuse(raw[:kept]) is None


@given(ANY_EVENT, st.binary(min_size=1, max_size=20))
def test_a_record_with_bytes_after_it_is_refused(event: Event, more: bytes) -> None:
    assert decode_or_refuse(encode(event) + more) is None


@given(ANY_EVENT, st.data())
def test_flipped_bits_give_an_event_or_are_refused(event: Event, data: st.DataObject) -> None:
    raw = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    decode_or_refuse(bytes(raw))


@given(ANY_EVENT, st.data())
def test_bytes_put_in_anywhere_give_an_event_or_are_refused(
    event: Event, data: st.DataObject
) -> None:
    raw = encode(event)
    at = data.draw(st.integers(10, len(raw)))
    huge = varint(data.draw(st.sampled_from([2**31, 2**62, -1, -(2**62), -(2**63)])))
    decode_or_refuse(raw[:at] + huge + raw[at + data.draw(st.integers(0, 9)) :])


BEFORE_IDS = b"i" * 16 + varint(1) + b"s" + varint(5) + varint(1) + b"r" + varint(1) + b"k"

BEFORE_PRIORITIES = b"i" * 16 + varint(1) + b"s" + varint(5)


@pytest.mark.parametrize(
    "raw",
    [
        header("BufferCleared") + b"i" * 16 + varint(2**62),
        header("BufferCleared") + b"i" * 16 + varint(-8) + b"abc",
        header("BufferCleared") + b"i" * 16 + b"\xff" * 50_000,
        header("ExperiencesRetrieved") + BEFORE_IDS + varint(2**62),
        header("ExperiencesRetrieved") + BEFORE_IDS + varint(-(2**62)) + varint(2**62),
        header("ExperiencesRetrieved") + BEFORE_IDS + varint(-(2**63)) + varint(1),
        header("ExperiencesRetrieved") + BEFORE_IDS + varint(50_000) + b"\x00" * 50_000,
        header("ExperiencesRetrieved") + BEFORE_IDS + (varint(1) + b"\x00") * 25_000,
        header("PrioritiesUpdated") + BEFORE_PRIORITIES + varint(2**62),
        header("PrioritiesUpdated") + BEFORE_PRIORITIES + varint(-(2**63)) + varint(1),
        header("PrioritiesUpdated") + BEFORE_PRIORITIES + varint(50_000) + b"\x00" * 50_000,
    ],
    ids=lambda raw: raw[26:40].hex(),
)
def test_lengths_that_lie_cost_little_memory(raw: bytes) -> None:
    decode_or_refuse(raw)  # what the first call imports and caches is not counted
    tracemalloc.start()
    try:
        decode_or_refuse(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000 + 30 * len(raw)


def test_a_record_above_the_limit_is_refused_without_a_look_inside() -> None:
    whole = BufferCleared(b"i" * 16, "s", 1, "x" * MAX_EVENT_BYTES)
    with pytest.raises(UndecodableEvent, match="longer than"):
        decode(encode(whole))


def test_an_unknown_fingerprint_is_named() -> None:
    with pytest.raises(UndecodableEvent, match="unknown schema fingerprint 0102030405060708"):
        decode(SINGLE_OBJECT_MARKER + bytes(range(1, 9)) + b"body")


def test_confluent_framing_is_read_with_the_schema_of_its_id(
    golden_events: dict[str, Event], golden_bytes: dict[str, bytes]
) -> None:
    for schema in released_schemas():
        name = f"{schema.name}.v{schema.version}"
        framed = CONFLUENT_MARKER + (258).to_bytes(4, "big") + golden_bytes[name][10:]
        assert decode(framed, {258: schema}) == golden_events[name]


def test_confluent_framing_of_an_unknown_id_is_refused() -> None:
    with pytest.raises(UndecodableEvent, match="unknown registry schema id 7"):
        decode(CONFLUENT_MARKER + (7).to_bytes(4, "big") + b"body", {8: released_schemas()[0]})
    with pytest.raises(UndecodableEvent, match="unknown registry schema id 7"):
        decode(CONFLUENT_MARKER + (7).to_bytes(4, "big") + b"body")


def test_the_refusal_is_short_and_keeps_the_bytes() -> None:
    raw = bytes(1) + bytes(range(256)) * 100
    with pytest.raises(UndecodableEvent) as refused:
        decode(raw)
    assert refused.value.raw == raw
    assert len(str(refused.value)) < 200
