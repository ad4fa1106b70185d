"""Each route of prompts: the shape of its success, its refusals, its pages."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from schema.pages import encode_cursor
from tests.contracts.test_routes import check_id, check_time, data_of
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

PROMPT = {
    *("id", "name", "description", "latestVersion", "activeVersion", "version"),
    *("createdAt", "updatedAt"),
}
DETAIL = {*PROMPT, "activations"}
VERSION = {"promptId", "number", "content", "note", "active", "createdBy", "createdAt"}
ACTIVATION = {"id", "number", "activatedBy", "createdAt"}


def name() -> str:
    return f"p{uuid4().hex}"


@pytest.fixture
async def administrator(member: ApiUser, stack: Stack) -> ApiUser:
    """An administrator who speaks through the recording client."""
    await stack.inspection.execute("UPDATE users SET role = 'admin' WHERE id = $1", UUID(member.id))
    return member


async def make(administrator: ApiUser, **body: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    response = await administrator.request(
        "POST", "/admin/prompts", json={"name": name(), "content": "One.", **body}
    )
    data: dict[str, Any] = data_of(response, 201)
    return data


def check_refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return error


async def test_creating_a_prompt(administrator: ApiUser) -> None:
    called = name()

    response = await administrator.request(
        "POST", "/admin/prompts", json={"name": called, "description": "Why.", "content": "One."}
    )

    prompt = data_of(response, 201)
    assert set(prompt) == DETAIL
    assert (prompt["name"], prompt["description"]) == (called, "Why.")
    assert (prompt["latestVersion"], prompt["activeVersion"], prompt["activations"]) == (
        1,
        None,
        [],
    )
    assert response.headers["etag"] == f'"{prompt["version"]}"'
    check_id(prompt["id"])
    check_time(prompt["createdAt"])


async def test_creating_a_prompt_without_content_creates_no_version(administrator: ApiUser) -> None:
    response = await administrator.request("POST", "/admin/prompts", json={"name": name()})

    assert data_of(response, 201)["latestVersion"] == 0


async def test_a_name_that_is_taken_is_a_conflict(administrator: ApiUser) -> None:
    prompt = await make(administrator)

    response = await administrator.request("POST", "/admin/prompts", json={"name": prompt["name"]})

    assert check_refused(response, 409, "CONFLICT")["details"][0]["path"] == "body.name"


async def test_a_key_creates_one_prompt(administrator: ApiUser) -> None:
    key, body = unique("key"), {"name": name()}

    answers = [
        await administrator.request(
            "POST", "/admin/prompts", json=sent, headers={"Idempotency-Key": key}
        )
        for sent in (body, body, {"name": name()})
    ]

    assert data_of(answers[0], 201) == data_of(answers[1], 201)
    check_refused(answers[2], 409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": None}, "body.name"),
        ({"name": ""}, "body.name"),
        ({"name": "Upper"}, "body.name"),
        ({"name": "1st"}, "body.name"),
        ({"name": "a\n"}, "body.name"),
        ({"name": "a" * 64}, "body.name"),
        ({"content": ""}, "body.content"),
        ({"content": " \n\t"}, "body.content"),
        ({"content": "x" * 100_001}, "body.content"),
        ({"content": "a\x00b"}, "body.content"),
        ({"content": 7}, "body.content"),
        ({"description": "x" * 1_001}, "body.description"),
        ({"unknown": 1}, "body.unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_each_field_is_checked_and_named(
    administrator: ApiUser, change: dict[str, Any], path: str
) -> None:
    response = await administrator.request(
        "POST", "/admin/prompts", json={"name": name(), **change}
    )

    error = check_refused(response, 400, "VALIDATION_ERROR")
    assert error["details"][0]["path"] == path


async def test_reading_a_prompt(administrator: ApiUser) -> None:
    prompt = await make(administrator)

    response = await administrator.request("GET", f"/admin/prompts/{prompt['id']}")

    assert data_of(response) == prompt


async def test_listing_prompts_page_by_page(administrator: ApiUser) -> None:
    made = [await make(administrator) for _ in range(3)]
    seen: list[dict[str, Any]] = []
    cursor = None

    while True:
        query = {"limit": "2", "sort": "-createdAt", **({"cursor": cursor} if cursor else {})}
        response = await administrator.request("GET", "/admin/prompts", params=query)
        assert response.status_code == 200
        seen += response.json()["data"]
        cursor = response.json()["meta"]["nextCursor"]
        if cursor is None:
            break

    assert [prompt["id"] for prompt in seen[:3]] == [prompt["id"] for prompt in reversed(made)]
    assert set(seen[0]) == PROMPT
    assert len({prompt["id"] for prompt in seen}) == len(seen)


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"limit": "0"}, {"sort": "content"}])
async def test_list_parameters_are_validated(administrator: ApiUser, query: dict[str, str]) -> None:
    prompt = await make(administrator)

    for path in ("/admin/prompts", f"/admin/prompts/{prompt['id']}/versions"):
        response = await administrator.request("GET", path, params=query)
        check_refused(response, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40])
async def test_a_cursor_with_an_impossible_version_number_is_rejected(
    administrator: ApiUser, number: int
) -> None:
    prompt = await make(administrator)
    cursor = encode_cursor("prompt_versions number", (number,))

    response = await administrator.request(
        "GET",
        f"/admin/prompts/{prompt['id']}/versions",
        params={"sort": "number", "cursor": cursor},
    )

    error = check_refused(response, 400, "VALIDATION_ERROR")
    assert error["details"][0]["path"] == "query.cursor"


async def test_adding_and_listing_versions(administrator: ApiUser) -> None:
    prompt = await make(administrator)
    path = f"/admin/prompts/{prompt['id']}/versions"

    response = await administrator.request("POST", path, json={"content": "Two.", "note": "Why."})

    version = data_of(response, 201)
    assert set(version) == VERSION
    assert (version["number"], version["content"], version["note"]) == (2, "Two.", "Why.")
    assert (version["active"], version["createdBy"]) == (False, administrator.id)
    listed = await administrator.request("GET", path, params={"limit": "1"})
    assert listed.json()["data"] == [version]
    rest = await administrator.request(
        "GET", path, params={"cursor": listed.json()["meta"]["nextCursor"]}
    )
    assert [found["number"] for found in rest.json()["data"]] == [1]
    assert rest.json()["meta"]["nextCursor"] is None


async def test_activating_a_version(administrator: ApiUser) -> None:
    prompt = await make(administrator)
    path = f"/admin/prompts/{prompt['id']}/versions/1/activate"

    activated = data_of(await administrator.request("POST", path))

    assert set(activated) == DETAIL
    assert activated["activeVersion"] == 1
    (activation,) = activated["activations"]
    assert set(activation) == ACTIVATION
    assert (activation["number"], activation["activatedBy"]) == (1, administrator.id)
    assert data_of(await administrator.request("POST", path)) == activated


async def test_a_version_with_unknown_placeholders_is_not_activated(
    administrator: ApiUser,
) -> None:
    prompt = await make(administrator, content="{one} {two} {date}")

    response = await administrator.request(
        "POST", f"/admin/prompts/{prompt['id']}/versions/1/activate"
    )

    details = check_refused(response, 409, "CONFLICT")["details"]
    assert [detail["path"] for detail in details] == ["content", "content"]
    assert details[1]["message"] == "Unknown placeholder {two}. Known placeholders: {date}."


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{missing}", 404),
        ("{missing}/versions", 404),
        ("{missing}/versions/1/activate", 404),
        ("{there}/versions/2/activate", 404),
        ("{there}/versions/0/activate", 400),
        ("{there}/versions/99999999999/activate", 400),
        ("{there}/versions/one/activate", 400),
        ("none/versions", 400),
    ],
)
async def test_unknown_ids_are_not_found(administrator: ApiUser, path: str, status: int) -> None:
    prompt = await make(administrator)
    address = f"/admin/prompts/{path.format(missing=uuid4(), there=prompt['id'])}"
    method = "POST" if path.endswith("activate") else "GET"

    response = await administrator.request(method, address)

    check_refused(response, status, "NOT_FOUND" if status == 404 else "VALIDATION_ERROR")


async def test_prompts_are_for_administrators(member: ApiUser) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", f"/{uuid4()}"),
        ("GET", f"/{uuid4()}/versions"),
        ("POST", f"/{uuid4()}/versions"),
        ("POST", f"/{uuid4()}/versions/1/activate"),
    ):
        body = {"json": {"name": name(), "content": "x"}} if method == "POST" else {}
        check_refused(
            await member.request(method, f"/admin/prompts{path}", **body), 403, "FORBIDDEN"
        )
