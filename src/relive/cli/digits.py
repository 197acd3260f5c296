"""The demo's agent: it learns online to read handwritten digits, from nothing but right or wrong.

It sees 1,797 real scans (scikit-learn's digits) one at a time. For each it retrieves the nearest
past experiences, answers by their votes, is told whether it was right, and records what happened.
Run as a process of its own, so that the demo can kill it:

    python -m relive.cli.digits DIRECTORY [LOG_URL]

It prints one JSON line per image, after everything about it is durable, and then waits to be
killed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.core.results import SearchResult

SEED = 7
NEIGHBOURS = 10
TEXT_DIM = 32
VISUAL_DIM = 64
QUESTIONS = ("Which digit is this?", "What number do you see?", "Read the digit.")

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scan:
    """One image and what is asked about it.

    Attributes:
        visual: the pixels, 64 numbers around 0.
        question: in words.
        label: the right answer; the agent is only told whether it hit it.
    """

    visual: FloatArray
    question: str
    label: int


@dataclass(frozen=True, slots=True)
class Step:
    """What happened with one image.

    Attributes:
        id: of the experience.
        right: whether the answer was.
        control_right: whether the agent without memory was.
        search_ms, add_ms: how long the buffer took.
    """

    id: str
    right: bool
    control_right: bool
    search_ms: float
    add_ms: float


def scans() -> list[Scan]:
    """The stream of images, always in the same order."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    return [
        Scan(images[at] / 8.0 - 1.0, QUESTIONS[place % len(QUESTIONS)], int(labels[at]))
        for place, at in enumerate(order)
    ]


def question_embedding(question: str) -> FloatArray:
    """A text embedding without a model: words hashed to signs (feature hashing)."""
    total = np.zeros(TEXT_DIM)
    for word in question.lower().split():
        bits = np.frombuffer(hashlib.blake2b(word.encode(), digest_size=TEXT_DIM).digest(), "u1")
        total += np.where(bits & 1, 1.0, -1.0)
    return total


def vote(neighbours: SearchResult, guesses: np.random.Generator) -> tuple[int, float, str | None]:
    """The answer, the confidence in it, and the id of the nearest experience that speaks for it.

    An experience that was right speaks for its answer, one that was wrong against it. Where
    nothing speaks for any digit, it is a guess.
    """
    for_digit = np.zeros(10)
    against = np.zeros(10)
    nearest: dict[int, str] = {}
    for hit in neighbours:
        answer = int(hit.experience.final_answer)
        weight = max(hit.score, 0.0) ** 8  # the nearer ones count far more
        if hit.experience.total_reward > 0:
            for_digit[answer] += weight
            nearest.setdefault(answer, hit.id)
        else:
            against[answer] += weight
    if for_digit.sum() > 0:
        answer = int(for_digit.argmax())
        return answer, float(for_digit[answer] / for_digit.sum()), nearest[answer]
    least = np.flatnonzero(against == against.min())
    return int(guesses.choice(least)), 0.1, None


def learn(buffer: ExperienceBuffer, run: str) -> Iterator[Step]:
    """Go through the stream once; every step is durable when it is yielded."""
    guesses = np.random.default_rng(SEED)
    control = np.random.default_rng(SEED)
    for place, scan in enumerate(scans()):
        text = question_embedding(scan.question)
        started = time.perf_counter()
        neighbours = buffer.search(visual=scan.visual, text=text, k=NEIGHBOURS)
        searched = time.perf_counter()
        answer, confidence, adviser = vote(neighbours, guesses)
        right = answer == scan.label
        experience = Experience(
            id=f"{run}-{place}",
            visual=scan.visual,
            text=text,
            question=scan.question,
            trajectory=[{"action": "answer", "digit": answer}],
            total_reward=1.0 if right else 0.0,
            final_answer=answer,
            model_confidence=confidence,
            metadata={"place": place},
        )
        before_add = time.perf_counter()
        token = buffer.add(experience)
        added = time.perf_counter()
        if adviser is not None:
            buffer.report_outcome(neighbours.retrieval_id, adviser, success=right)
        yield Step(
            id=token.id,
            right=right,
            control_right=int(control.integers(10)) == scan.label,
            search_ms=(searched - started) * 1e3,
            add_ms=(added - before_add) * 1e3,
        )


def config() -> BufferConfig:
    """The demo's buffer: what is seen counts, what is asked hardly."""
    return BufferConfig(
        capacity=10_000,
        visual_dim=VISUAL_DIM,
        text_dim=TEXT_DIM,
        visual_weight=0.9,
        text_weight=0.1,
        faiss_backend="cpu",
    )


def main() -> None:
    """Run the agent, print its steps, and wait to be killed."""
    directory, *log = sys.argv[1:]
    buffer = ExperienceBuffer.open(directory, config(), log=log[0] if log else None)
    for step in learn(buffer, run=f"digit-{time.time_ns():x}"):
        _say(asdict(step))
    buffer.flush()
    _say({"digest": buffer.stats().digest})
    sys.stdin.read()  # killed here; ends by itself if the demo is gone


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
