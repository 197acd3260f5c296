import importlib.util

import pytest

from relive.index_service.scan import FaissScanner, NumpyScanner, Scanner


@pytest.fixture(params=["numpy", "faiss"])
def scanner(request: pytest.FixtureRequest) -> Scanner:
    """Every scanner there is."""
    if request.param == "faiss":
        if importlib.util.find_spec("faiss") is None:
            pytest.skip("FAISS is not installed")
        return FaissScanner()
    return NumpyScanner()
