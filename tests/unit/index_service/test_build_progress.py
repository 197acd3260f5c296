"""How far a build is: told by the builder too, from 0 to 1, and never less than before."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.index_service import build_progress
from relive.index_service.build_progress import BuildWatch, Phase, ProgressFile, pass_on


def left_in(directory: Path) -> list[tuple[Phase, int, int]]:
    told: list[tuple[Phase, int, int]] = []
    pass_on(directory, lambda *each: told.append(each))
    return told


def test_the_share_goes_from_0_to_1_through_all_phases() -> None:
    watch, shares = BuildWatch(), []
    for phase in Phase:
        for done in range(5):
            watch.tell(phase, done, 4)
            assert watch.now is not None
            assert (watch.now.phase, watch.now.done, watch.now.total) == (phase.value, done, 4)
            shares.append(watch.now.share)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(set(shares)) == 4 * len(Phase) + 1  # the end of a phase is the next one's beginning
    watch.end()
    assert watch.now is None


@given(st.lists(st.tuples(st.sampled_from(Phase), st.integers(0, 9), st.integers(0, 9))))
def test_the_share_never_falls_whatever_is_told(told: list[tuple[Phase, int, int]]) -> None:
    watch, before = BuildWatch(), 0.0
    for each in told:
        watch.tell(*each)
        assert watch.now is not None
        assert before <= watch.now.share <= 1.0
        before = watch.now.share


def test_what_a_builder_tells_is_left_in_its_directory(tmp_path: Path) -> None:
    assert left_in(tmp_path) == []
    file = ProgressFile(tmp_path)
    for phase in (Phase.TRUTH, Phase.CODES):
        file.tell(phase, 10, 400)
        assert left_in(tmp_path) == [(phase, 10, 400)]
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.remove()
    assert not list(tmp_path.iterdir())


def test_it_is_not_written_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ProgressFile(tmp_path)
    monkeypatch.setattr(build_progress, "_EVERY_S", 3_600.0)
    for done in range(50):
        file.tell(Phase.CODES, done, 400)
    assert left_in(tmp_path) == [(Phase.CODES, 0, 400)]


@pytest.mark.parametrize("said", ["", "CODES 1", "CODES one 2", "NAPPING 1 2", "\xff"])
def test_what_cannot_be_read_is_not_told(tmp_path: Path, said: str) -> None:
    ProgressFile(tmp_path).tell(Phase.CODES, 1, 2)
    (path,) = tmp_path.iterdir()
    path.write_text(said)
    assert left_in(tmp_path) == []


def test_a_builder_goes_on_where_it_cannot_be_written(tmp_path: Path) -> None:
    ProgressFile(tmp_path / "gone").tell(Phase.CODES, 1, 2)
    assert not list(tmp_path.iterdir())
