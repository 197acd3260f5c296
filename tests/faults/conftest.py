"""What the fault tests share; how much they do is in `sizes.py`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.faults.sizes import Size, from_environment

_FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def size() -> Size:
    """How much to do."""
    return from_environment()


@pytest.fixture
def chance(size: Size, request: pytest.FixtureRequest) -> Random:
    """What is left to chance in one test; the same for the same RELIVE_FAULTS_SEED."""
    return Random(f"{size.seed}:{request.node.nodeid}")


def pytest_report_header() -> str:
    size = from_environment()
    return f"fault tests: RELIVE_FAULTS={size.name} RELIVE_FAULTS_SEED={size.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    size = from_environment()
    ours = [item for item in items if _FOLDER in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(size.timeout_s))
    if size.name == "sample":
        long = [item for item in ours if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
