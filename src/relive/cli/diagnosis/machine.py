"""The machine: its clock, its disks, what searches."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from relive.cli.diagnosis.finding import Finding, ok, problem, warning
from relive.config import BufferConfig
from relive.index_service.gpu_index import gpu_build

_MIB = 1024 * 1024
# Below the first, commits and snapshots fail soon; below the share, somebody should know.
_LEAST_FREE_BYTES, _LEAST_FREE_SHARE, _LEAST_FREE_FILES = 64 * _MIB, 0.1, 1_000
# File systems whose locks and memory maps are not what LMDB and SQLite rely on.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "afs"})

# The log's times may be of another machine.
_SKEW_S = 5.0
# 2025: a clock before that was never set.
_SANE_S = 1_735_689_600.0
# `struct timex` of Linux: its size, where its status is, and the flag for "nobody sets it".
_TIMEX_BYTES, _STATUS_AT, _UNSYNCHRONISED = 208, 40, 0x40


def look_at_clock(last_record_s: float | None) -> Finding:
    """Whether the clock can be right.

    Args:
        last_record_s: when the log's last record was appended; None if that is not known.
    """
    name, do = "clock", "set the clock, and keep it right (NTP)"
    now = time.time()
    if now < _SANE_S:
        return problem(name, f"it says {time.ctime(now)}", do)
    if last_record_s is not None and last_record_s > now + _SKEW_S:
        ahead = last_record_s - now
        return problem(name, f"the log's last record is {ahead:.0f} s in its future", do)
    if _unsynchronised():
        return warning(name, "the system says that nothing keeps it right", do)
    return ok(name, "it fits the log's times" if last_record_s is not None else "it is plausible")


def look_at_disk(directory: Path, needed_bytes: int, name: str = "disk") -> Iterator[Finding]:
    """Room, and whether the file system will do.

    Args:
        directory: need not exist yet.
        needed_bytes: what a copy of the state would take.
        name: of the finding.
    """
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    usage, files = shutil.disk_usage(place), os.statvfs(place)
    free = f"{usage.free / _MIB:,.0f} MiB free in {place}"
    do = "make room, or move snapshots to another disk (snapshot_path)"
    if usage.free < _LEAST_FREE_BYTES:
        yield problem(name, free, do)
    elif files.f_files and files.f_favail < _LEAST_FREE_FILES:
        yield problem(name, f"{files.f_favail} more files fit in {place}", do)
    elif usage.free < needed_bytes:
        yield warning(name, f"{free}, less than what is there takes", do)
    elif usage.free < _LEAST_FREE_SHARE * usage.total:
        yield warning(name, f"{free}, less than a tenth", do)
    else:
        yield ok(name, free)
    kind = _file_system(place)
    if kind in _NETWORK:
        yield problem(
            name, f"{place} is on {kind}, a network file system", "use a disk of this machine"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        yield problem(name, f"{place} cannot be written to", "run as its owner")


def look_at_files(directory: Path) -> Finding:
    """Whether others may read what is there."""
    name = "permissions"
    open_to_others = []
    for folder, _, files in os.walk(directory):
        for path in (Path(folder), *(Path(folder) / file for file in files)):
            try:
                if path.stat().st_mode & 0o077:
                    open_to_others.append(path)
            except FileNotFoundError:  # removed meanwhile
                continue
    if not open_to_others:
        return ok(name, f"only their owner can read the files in {directory}")
    return warning(
        name,
        f"others may use {open_to_others[0]}"
        + (f" and {len(open_to_others) - 1} more" if len(open_to_others) > 1 else ""),
        f"chmod -R go= {directory}",
    )


def look_at_gpu(config: BufferConfig) -> Finding:
    """What searches; nothing is started for it."""
    name = "gpu"
    if importlib.util.find_spec("faiss") is None:
        return warning(
            name,
            "there is no FAISS: all rows are scanned with NumPy",
            "pip install 'relive[cpu]' or 'relive[gpu]'",
        )
    version = next(
        (
            f"{package} {importlib.metadata.version(package)}"
            for package in ("faiss-gpu", "faiss-cpu")
            if _is_installed(package)
        ),
        "FAISS",
    )
    if config.faiss_backend == "cpu":
        return ok(name, f"{version}, on the CPU as configured")
    if gpu_build():
        return ok(name, f"{version} can use GPUs; relive doctor --gpu tries one out")
    said = f"{version} cannot use GPUs"
    if config.faiss_use_gpu_fallback:
        return ok(name, f"{said}; the CPU searches")
    return problem(
        name,
        f"{said}, and faiss_use_gpu_fallback is off: nothing will start",
        "pip install 'relive[gpu]', or set faiss_use_gpu_fallback",
    )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _unsynchronised() -> bool:
    """Whether the system says so; not, where it says nothing."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None).adjtimex(timex) < 0:  # all zeros: only asks
            return False
    except (OSError, AttributeError):
        return False
    (status,) = struct.unpack_from("i", timex, _STATUS_AT)
    return bool(status & _UNSYNCHRONISED)


def _file_system(path: Path) -> str:
    """The kind of file system that a path is on; empty if nobody says."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    best, kind = "", ""
    resolved = path.resolve()
    for line in mounts.splitlines():
        _, mount, found, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if resolved.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind
