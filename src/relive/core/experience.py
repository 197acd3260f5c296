"""An experience as users see it, and its way into and out of an event."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from relive.core.document import check_json, check_unicode, from_json, to_json
from relive.core.settings import MAX_DIM
from relive.errors import FieldError, InvalidExperience
from relive.schemas.events import ExperienceRecorded

Vector = npt.NDArray[np.float32]
VectorLike = npt.ArrayLike

MAX_ID_BYTES = 512
_INT64_MAX = 2**63 - 1
_FLOAT32 = np.dtype("<f4")  # looking the name up takes longer than making an array

# Keeps the squares and products of embeddings far from where float32 overflows.
_MAX_SQUARED_LENGTH = 1e30

# The top byte of a float32 is its sign and seven of the eight bits of its exponent: with t in the
# seven, it is smaller than 2**(2*t - 125), and MAX_DIM of them are not too long.
_EXPONENTS_OF_PLAIN_NUMBERS = bytes(
    top for top in range(256) if MAX_DIM * 4.0 ** (2 * (top & 0x7F) - 125) <= _MAX_SQUARED_LENGTH
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Experience:
    """What an agent saw, did, and got for it.

    Attributes:
        id: 1 to 512 bytes of UTF-8; generated when left out.
        visual, text: embeddings, one-dimensional, finite, stored as float32; at least one is given.
        question: what was asked, or a short description of the input.
        trajectory: actions taken, a list of maps.
        total_reward: finite.
        model_confidence: 0 to 1.
        final_answer, metadata: None, bool, int, float, str, lists and string-keyed maps of these.
        initial_priority: takes the place of the confidence and reward terms; at least 0.
        episode_id, step: the place within an episode.
        input_uri, input_sha256: where an input too large for an event lies, and its checksum.
        timestamp: event time in microseconds since the epoch; now when left out.
        retrieval_count, success_count, success_rate, priority: what has come of it; filled in by
            reads, ignored by writes.
    """

    id: str | None = None
    visual: VectorLike | None = None
    text: VectorLike | None = None
    question: str = ""
    trajectory: Sequence[Mapping[str, Any]] = field(default_factory=list)
    total_reward: float = 0.0
    model_confidence: float = 0.5
    final_answer: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    initial_priority: float | None = None
    episode_id: str | None = None
    step: int | None = None
    input_uri: str | None = None
    input_sha256: bytes | None = None
    timestamp: int | None = None
    retrieval_count: int = 0
    success_count: int = 0
    success_rate: float = 0.0
    priority: float | None = None


def recorded_event(
    experience: Experience,
    *,
    event_id: bytes,
    source: str,
    new_id: Callable[[], str],
    now_us: int,
) -> ExperienceRecorded:
    """The event that records the experience.

    Args:
        experience: what to record.
        event_id: 16 bytes, unique.
        source: which producer instance records it.
        new_id: makes the id of an experience that has none.
        now_us: the event time to use where the experience has none, microseconds.

    Raises:
        InvalidExperience: a field is outside what `Experience` documents.
    """
    e = experience
    if not isinstance(e, Experience):
        raise InvalidExperience("experience", e, "must be a relive.buffer.Experience")
    visual = embedding_bytes("visual", e.visual, InvalidExperience)
    text = embedding_bytes("text", e.text, InvalidExperience)
    if visual is None and text is None:
        raise InvalidExperience("visual, text", None, "give at least one embedding")
    sha256 = e.input_sha256
    if sha256 is not None and (not isinstance(sha256, bytes) or len(sha256) != 32):
        raise InvalidExperience("input_sha256", sha256, "must be the 32 bytes of a SHA-256")
    priority, episode_id = e.initial_priority, e.episode_id
    # In the order of the fields: by their names it takes 0.4 µs more.
    return ExperienceRecorded(
        event_id,
        source,
        now_us if e.timestamp is None else _timestamp(e.timestamp),
        checked_id("id", new_id() if e.id is None else e.id),
        visual,
        text,
        checked_text("question", e.question),
        None if e.input_uri is None else checked_text("input_uri", e.input_uri),
        sha256,
        _trajectory(e.trajectory),
        finite("total_reward", e.total_reward),
        to_json("final_answer", e.final_answer),
        confidence("model_confidence", e.model_confidence),
        None if priority is None else not_negative("initial_priority", priority),
        None if episode_id is None else checked_text("episode_id", episode_id),
        None if e.step is None else _whole("step", e.step, 0),
        _map("metadata", e.metadata),
    )


def experience_from(
    event: ExperienceRecorded,
    *,
    retrieval_count: int = 0,
    success_count: int = 0,
    success_rate: float = 0.0,
    priority: float | None = None,
) -> Experience:
    """The experience that an event recorded, with what has come of it."""
    return Experience(
        id=event.experience_id,
        visual=vector_from(event.visual),
        text=vector_from(event.text),
        question=event.question,
        trajectory=from_json(event.trajectory),  # type: ignore[arg-type]
        total_reward=event.total_reward,
        model_confidence=event.model_confidence,
        final_answer=from_json(event.final_answer),
        metadata=from_json(event.metadata),  # type: ignore[arg-type]
        initial_priority=event.initial_priority,
        episode_id=event.episode_id,
        step=event.step,
        input_uri=event.input_uri,
        input_sha256=event.input_sha256,
        timestamp=event.event_time_us,
        retrieval_count=retrieval_count,
        success_count=success_count,
        success_rate=success_rate,
        priority=priority,
    )


def check_recorded(event: ExperienceRecorded) -> None:
    """Refuse an event that no careful producer would have sent.

    Raises:
        InvalidExperience: a field is outside what `Experience` documents.
    """
    checked_id("id", event.experience_id)
    if event.visual is None and event.text is None:
        raise InvalidExperience("visual, text", None, "give at least one embedding")
    if event.visual is not None:
        _check_embedding("visual", event.visual)
    if event.text is not None:
        _check_embedding("text", event.text)
    if not (
        -math.inf < event.total_reward < math.inf
        and 0.0 <= event.model_confidence <= 1.0
        and 0.0 <= (event.initial_priority or 0.0) < math.inf
        and event.event_time_us >= 0
        and (event.step or 0) >= 0
    ):
        _refuse_numbers(event)
    # An experience that cannot be read back would fail every search that finds it.
    check_json("trajectory", event.trajectory, list)
    check_json("final_answer", event.final_answer, object)
    check_json("metadata", event.metadata, dict)


def _check_embedding(name: str, raw: bytes) -> None:
    if not raw or len(raw) % 4:
        raise InvalidExperience(name, raw[:8], "must be whole float32 numbers")
    _check_finite(name, raw, InvalidExperience)


def _refuse_numbers(event: ExperienceRecorded) -> None:
    """Say which of the numbers of an event it is that cannot be."""
    finite("total_reward", event.total_reward)
    confidence("model_confidence", event.model_confidence)
    if event.initial_priority is not None:
        not_negative("initial_priority", event.initial_priority)
    _timestamp(event.event_time_us)
    if event.step is not None:
        _whole("step", event.step, 0)


# Lengths of the texts and byte strings; step and the three numbers; which optional fields are
# there.
_CONTENT = struct.Struct("<10Iq3d7?")


def content_digest(event: ExperienceRecorded) -> bytes:
    """16 bytes that are equal for equal content: everything but event_id, source and event time.

    A field that a later schema adds must enter only where it differs from its default, so that the
    content of an old experience keeps its digest.
    """
    (
        _event_id,
        _source,
        _event_time_us,
        experience_id,
        visual,
        text,
        question,
        input_uri,
        input_sha256,
        trajectory,
        total_reward,
        final_answer,
        model_confidence,
        initial_priority,
        episode_id,
        step,
        metadata,
    ) = event
    identity, asked, done = experience_id.encode(), question.encode(), trajectory.encode()
    answer, more = final_answer.encode(), metadata.encode()
    uri = input_uri.encode() if input_uri else b""
    episode = episode_id.encode() if episode_id else b""
    checksum, seen, read = input_sha256 or b"", visual or b"", text or b""
    head = _CONTENT.pack(
        len(identity),
        len(seen),
        len(read),
        len(asked),
        len(uri),
        len(checksum),
        len(done),
        len(answer),
        len(episode),
        len(more),
        step or 0,
        total_reward,
        model_confidence,
        initial_priority or 0.0,
        visual is not None,
        text is not None,
        input_uri is not None,
        input_sha256 is not None,
        initial_priority is not None,
        episode_id is not None,
        step is not None,
    )
    values = head, identity, seen, read, asked, uri, checksum, done, answer, episode, more
    return sha256(b"".join(values)).digest()[:16]  # the fastest where CPUs have it


def embedding_bytes(
    field_name: str, vector: VectorLike | None, error: type[FieldError]
) -> bytes | None:
    """The embedding as little-endian float32 bytes; None stays None.

    Raises:
        error: not one-dimensional, empty, not numeric, too long, not finite (as float32).
    """
    if vector is None:
        return None
    if type(vector) is np.ndarray and vector.dtype is _FLOAT32 and vector.ndim == 1:
        raw = vector.tobytes()
        if 0 < len(raw) <= 4 * MAX_DIM and _is_plain(raw):
            return raw  # as most are
    try:
        given = np.asarray(vector)
    except ValueError as cause:  # ragged nested lists
        raise error(field_name, vector, "must be a one-dimensional array of numbers") from cause
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        raise error(
            field_name,
            f"array of shape {given.shape}, dtype {given.dtype}",
            "must be a one-dimensional array of numbers",
        )
    return _embedding_bytes(field_name, given, error)


def _embedding_bytes(field_name: str, vector: npt.NDArray[Any], error: type[FieldError]) -> bytes:
    if not 1 <= vector.size <= MAX_DIM:
        raise error(field_name, f"{vector.size} numbers", f"dimensions are 1 to {MAX_DIM}")
    if vector.dtype is not _FLOAT32:
        with np.errstate(over="ignore"):  # an overflow is found below, as infinity
            vector = vector.astype(_FLOAT32)
    raw = vector.tobytes()
    _check_finite(field_name, raw, error)
    return raw


def embedding_dims(event: ExperienceRecorded) -> dict[str, int]:
    """The dimensions of the embeddings that an event has, by field."""
    dims = {}
    if event.visual is not None:
        dims["visual"] = len(event.visual) // 4
    if event.text is not None:
        dims["text"] = len(event.text) // 4
    return dims


def vector_from(raw: bytes | None) -> Vector | None:
    """The embedding in an event's bytes, float32 of shape (dim,), read-only."""
    return None if raw is None else np.frombuffer(raw, dtype=_FLOAT32)


