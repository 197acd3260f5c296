"""What all tests share.

Tests marked `gpu` are left out where there is none.
Hypothesis is bounded, and tries the same examples in every run; `--hypothesis-profile=explore`
looks for new ones instead.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "relive",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_QUIET,
)
settings.register_profile(
    "explore", max_examples=2_000, deadline=None, database=None, suppress_health_check=_QUIET
)
settings.load_profile("relive")


# A run that was started in the background ignores interrupts, and so would what its tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Authority:
    """A certificate authority of its own, and files that it signed."""

    def __init__(self, directory: Path) -> None:
        import trustme

        directory.mkdir()
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str, **options: Any) -> tuple[Path, Path]:
        """The files of a certificate and its key; they replace those of the same name.

        Args:
            name: of the files.
            hosts: that the certificate is for; this machine by default.
            options: of `trustme.CA.issue_cert`.
        """
        issued = self._authority.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **options)
        certificate, key = (self._directory / f"{name}.{kind}.pem" for kind in ("cert", "key"))
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs certificates for the test."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def other_authority(tmp_path: Path) -> Authority:
    """Signs others, which nobody else trusts."""
    return Authority(tmp_path / "other-authority")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        config.hook.pytest_deselected(items=on_gpu)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def _has_gpu() -> bool:
    from relive.errors import GpuFailed
    from relive.index_service.accelerator import GpuOptions, ask_device
    from relive.index_service.gpu_index import gpu_build

    try:
        return gpu_build() and bool(ask_device(GpuOptions()).name)
    except GpuFailed:
        return False
