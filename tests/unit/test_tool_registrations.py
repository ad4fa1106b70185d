"""What administrators register: well-formed addresses, names of tools, and headers."""

import pytest
from pydantic import TypeAdapter, ValidationError

from schema.mcp_servers import CreateHttpServerRequest, CreateMcpServerRequest
from schema.web_addresses import WebAddress
from schema.workflow_tools import WorkflowToolName

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


@pytest.mark.parametrize("name", ["a", "create_ticket", "A-1"])
def test_names_of_workflow_tools(name: str) -> None:
    assert TypeAdapter(WorkflowToolName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a__b", "a b", "a\n", "ä", "x" * 64])
def test_invalid_workflow_tool_names(name: str) -> None:
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
