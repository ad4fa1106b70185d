"""Addresses that tools are reached at: which are well-formed, and which lead into a network."""

import pytest
from pydantic import TypeAdapter, ValidationError

from schema.mcp_servers import CreateHttpServerRequest, CreateMcpServerRequest
from schema.web_addresses import WebAddress
from schema.workflow_tools import WorkflowToolName
from services.mcp.destinations import is_public

ADDRESS: TypeAdapter[str] = TypeAdapter(WebAddress)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com",
        "http://localhost:8080/mcp?key=1",
        "https://[2001:db8::1]:443/x",
        "HTTPS://example.com/a%20b",
    ],
)
def test_addresses_of_the_web_are_accepted(address: str) -> None:
    assert ADDRESS.validate_python(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "https://user:word@example.com",
        "https://@example.com",
        "https://example.com:99999",
        "https://example.com:0",
        "https://[::1",
        "https://example.com/#part",
        "https://example.com\\@evil.example",
        "https://example.com/a b",
        "https://example.com/\n",
        "https://exämple.com",
        "https://example.com/" + "x" * 2000,
    ],
)
def test_everything_else_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1"),
        *("::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "ff02::1"),
    ],
)
def test_addresses_of_networks_of_ones_own_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("name", ["a", "create_ticket", "A-1"])
def test_names_of_workflow_tools(name: str) -> None:
    assert TypeAdapter(WorkflowToolName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a__b", "a b", "a\n", "ä", "x" * 64])
def test_names_that_workflow_tools_can_not_have(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(WorkflowToolName).validate_python(name)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere"},
        {"mcp-session-id": "1"},
        {"Content-Length": "0"},
        {"Bad Name": "x"},
        {"X": "a\r\nY: b"},
        {"X": "ü"},
        {"X": ""},
        {"X": "1", "x": "2"},
        {f"X-{number}": "1" for number in range(51)},
    ],
)
def test_headers_that_would_break_a_request_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        CreateHttpServerRequest(
            name="a", transport="http", url="https://example.com", headers=headers
        )


def test_a_request_shows_no_secret_where_it_is_printed() -> None:
    request = TypeAdapter[object](CreateMcpServerRequest).validate_python(
        {"name": "a", "transport": "stdio", "command": "x", "env": {"TOKEN": "hush"}}
    )

    assert "hush" not in repr(request)
