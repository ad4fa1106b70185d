"""Of an address, the audit log knows the network."""

import pytest

from services.audit import network_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("127.0.0.1", "127.0.0.0/24"),
        ("2001:db8:7:8::1", "2001:db8:7::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::1", "::/48"),
        ("", None),
        ("testclient", None),
        ("203.0.113.0/24", None),
    ],
)
def test_addresses_are_reduced_to_their_network(host: str, network: str | None) -> None:
    assert network_of(host) == network
