"""The wheel holds what it should and nothing that could be in a user's way."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source archive, and of the wheel built from that; nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """The names in the wheel."""
    (path,) = built.glob("*.whl")
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
    assert "relive/py.typed" in wheel  # for the modules beside them, such as relive.buffer


def test_every_module_and_schema_of_the_tree_is_in_the_wheel(wheel: set[str]) -> None:
    there = {
        str(path.relative_to(ROOT / folder))
        for folder in ("src", "schemas", "producers", "consumers", "index_service")
        for path in (ROOT / folder / "relive").rglob("*")
        if path.suffix in (".py", ".pyi", ".avsc", ".json", ".proto")
    }
    assert any(name.endswith(".avsc") for name in there)
    assert there <= wheel


def test_the_version_is_stated_in_one_place(built: Path) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    names = sorted(path.name for path in built.iterdir())
    assert names == [f"relive-{stated}-py3-none-any.whl", f"relive-{stated}.tar.gz"]
    assert version("relive") == stated
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == stated
    others = [
        path
        for folder in ("src", "schemas", "producers", "consumers", "index_service")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(rf"[\"']{re.escape(stated)}[\"']", path.read_text())
    ]
    assert others == []


def test_the_source_archive_holds_what_git_has_and_nothing_that_was_made(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "Makefile", "tests/packaging/smoke.py"} <= names
    made = {".venv", ".nox", "dist", "build", ".mypy_cache", "__pycache__", ".git"}
    assert [name for name in names if made & set(name.split("/"))] == []


def test_every_python_that_is_claimed_is_smoke_tested() -> None:
    claimed = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    tried = re.search(r"PYTHONS = \((.*)\)", (ROOT / "noxfile.py").read_text())
    assert tried is not None
    assert claimed
    assert {f'"{each}"' for each in claimed} <= set(tried[1].split(", "))


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
