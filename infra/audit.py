"""Audits the locked dependencies: pins and hashes, licences, and known vulnerabilities.

    python -m infra.audit [--require-service]     in the environment that `make setup` made

The first two need no network, and decide. Known vulnerabilities come from a service; where it
cannot be reached or does not know a package, that is said, and is a failure only with
--require-service, so that nobody takes silence for an audit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(
    r"[a-z0-9][a-z0-9-]*(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^\\]+?)?( --hash=sha256:[0-9a-f]{64})+"
)
# What may be used and, for `serve.txt`, shipped in an image. Names as SPDX and as trove have them.
ACCEPTED = {
    "0BSD", "Apache Software License", "Apache-2.0", "Apache 2.0", "BSD License", "BSD-2-Clause",
    "BSD-3-Clause", "3-Clause BSD License", "BSD 2-Clause License", "CC0-1.0", "ISC",
    "ISC License", "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "MIT-CMU", "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)", "OLDAP-2.8", "PSF-2.0",
    "Python Software Foundation License", "Unlicense", "Zlib",
}  # fmt: skip
SERVICE_TIMEOUT_S = 600


def pins_without_hashes(lock: str) -> list[str]:
    """Lines of a lock file that are not `name==version`, with hashes, from no named place."""
    logical = re.sub(r"\s*\\\n\s*", " ", lock).splitlines()
    return [line for line in logical if line.strip() and not PIN.fullmatch(line.strip())]


def licence(distribution: Distribution) -> str:
    """Its licence as it names it, shortest form first; empty if it names none."""
    metadata = distribution.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    trove = [
        line.split(" :: ")[-1]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("DFSG approved")
    ]
    text = "".join(metadata.get_all("License") or []).strip()
    if trove or (text and "\n" not in text and text != "UNKNOWN"):
        return " OR ".join(trove) or text
    return _title_of_file(distribution)


def _title_of_file(distribution: Distribution) -> str:
    """The first line of the licence that it brings, where its metadata is silent."""
    for file in distribution.files or ():
        if file.name.startswith("LICENSE") and ".dist-info" in str(file):
            return file.read_text().strip().partition("\n")[0]
    return ""


def accepted(named: str) -> bool:
    """Whether a licence, an SPDX expression or a name, is one that we use."""
    if named in ACCEPTED:
        return True
    every = re.split(r"\s+AND\s+", re.sub(r"[()](?!I?MPL|ISCL)", "", named))
    return bool(named) and all(
        any(each.strip() in ACCEPTED for each in re.split(r"\s+OR\s+", part)) for part in every
    )


def unlicensed(installed: Iterable[Distribution]) -> list[str]:
    """Distributions of whose licence nothing is known, or that has not been accepted."""
    named = sorted((each.name, licence(each)) for each in installed)
    return [f"{name}: {found or 'names none'}" for name, found in named if not accepted(found)]


def judged(report: str | None, pins: set[str]) -> tuple[list[str], str]:
    """What pip-audit found, as JSON, about the pins: vulnerabilities, and a line about the rest."""
    if report is None:
        return [], "NOT AUDITED for known vulnerabilities: the service could not be reached"
    answered: dict[str, list[Any]] = {
        each["name"]: each["vulns"]
        for each in json.loads(report)["dependencies"]
        if "skip_reason" not in each
    }
    found = [
        f"{name}: {each['id']}, fixed in {', '.join(each['fix_versions']) or 'no version'}"
        for name, vulnerabilities in sorted(answered.items())
        for each in vulnerabilities
    ]
    unknown = len(pins - set(answered))
    if unknown:
        return found, f"NOT AUDITED: the service knows nothing of {unknown} of {len(pins)} packages"
    return found, f"{len(pins)} packages audited for known vulnerabilities, {len(found)} found"


def asked() -> str | None:
    """pip-audit's report on this environment's packages, or None where its service is not there."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", "osv"]
    for lock in LOCKS:
        command += ["--requirement", str(lock)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SERVICE_TIMEOUT_S, check=False
    )
    try:
        json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if not re.search(r"connection|timed? ?out|resolve|unreachable|proxy", reason, re.I):
            sys.exit(f"pip-audit failed: {reason}")
        return None
    return done.stdout


def main() -> int:
    problems = []
    pins = set()
    for lock in LOCKS:
        text = lock.read_text()
        problems += [
            f"{lock.name}: not pinned with hashes: {line}" for line in pins_without_hashes(text)
        ]
        pins |= {
            line.partition("==")[0] for line in text.splitlines() if re.match(r"[a-z0-9]", line)
        }
    print(f"{len(pins)} packages in {len(LOCKS)} lock files, each pinned with hashes")
    problems += [f"licence not accepted: {each}" for each in unlicensed(distributions())]
    vulnerabilities, line = judged(asked(), pins)
    problems += [f"vulnerable: {each}" for each in vulnerabilities]
    if "--require-service" in sys.argv and line.startswith("NOT"):
        problems.append("the service was required")
    print(line)
    print("\n".join(problems) or "nothing to complain of")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
