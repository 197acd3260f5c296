"""Metadata taken from encoded bytes, against the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relive.schemas import Event, ExperienceRecorded, decode, encode
from relive.schemas.metadata_text import metadata_text

GOLDEN = Path(__file__).parents[2] / "golden"
TEXTS = st.text(max_size=200)
FLOATS = st.floats(allow_nan=False)
LONGS = st.integers(-(2**63), 2**63 - 1)
EVENTS = st.builds(
    ExperienceRecorded,
    event_id=st.binary(min_size=16, max_size=16),
    source=TEXTS,
    event_time_us=LONGS,
    experience_id=TEXTS,
    visual=st.none() | st.integers(0, 700).map(lambda n: bytes(range(1, 5)) * n),
    text=st.none() | st.integers(0, 700).map(lambda n: bytes(range(1, 5)) * n),
    question=TEXTS,
    input_uri=st.none() | TEXTS,
    input_sha256=st.none() | st.binary(min_size=32, max_size=32),
    trajectory=TEXTS,
    total_reward=FLOATS,
    final_answer=TEXTS,
    model_confidence=FLOATS,
    initial_priority=st.none() | FLOATS,
    episode_id=st.none() | TEXTS,
    step=st.none() | LONGS,
    metadata=st.text(max_size=9_000),
)


@given(EVENTS)
def test_it_is_what_the_decoder_finds(event: ExperienceRecorded) -> None:
    assert metadata_text(encode(event)) == event.metadata


def test_every_released_schema_of_an_experience_is_known_and_nothing_else_is(
    golden_events: dict[str, Event],
) -> None:
    for name, expected in golden_events.items():
        raw = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
        assert metadata_text(raw) == getattr(expected, "metadata", None), name


@given(st.integers(0, 400), st.binary(max_size=12))
def test_what_is_cut_off_or_damaged_is_never_read_beyond_its_end(cut: int, junk: bytes) -> None:
    raw = bytes.fromhex((GOLDEN / "ExperienceRecorded.v1.hex").read_text())
    for damaged in (raw[:cut], raw[:cut] + junk, junk, raw[:10] + junk):
        found: Any = metadata_text(damaged)
        assert found is None or found.encode("utf-8") in damaged


def test_a_cut_off_event_has_no_metadata() -> None:
    raw = bytes.fromhex((GOLDEN / "ExperienceRecorded.v1.hex").read_text())
    event = decode(raw)
    assert isinstance(event, ExperienceRecorded)
    assert raw.endswith(event.metadata.encode("utf-8"))
    assert {metadata_text(raw[:stop]) for stop in range(len(raw))} == {None}
