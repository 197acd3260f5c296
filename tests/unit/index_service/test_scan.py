"""What every scanner promises."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.index_service import scan
from relive.index_service.scan import FaissScanner, NumpyScanner, Scanner, installed_scanner


def assert_are_the_top(scanner: Scanner, matrix: Any, live: Any, query: Any, m: int) -> None:
    scores, rows = scanner.top(matrix, live, query, m)
    exact = matrix.astype(np.float64) @ query.astype(np.float64)
    allowed = np.arange(len(matrix)) if live is None else np.flatnonzero(live)
    assert len(rows) == len(set(rows.tolist())) == min(m, len(allowed))
    assert set(rows.tolist()) <= set(allowed.tolist())
    assert scores == pytest.approx(exact[rows], abs=1e-4)
    # Which of equal rows are found is open, their scores are not.
    best = np.sort(exact[allowed])[::-1][:m]
    assert np.sort(exact[rows])[::-1] == pytest.approx(best, abs=1e-4)


def test_the_rows_found_are_those_of_the_greatest_products(scanner: Scanner) -> None:
    @given(
        n=st.integers(1, 40),
        width=st.integers(1, 9),
        m=st.integers(1, 60),
        seed=st.integers(0, 2**32),
        dead=st.none() | st.floats(0.0, 1.0),
        ties=st.booleans(),
    )
    def holds(n: int, width: int, m: int, seed: int, dead: float | None, ties: bool) -> None:
        random = np.random.default_rng(seed)
        matrix = random.standard_normal((n, width)).astype(np.float32)
        if ties:
            matrix = np.sign(matrix)
        live = None if dead is None else random.random(n) >= dead
        query = random.standard_normal(width).astype(np.float32)
        assert_are_the_top(scanner, matrix, live, query, m)

    holds()


def test_a_part_of_a_larger_array_is_scanned_as_it_lies(scanner: Scanner) -> None:
    random = np.random.default_rng(0)
    whole = random.standard_normal((300, 8)).astype(np.float32)
    query = random.standard_normal(8).astype(np.float32)
    assert_are_the_top(scanner, whole[100:200], random.random(100) < 0.5, query, 10)


def test_no_live_row_is_no_row(scanner: Scanner) -> None:
    scores, rows = scanner.top(
        np.ones((5, 2), np.float32), np.zeros(5, bool), np.ones(2, np.float32), 3
    )
    assert (len(scores), len(rows)) == (0, 0)


def test_live_rows_at_the_ends_of_the_mask_are_found(scanner: Scanner) -> None:
    for n in (7, 8, 9, 64, 65):
        matrix = np.ones((n, 2), np.float32)
        for only in (0, n - 1):
            live = np.zeros(n, bool)
            live[only] = True
            assert scanner.top(matrix, live, np.ones(2, np.float32), 3).rows.tolist() == [only]


@pytest.mark.parametrize(
    ("matrix", "query"),
    [
        (np.ones((4, 3), np.float32), np.ones(4, np.float32)),
        (np.ones((4, 3), np.float32), np.ones((1, 3), np.float32)),
        (np.ones((4, 3), np.float64), np.ones(3, np.float32)),
        (np.ones((4, 6), np.float32)[:, ::2], np.ones(3, np.float32)),
    ],
    ids=["width", "shape", "dtype", "strides"],
)
def test_faiss_is_never_given_what_it_would_read_out_of_bounds(matrix: Any, query: Any) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="cannot scan"):
        FaissScanner().top(matrix, None, query, 2)


def test_the_installed_scanner_is_faiss() -> None:
    pytest.importorskip("faiss")
    assert installed_scanner().name == "faiss"


def test_without_faiss_numpy_takes_its_place_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(scan, "_said", set())
    with caplog.at_level(logging.INFO):
        assert isinstance(installed_scanner(), NumpyScanner)
        installed_scanner()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "relive[cpu]" in caplog.text
