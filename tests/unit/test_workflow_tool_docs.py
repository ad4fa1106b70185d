"""What docs/workflow-tools.md promises to those who write webhooks, and its recipes."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.routes import tool_callbacks
from services.outgoing.signatures import (
    TOLERANCE,
    problem_of_signature,
    signature_headers,
    signing_key,
)
from services.tools.definition import DEFAULT_MAX_OUTPUT_CHARS
from services.workflow_tools.calls import CALLBACKS_PATH

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "workflow-tools.md").read_text()
ALERTS_PAGE = (DOCS / "alerts.md").read_text()
RECIPES = ("n8n-workflow-tool", "n8n-workflow-tool-later")
# The nodes' versions with which the recipes were tried; n8n 2 has them all.
VERSIONS = {
    "webhook": 2,
    "extractFromFile": 1,
    "crypto": 2,
    "if": 2.2,
    "code": 2,
    "respondToWebhook": 1.1,
    "httpRequest": 4.2,
}
SECRET = "at least sixteen characters"
BODY = b'{"input":{"title":"Printer on fire"}}'


def shown(function: str, *, page: str = PAGE) -> Callable[..., Any]:
    """Return a function of a page as it is shown there."""
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if f"def {function}(" in block
    ]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    found: Callable[..., Any] = namespace[function]
    return found


@pytest.mark.parametrize(
    ("page", "function"),
    [(PAGE, "is_from_everturn"), (ALERTS_PAGE, "is_alert_from_everturn")],
    ids=["workflow tools", "alerts"],
)
def test_the_documented_verification_accepts_sent_requests(page: str, function: str) -> None:
    is_from_everturn = shown(function, page=page)
    now = datetime.now(UTC)
    headers = signature_headers(signing_key(SECRET), BODY, message_id="a:1:b", moment=now)
    old = signature_headers(
        signing_key(SECRET), BODY, message_id="a:1:b", moment=now - TOLERANCE * 2
    )

    assert is_from_everturn(SECRET, headers, BODY)
    assert not is_from_everturn(SECRET, headers, BODY + b" ")
    assert not is_from_everturn("another secret", headers, BODY)
    assert not is_from_everturn(SECRET, old, BODY)


def test_the_documented_signature_is_accepted() -> None:
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, request=request)

    answer = shown("answer")
    answer.__globals__["httpx"] = httpx.Client(transport=httpx.MockTransport(take))
    answer(SECRET, "6f1d", "https://chat.example.com/6f1d", {"ticket": 4711})

    (request,) = sent
    assert json.loads(request.content) == {"output": {"ticket": 4711}}
    now = datetime.fromtimestamp(time.time(), UTC)
    key = signing_key(SECRET)
    assert (
        problem_of_signature(key, request.content, request.headers, message_id="6f1d", now=now)
        is None
    )


def test_the_page_names_the_numbers_and_addresses_that_hold() -> None:
    (route,) = tool_callbacks.router.routes

    assert getattr(route, "path", "") == f"{CALLBACKS_PATH}/{{callback_id}}"
    assert f"POST {CALLBACKS_PATH}/" in PAGE
    assert f"{DEFAULT_MAX_OUTPUT_CHARS:,} characters" in PAGE


def test_the_page_links_to_every_recipe() -> None:
    linked = set(re.findall(r"\(recipes/([\w-]+)\.json\)", PAGE))

    assert linked == {path.stem for path in (DOCS / "recipes").glob("*.json")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_workflow_whose_nodes_are_all_connected(name: str) -> None:
    workflow = recipe(name)
    names = [node["name"] for node in workflow["nodes"]]
    edges = [
        (source, target["node"])
        for source, outputs in workflow["connections"].items()
        for output in outputs["main"]
        for target in output
    ]

    assert len(set(names)) == len(names) == len({node["id"] for node in workflow["nodes"]})
    assert {source for source, _ in edges} <= set(names)
    assert {target for _, target in edges} == set(names) - {"Webhook"}
    for node in workflow["nodes"]:
        assert node["type"].startswith("n8n-nodes-base.")
        assert {"parameters", "typeVersion", "position"} <= set(node)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_what_n8n_imports(name: str) -> None:
    workflow = recipe(name)
    types = {node["type"].removeprefix("n8n-nodes-base."): node for node in workflow["nodes"]}

    assert workflow["name"]
    assert re.fullmatch(r"[A-Za-z0-9]{16}", workflow["id"])
    assert f"`{workflow['id']}`" in PAGE
    assert {kind: node["typeVersion"] for kind, node in types.items()}.items() <= VERSIONS.items()
    # Without it, n8n serves the webhook at another path than the page's.
    assert types["webhook"]["webhookId"]
    assert f"/webhook/{types['webhook']['parameters']['path']}`" in PAGE
    # n8n keeps an older release's meaning of connections where this is missing.
    assert workflow["settings"]["executionOrder"] == "v1"


def test_recipes_can_be_imported_side_by_side() -> None:
    workflows = [recipe(name) for name in RECIPES]
    webhooks = [workflow["nodes"][0] for workflow in workflows]

    assert len({workflow["id"] for workflow in workflows}) == len(RECIPES)
    assert len({node["parameters"]["path"] for node in webhooks}) == len(RECIPES)
    assert len({node["webhookId"] for node in webhooks}) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_failure_of_the_work_is_answered(name: str) -> None:
    workflow = recipe(name)
    nodes = {node["name"]: node for node in workflow["nodes"]}

    assert nodes["Do the work"]["onError"] == "continueRegularOutput"
    assert nodes["Do the work"]["alwaysOutputData"] is True
    (after,) = workflow["connections"]["Do the work"]["main"][0]
    assert "isError: true" in json.dumps(nodes[after["node"]]["parameters"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_only_nodes_that_it_has(name: str) -> None:
    workflow = recipe(name)
    names = {node["name"] for node in workflow["nodes"]}

    assert set(re.findall(r"\$\('([^']+)'\)", json.dumps(workflow))) <= names


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_rejects_unsigned_requests_first(name: str) -> None:
    workflow = recipe(name)
    nodes = {node["name"]: node for node in workflow["nodes"]}
    signed, unsigned = workflow["connections"]["Signed and fresh?"]["main"]

    assert nodes["Webhook"]["parameters"]["options"] == {"rawBody": True}
    assert [target["node"] for target in signed] == ["Read the call"]
    assert [target["node"] for target in unsigned] == ["Refuse"]
    refuse = nodes["Refuse"]["parameters"]
    assert refuse["options"]["responseCode"] == 401
    # Without it, n8n says that its text is a web page.
    (header,) = refuse["options"]["responseHeaders"]["entries"]
    assert (header["name"], header["value"]) == ("Content-Type", "text/plain; charset=utf-8")
    assert "Refuse" not in workflow["connections"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_computes_the_schemes_hmac_and_contains_no_secret(name: str) -> None:
    for node in recipe(name)["nodes"]:
        if node["type"] == "n8n-nodes-base.crypto":
            parameters = node["parameters"]
            assert (parameters["action"], parameters["type"]) == ("hmac", "SHA256")
            assert parameters["encoding"] == "base64"
            assert parameters["value"].endswith(".join('.') }}")
            # n8n chooses the credential of this name, if there is one.
            assert node["credentials"]["crypto"]["id"] == ""
            assert f"`{node['credentials']['crypto']['name']}`" in PAGE
            assert "secret" not in parameters


def test_a_plain_secret_is_what_the_crypto_node_takes_it_for() -> None:
    """It counts a secret by its text, as `hmac` does here."""
    moment = datetime.fromtimestamp(1769850000, UTC)
    headers = signature_headers(signing_key(SECRET), BODY, message_id="a", moment=moment)
    by_text = hmac.digest(SECRET.encode(), b"a.1769850000." + BODY, hashlib.sha256)

    assert headers["webhook-signature"] == f"v1,{base64.b64encode(by_text).decode()}"


def recipe(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCS / "recipes" / f"{name}.json").read_text())
    return loaded