def _is_plain(raw: bytes) -> bool:
    # A look at the byte with sign and exponent of every number tells almost always that all is
    # well. NumPy would let go of the interpreter for the microsecond that it takes, and a thread
    # that waits for it wakes up in vain: a Publisher ran at half its speed.
    return not raw[3::4].translate(None, _EXPONENTS_OF_PLAIN_NUMBERS)


def _check_finite(field_name: str, raw: bytes, error: type[FieldError]) -> None:
    if _is_plain(raw):
        return
    vector = np.frombuffer(raw, dtype=_FLOAT32)
    # One pass instead of isfinite().all(), and vdot because dot warns of an overflow.
    if not float(np.vdot(vector, vector)) <= _MAX_SQUARED_LENGTH:
        bad = np.flatnonzero(~np.isfinite(vector))
        if bad.size:
            at = int(bad[0])
            raise error(f"{field_name}[{at}]", float(vector[at]), "numbers must be finite")
        longest = f"embeddings are at most {math.sqrt(_MAX_SQUARED_LENGTH):.0e} long"
        raise error(field_name, f"numbers up to {np.abs(vector).max():g}", longest)


def checked_id(field_name: str, value: object) -> str:
    """An id of 1 to 512 bytes of UTF-8.

    Raises:
        InvalidExperience: it is not.
    """
    text = checked_text(field_name, value)
    # Of ASCII, as ids mostly are, the bytes are as many as the characters.
    size = len(text) if text.isascii() else len(text.encode("utf-8"))
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidExperience(field_name, value, f"ids are 1 to {MAX_ID_BYTES} bytes of UTF-8")
    return text


