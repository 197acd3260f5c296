import pytest

from relive.errors import InvalidConfig
from relive.index_service.rpc_address import host_and_port, is_loopback, is_loopback_target


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:0", ("[::1]", 0)),
        ("index.example.org:65535", ("index.example.org", 65_535)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port("listen", address) == parts


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:65536", "host:²"])
def test_anything_else_is_refused_with_the_fields_name(address: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        host_and_port("listen", address)

    assert (refused.value.field, refused.value.value) == ("listen", repr(address))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "[::1]"])
def test_what_stays_on_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert is_loopback_target(f"{host}:1")


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "[::]", "192.0.2.1", "example.org", "localhost.example.org", "127.0.0.1.nip.io"],
)
def test_what_may_leave_it(host: str) -> None:
    assert not is_loopback(host)
    assert not is_loopback_target(f"{host}:1")


@pytest.mark.parametrize("target", ["localhost", "dns:///localhost:1", "xds:///localhost", ""])
def test_a_target_written_in_another_way_may_be_anywhere(target: str) -> None:
    assert not is_loopback_target(target)
