"""Which addresses are public, and which hosts are allowed although theirs are not."""

import pytest

from services.outgoing.hosts import AllowedHosts, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "11.0.0.1"),
        *("100.63.255.255", "100.128.0.1", "169.253.1.1", "192.169.0.1", "223.255.255.254"),
        *("2606:4700::1111", "2a00:1450:4001::8", "2620:fe::fe", "64:ff9b::808:808"),
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("0.0.0.0", id="unspecified"),
        pytest.param("0.1.2.3", id="this network"),
        pytest.param("10.0.0.1", id="private 10"),
        pytest.param("10.255.255.255", id="the last of private 10"),
        pytest.param("100.64.0.1", id="shared by a provider's customers"),
        pytest.param("100.127.255.255", id="the last of the shared"),
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.255.255.254", id="the last of loopback"),
        pytest.param("169.254.169.254", id="metadata of clouds"),
        pytest.param("172.16.0.1", id="private 172"),
        pytest.param("172.31.255.255", id="the last of private 172"),
        pytest.param("192.0.0.8", id="protocol assignments"),
        pytest.param("192.0.2.1", id="documentation"),
        pytest.param("192.88.99.1", id="relay of 6to4"),
        pytest.param("192.168.1.1", id="private 192"),
        pytest.param("198.18.0.1", id="benchmarks"),
        pytest.param("198.51.100.1", id="second documentation"),
        pytest.param("203.0.113.1", id="third documentation"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("239.255.255.250", id="multicast of an organisation"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("::", id="unspecified 6"),
        pytest.param("::1", id="loopback 6"),
        pytest.param("::7f00:1", id="compatible with loopback"),
        pytest.param("::8.8.8.8", id="compatible, long abandoned"),
        pytest.param("::ffff:127.0.0.1", id="mapped loopback"),
        pytest.param("::ffff:10.0.0.1", id="mapped private"),
        pytest.param("::ffff:8.8.8.8", id="mapped public, which nobody resolves to"),
        pytest.param("::ffff:0:127.0.0.1", id="translated loopback"),
        pytest.param("64:ff9b::7f00:1", id="NAT64 of loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", id="NAT64 of metadata"),
        pytest.param("64:ff9b::a00:1", id="NAT64 of private"),
        pytest.param("64:ff9b:1::808:808", id="NAT64 of a network's own"),
        pytest.param("100::1", id="discard"),
        pytest.param("2001::1", id="Teredo"),
        pytest.param("2001:0:7f00:1::", id="Teredo with loopback"),
        pytest.param("2001:10::1", id="ORCHID"),
        pytest.param("2001:db8::1", id="documentation 6"),
        pytest.param("2002:7f00:1::", id="6to4 of loopback"),
        pytest.param("2002:a00:1::1", id="6to4 of private"),
        pytest.param("2606:4700::5efe:127.0.0.1", id="ISATAP of loopback"),
        pytest.param("2606:4700::200:5efe:10.0.0.1", id="ISATAP of private"),
        pytest.param("3fff::1", id="second documentation 6"),
        pytest.param("4000::1", id="not given out"),
        pytest.param("5f00::1", id="segment routing"),
        pytest.param("fc00::1", id="unique local"),
        pytest.param("fd00:ec2::254", id="metadata of clouds 6"),
        pytest.param("fe80::1", id="link local"),
        pytest.param("fe80::1%eth0", id="link local with its interface"),
        pytest.param("2606:4700::1111%eth0", id="an interface of ours"),
        pytest.param("fec0::1", id="site local"),
        pytest.param("ff02::1", id="multicast 6"),
        pytest.param("ff0e::1", id="global multicast"),
        pytest.param("", id="nothing"),
        pytest.param("localhost", id="a name"),
        pytest.param("2130706433", id="a number"),
        pytest.param("0x7f.1", id="hexadecimal"),
        pytest.param("0177.0.0.1", id="octal"),
        pytest.param("127.1", id="short"),
    ],
)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("tools.internal", "tools.internal", 443),
        ("tools.internal", "TOOLS.internal.", 80),
        ("Tools.Internal.", "tools.internal", 80),
        (" tools.internal ", "tools.internal", 80),
        ("tools.internal:8080", "tools.internal", 8080),
        ("tools.internal.:8080", "tools.internal", 8080),
        ("127.0.0.1", "127.0.0.1", 5),
        ("127.0.0.1:5", "127.0.0.1", 5),
        ("::1", "::1", 5),
        ("[::1]", "::1", 5),
        ("[::1]:5", "::1", 5),
        ("0:0::1", "::1", 5),
        ("::1", "[::1]", 5),
        ("[FD00::A]:5", "fd00:0::a", 5),
    ],
)
def test_a_host_is_allowed_by_its_name(entry: str, host: str, port: int) -> None:
    assert AllowedHosts.parse([entry]).allows(host, port)


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("tools.internal", "other.tools.internal", 443),
        ("tools.internal", "tools.internal.evil.example", 443),
        ("tools.internal:8080", "tools.internal", 443),
        ("tools.internal:", "tools.internal", 443),
        ("tools.internal:http", "tools.internal", 80),
        ("127.0.0.1", "localhost", 80),
        ("127.0.0.1", "2130706433", 80),
        ("127.0.0.1", "0x7f.1", 80),
        ("127.0.0.1", "127.1", 80),
        ("127.0.0.1", "::ffff:127.0.0.1", 80),
        ("127.0.0.1:5", "127.0.0.1", 6),
        ("::1:5", "::1", 5),
        ("[::1]:5", "::1", 6),
        ("*", "anything.example", 80),
        ("", "anything.example", 80),
        ("", "", 80),
        ("https://tools.internal", "tools.internal", 443),
    ],
)
def test_no_other_host_is(entry: str, host: str, port: int) -> None:
    assert not AllowedHosts.parse([entry]).allows(host, port)
