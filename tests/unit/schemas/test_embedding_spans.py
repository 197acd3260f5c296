from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.errors import UndecodableEvent
from relive.schemas import Event, ExperienceRecorded, decode, encode
from relive.schemas.embedding_spans import EmbeddingSpans, embedding_spans

GOLDEN = Path(__file__).parents[2] / "golden"
FLOATS = st.none() | st.integers(1, 700).map(lambda n: bytes(range(1, 5)) * n)


def event(**fields: Any) -> ExperienceRecorded:
    raw = bytes.fromhex((GOLDEN / "ExperienceRecorded.v1.hex").read_text())
    found = decode(raw)
    assert isinstance(found, ExperienceRecorded)
    return found._replace(**fields)


def in_spans(raw: bytes, spans: EmbeddingSpans) -> tuple[bytes | None, bytes | None]:
    visual = raw[spans.visual_start : spans.visual_stop] or None
    return visual, raw[spans.text_start : spans.text_stop] or None


@given(
    source=st.text(max_size=100),
    event_time_us=st.integers(-(2**63), 2**63 - 1),
    experience_id=st.text(min_size=1, max_size=100),
    visual=FLOATS,
    text=FLOATS,
)
def test_they_are_where_the_decoder_finds_them(
    source: str,
    event_time_us: int,
    experience_id: str,
    visual: bytes | None,
    text: bytes | None,
) -> None:
    raw = encode(
        event(
            source=source,
            event_time_us=event_time_us,
            experience_id=experience_id,
            visual=visual,
            text=text,
        )
    )
    spans = embedding_spans(raw)
    assert spans is not None
    assert in_spans(raw, spans) == (visual, text)


def test_every_released_schema_of_an_experience_is_known(golden_events: dict[str, Event]) -> None:
    """One whose beginning differs has to be decoded: then this says so."""
    for name, expected in golden_events.items():
        raw = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
        spans = embedding_spans(raw)
        if isinstance(expected, ExperienceRecorded):
            assert spans is not None
            assert in_spans(raw, spans) == (expected.visual, expected.text)
        else:
            assert spans is None


@pytest.mark.parametrize("raw", [b"", b"not an event", b"\x00\x00\x00\x00\x01rest", b"\xc3\x01"])
def test_what_is_no_experience_has_none(raw: bytes) -> None:
    assert embedding_spans(raw) is None


@given(st.data())
def test_damage_never_leads_beyond_the_end(data: st.DataObject) -> None:
    raw = bytearray(encode(event(visual=bytes(40), text=bytes(8))))
    del raw[data.draw(st.integers(0, len(raw))) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    spans = embedding_spans(bytes(raw))
    if spans is not None:
        assert 0 <= spans.visual_start <= spans.visual_stop <= len(raw)
        assert 0 <= spans.text_start <= spans.text_stop <= len(raw)
        try:
            found = decode(bytes(raw))
        except UndecodableEvent:
            return
        assert isinstance(found, ExperienceRecorded)
        assert in_spans(bytes(raw), spans) == (found.visual or None, found.text or None)
