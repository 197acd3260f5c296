"""The audit of the locked dependencies finds what it is for, and is not quiet about the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from infra.audit import LOCKS, accepted, judged, licence, pins_without_hashes, unlicensed

HASH = "--hash=sha256:" + "0" * 64


def test_every_locked_requirement_is_pinned_with_hashes_and_comes_from_no_named_place() -> None:
    assert {"dev.txt", "serve.txt"} <= {lock.name for lock in LOCKS}
    assert {lock.name: pins_without_hashes(lock.read_text()) for lock in LOCKS} == {
        lock.name: [] for lock in LOCKS
    }


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.0",
        f"numpy>=2.0 {HASH}",
        f"numpy==2.0 --hash=md5:{'0' * 32}",
        f"numpy @ https://example.org/numpy.whl {HASH}",
        "--index-url https://example.org/simple",
        "-e .",
    ],
)
def test_a_line_that_pins_less_is_found(line: str) -> None:
    sound = f"six==1.0 ; sys_platform == 'linux' \\\n    {HASH} \\\n    {HASH}\n"
    assert pins_without_hashes(sound + line + "\n") == [line]


def installed(folder: Path, name: str, *lines: str) -> Distribution:
    metadata = folder / f"{name}-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", *lines, ""]))
    return Distribution.at(metadata.parent)


def test_what_names_no_licence_or_another_one_is_found(tmp_path: Path) -> None:
    free = installed(tmp_path, "free", "License-Expression: MIT")
    named = installed(tmp_path, "named", "Classifier: License :: OSI Approved :: BSD License")
    silent = installed(tmp_path, "silent")
    filed = installed(tmp_path, "filed")
    folder = tmp_path / "filed-1.0.dist-info"
    (folder / "LICENSE").write_text("MIT License\n\nCopyright …\n")
    (folder / "RECORD").write_text("filed-1.0.dist-info/LICENSE,,\n")
    assert licence(filed) == "MIT License"
    other = installed(tmp_path, "other", "License: All rights reserved")
    assert [licence(each) for each in (free, named, silent)] == ["MIT", "BSD License", ""]
    assert unlicensed([free, named, silent, filed, other]) == [
        "other: All rights reserved",
        "silent: names none",
    ]


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only", False),
    ],
)
def test_of_alternatives_one_has_to_be_accepted_and_of_parts_each(
    expression: str, holds: bool
) -> None:
    assert accepted(expression) == holds


def test_the_licences_of_this_environment_are_known() -> None:
    assert unlicensed(distributions()) == []


def report(*dependencies: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_a_vulnerability_is_named_with_what_mends_it() -> None:
    bad = {"name": "six", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"]}]}
    assert judged(report(bad), {"six"}) == (
        ["six: PYSEC-1, fixed in 2.0"],
        "1 packages audited for known vulnerabilities, 1 found",
    )


def test_silence_is_not_taken_for_an_audit() -> None:
    assert judged(None, {"six"})[1].startswith("NOT AUDITED")
    skipped = {"name": "six", "skip_reason": "Dependency not found"}
    assert judged(report(skipped), {"six"})[1].startswith("NOT AUDITED")
    assert judged(report({"name": "six", "vulns": []}), {"six", "numpy"})[1].startswith("NOT")
