"""The wheel holds what it should and nothing that could be in a user's way."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that is built as it is released; nothing is fetched for it."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_adds_one_name_to_a_users_modules(wheel: set[str]) -> None:
    top = {name.partition("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"relive"}
    assert len(top) == 2


def test_no_portion_hides_the_others(wheel: set[str]) -> None:
    assert "relive/__init__.py" not in wheel


def test_every_package_says_that_it_is_typed(wheel: set[str]) -> None:
    packages = {name.split("/")[1] for name in wheel if name.endswith("/__init__.py")}
    assert {"schemas", "core", "log", "producers", "consumers", "index_service"} <= packages
    assert {f"relive/{package}/py.typed" for package in packages} <= wheel


def test_every_module_and_schema_of_the_tree_is_in_the_wheel(wheel: set[str]) -> None:
    there = {
        str(path.relative_to(ROOT / folder))
        for folder in ("src", "schemas", "producers", "consumers", "index_service")
        for path in (ROOT / folder / "relive").rglob("*")
        if path.suffix in (".py", ".pyi", ".avsc", ".json", ".proto")
    }
    assert any(name.endswith(".avsc") for name in there)
    assert there <= wheel


def test_inference_nodes_need_neither_faiss_nor_kafka() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['faiss', 'confluent_kafka']))\n"  # None: import raises
        "import relive.client, relive.producers, relive.buffer, relive.cli.main\n"
        "print(relive.client.Client.__name__)"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)
    assert said == "Client\n"


def test_a_client_does_not_load_faiss() -> None:
    script = "import sys, relive.client; print('faiss' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)
    assert said == "False\n"
