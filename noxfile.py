"""Checks of what is released, on every Python and with every extra; `make smoke` runs them.

A Python that is not on this machine is left out and named in nox's last lines: the classifiers of
`pyproject.toml` claim those that were run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Installed by themselves; whatever other extras there are, together.
ALONE = ("", "cpu", "gpu", "kafka")
ROOT = Path(__file__).parent
TOOLS = Path(sys.executable).parent

# Interpreters are those that are here: none is fetched, and a missing one is named.
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = True


def extras() -> list[str]:
    declared = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    others = sorted(set(declared) - set(ALONE))
    return [*ALONE, ",".join(["cpu", "kafka", *others])]


def constraints(folder: Path) -> Path:
    """The locked versions, without their hashes: pip would want one of our own wheel, too."""
    file = folder / "constraints.txt"
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    pins = [line.removesuffix("\\").strip() for line in lines if "==" in line]
    file.write_text("\n".join(pin for pin in pins if not pin.startswith("--hash")) + "\n")
    return file


@nox.session(python=PYTHONS, venv_backend="uv|venv")
@nox.parametrize("extra", extras(), ids=[extra or "base" for extra in extras()])
def smoke(session: nox.Session, extra: str) -> None:
    """The wheel, in a bare environment: imports, types, the command, a buffer that is reopened."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    folder = Path(session.create_tmp()).resolve()
    wanted = f"relive[{extra}]" if extra else "relive"
    session.install(
        *("--quiet", "--only-binary", ":all:"),
        *("--constraint", str(constraints(folder)), f"{wanted} @ {wheel.as_uri()}"),
    )
    # Nothing of the tree is to be found: neither the folder nor the environment names it.
    session.chdir(folder)
    session.env.update(dict.fromkeys(["PYTHONPATH", *filter(_ours, os.environ)], None))
    session.run("python", "-I", "-W", "error", str(ROOT / "tests/packaging/smoke.py"), extra)
    if extra:
        return
    session.run(
        *(str(TOOLS / "mypy"), "--strict", "--config-file=", f"--cache-dir={folder / 'mypy'}"),
        *("--python-executable", str(Path(session.bin) / "python")),
        str(ROOT / "tests/packaging/typed.py"),
        external=True,
    )


def _ours(variable: str) -> bool:
    return variable.startswith("RELIVE_")
