"""Frames come out as they went in, however the bytes are cut; other bytes are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.index_service.gpu_frames import MAX_PAYLOAD_BYTES, Frame, Frames, Kind

frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=200),
)


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 1_500), max_size=8))
def test_frames_come_out_as_they_went_in(sent: list[Frame], cuts: list[int]) -> None:
    raw = b"".join(frame.to_bytes() for frame in sent)
    ends = sorted({*(cut for cut in cuts if cut < len(raw)), len(raw)})
    reader, came, start = Frames(), list[Frame](), 0
    for end in ends:
        came.extend(reader.feed(raw[start:end]))
        start = end
    assert came == sent


@given(frames, st.binary(min_size=4, max_size=4))
def test_what_does_not_begin_like_a_frame_is_refused(frame: Frame, begin: bytes) -> None:
    raw = frame.to_bytes()
    if begin == raw[:4]:
        return
    with pytest.raises(ValueError, match="no frame"):
        list(Frames().feed(begin + raw[4:]))


@pytest.mark.parametrize(
    "raw",
    [
        Frame(Kind.FOUND).to_bytes()[:4] + b"\x99" + Frame(Kind.FOUND).to_bytes()[5:],
        Frame(Kind.FOUND, payload=bytes(MAX_PAYLOAD_BYTES + 1)).to_bytes(),
    ],
    ids=["unknown kind", "too long"],
)
def test_kinds_and_lengths_that_there_are_not_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"frame|Kind"):
        list(Frames().feed(raw))


def test_the_bytes_of_a_frame_stay_as_they_are() -> None:
    raw = Frame(Kind.TOP, 2, 3, 4, b"\x00\x00\x80?").to_bytes()
    assert raw.hex() == ("524c4731040000000400000002000000000000000300000000000000040000000000803f")