def checked_text(field_name: str, value: object) -> str:
    """Text that UTF-8 can hold.

    Raises:
        InvalidExperience: it is not.
    """
    if not isinstance(value, str):
        raise InvalidExperience(field_name, value, "must be text")
    check_unicode(field_name, value)
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number; True and False are not."""
    # The first test is for speed: asking an abstract class takes 1 µs.
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def finite(field_name: str, value: object) -> float:
    """A finite number.

    Raises:
        InvalidExperience: it is not.
    """
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # a whole number beyond any float
        number = math.inf
    if not math.isfinite(number):
        raise InvalidExperience(field_name, value, "must be a finite number")
    return number


def confidence(field_name: str, value: object) -> float:
    """A number from 0 to 1.

    Raises:
        InvalidExperience: it is not.
    """
    number = finite(field_name, value)
    if not 0.0 <= number <= 1.0:
        raise InvalidExperience(field_name, value, "must be from 0 to 1")
    return number


def not_negative(field_name: str, value: object) -> float:
    """A finite number of at least 0.

    Raises:
        InvalidExperience: it is not.
    """
    number = finite(field_name, value)
    if number < 0.0:
        raise InvalidExperience(field_name, value, "must be at least 0")
    return number


def _whole(field_name: str, value: object, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise InvalidExperience(field_name, value, "must be a whole number")
    if not least <= value <= _INT64_MAX:
        raise InvalidExperience(field_name, value, f"must be from {least} to {_INT64_MAX}")
    return int(value)


def _timestamp(value: object) -> int:
    return _whole("timestamp", value, 0)


def _map(field_name: str, value: object) -> str:
    if not isinstance(value, dict):
        raise InvalidExperience(field_name, value, "must be a dict")
    return to_json(field_name, value)


def _trajectory(value: object) -> str:
    # Without a generator, which takes as long as the rest of it.
    if not isinstance(value, list) or [step for step in value if not isinstance(step, dict)]:
        raise InvalidExperience("trajectory", value, "must be a list of dicts")
    return to_json("trajectory", value)
