"""A recovery test of your own: an agent is killed with kill -9, and nothing it was told is lost.

pip install 'relive[cpu,testing]' && pytest examples/test_recovery.py
"""

import subprocess
import sys
from pathlib import Path

from relive.buffer import ExperienceBuffer
from relive.testing.replay import assert_replay_equals

# Your agent. It says an id once the experience is durable, and never comes to an end by itself.
AGENT = """
import sys
from itertools import count
from relive.buffer import Experience, ExperienceBuffer

with ExperienceBuffer.open(sys.argv[1]) as buffer:
    for step in count():
        buffer.add(Experience(id=f"step-{step}", visual=[1.0, step], final_answer=step))
        print(f"step-{step}", flush=True)
"""


def run_and_kill(directory: Path, steps: int) -> list[str]:
    """The ids that an agent acknowledged before it was killed."""
    command = [sys.executable, "-c", AGENT, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        acknowledged = [agent.stdout.readline().strip() for _ in range(steps)]
        agent.kill()  # SIGKILL: no handler runs, nothing is flushed
        return acknowledged + agent.stdout.read().split()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged = run_and_kill(tmp_path / "buffer", steps=50)

    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        assert set(acknowledged) <= set(buffer.ids())
        last = buffer.get(acknowledged[-1])
        assert last is not None
        assert f"step-{last.final_answer}" == acknowledged[-1]
        # The vectors are back too, not only the rows.
        assert last.visual is not None
        assert buffer.search(visual=last.visual, k=len(buffer))[0].score > 0.999
        buffer.flush()  # the search is an event too
        recovered = buffer.stats()

    # The state that was recovered is the one that the log says, to the bit.
    assert_replay_equals(f"file:{tmp_path / 'buffer'}", recovered)


def test_a_second_crash_changes_nothing_that_the_first_left(tmp_path: Path) -> None:
    first = run_and_kill(tmp_path / "buffer", steps=10)
    again = run_and_kill(tmp_path / "buffer", steps=10)  # adds the same ids, and says them again
    assert again[:10] == first[:10]

    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        ids = buffer.ids()
        assert len(ids) == len(set(ids))
        assert set(first) | set(again) <= set(ids)
        assert buffer.stats().conflicts == 0
        assert_replay_equals(f"file:{tmp_path / 'buffer'}", buffer.stats())
