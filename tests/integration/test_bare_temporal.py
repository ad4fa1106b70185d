"""A Temporal that knows nothing of Everturn: what is said of it, and how it is set up."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoResponse
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from activities.namespace import NamespaceError, find_problem, is_too_old, set_up_namespace
from api.app import create_app
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.names import SEARCH_ATTRIBUTES
from schema.turns import TurnReference
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import unique
from tests.fixtures.bare_servers import bare_temporal
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client, open_stack
from workers.composition.api import open_api_services
from workers.composition.temporal import connect_temporal
from workers.deployment.versions import DeploymentError, check_version

MISSING = "Temporal has no namespace 'chats'. Set TEMPORAL_NAMESPACE, or create it: "
LACKING = (
    "Temporal's namespace 'default' lacks the search attributes "
    f"{', '.join(sorted(SEARCH_ATTRIBUTES))}"
    ": no turn can start. Add them: everturn setup-temporal"
)


@pytest.fixture(scope="module")
async def address() -> AsyncIterator[str]:
    """A bare server; each test has a namespace of its own."""
    async with bare_temporal("--namespace=partly", "--namespace=wrong") as started:
        yield started


async def client_of(address: str, namespace: str) -> Client:
    return await Client.connect(address, namespace=namespace)


async def attributes_of(client: Client) -> dict[str, int]:
    found = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return {name: kind for name, kind in found.custom_attributes.items() if name.startswith("Ev")}


async def add(client: Client, **kinds: IndexedValueType.ValueType) -> None:
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=client.namespace, search_attributes=kinds)
    )


async def test_turns_are_answered_once_a_bare_namespace_is_set_up(
    stack: Stack, stack_name: str, address: str
) -> None:
    overrides = {"temporal_address": address, "temporal_namespace": "default"}
    settings = stack.settings.model_copy(update=overrides)
    client = await connect_temporal(settings, lazy=True)
    turn = TurnReference(
        turn_id=TurnId(new_id()), chat_id=ChatId(new_id()), user_id=UserId(new_id()), model="m"
    )
    with capture_logs() as logs:
        async with (
            open_api_services(stack.foundation, client, eager=False) as services,
            serving(create_app(services, max_body_bytes=10_000)) as origin,
            api_client(origin) as http,
        ):
            before = await readiness(http)
            started = await services.temporal.start_turn(turn)

            await set_up_namespace(client, create=False)
            after = await readiness(http)

    assert before == {"status": "degraded", "temporal": "unavailable", "problems": [LACKING]}
    assert after == {"status": "ok", "temporal": "ok", "problems": []}
    assert started is False
    # A server that is slow for a moment is a problem of its own.
    assert LACKING in [log["problem"] for log in logs if log["event"] == "temporal_problem"]
    [refused] = [log for log in logs if log["event"] == "turn_start_refused"]
    assert refused["log_level"] == "error"
    assert "search attribute Everturn" in refused["reason"]

    question = unique()
    async with open_stack(f"{stack_name}-bare", overrides) as running:
        running.model.add(Script(match=question, text="From a bare server."))
        user = await running.sign_up()
        answered = await user.ask(await user.create_chat(), question)
    assert answered["turn"]["status"] == "completed"


async def readiness(http: httpx.AsyncClient) -> dict[str, Any]:
    data = (await http.get("/health/ready")).json()["data"]
    return {name: data[name] for name in ("status", "temporal", "problems")}


async def test_a_worker_refuses_a_namespace_that_lacks_something(
    stack: Stack, address: str
) -> None:
    overrides = {"temporal_address": address, "temporal_namespace": "chats"}

    with pytest.raises(NamespaceError) as refused:
        await connect_temporal(stack.settings.model_copy(update=overrides), lazy=False)

    assert str(refused.value) == f"{MISSING}everturn setup-temporal --create-namespace"


async def test_a_namespace_is_created_only_if_asked_for(address: str) -> None:
    client = await client_of(address, "asked-for")
    with pytest.raises(NamespaceError, match="no namespace 'asked-for'"):
        await set_up_namespace(client, create=False)

    await asyncio.gather(
        *(set_up_namespace(client, create=True, retention=timedelta(days=30)) for _ in range(3))
    )

    described = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace="asked-for")
    )
    assert described.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=30)
    assert (await attributes_of(client)).keys() == SEARCH_ATTRIBUTES.keys()
    assert await find_problem(client) is None


async def test_attributes_that_exist_already_are_kept(address: str) -> None:
    client = await client_of(address, "partly")
    await add(client, EverturnModel=IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD)

    await set_up_namespace(client, create=False)
    await set_up_namespace(client, create=True)

    assert await find_problem(client) is None


async def test_an_attribute_of_another_type_is_named(address: str) -> None:
    client = await client_of(address, "wrong")
    await add(client, EverturnModel=IndexedValueType.INDEXED_VALUE_TYPE_INT)

    with pytest.raises(NamespaceError) as refused:
        await set_up_namespace(client, create=False)

    assert str(refused.value) == (
        "In Temporal's namespace 'wrong', the search attribute EverturnModel is of type Int "
        "instead of Keyword. Remove it with `temporal operator search-attribute remove`, then run "
        "`everturn setup-temporal`."
    )


async def test_a_server_that_is_too_old_is_named_by_its_set_up_and_by_processes(
    stack: Stack, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def of_an_older_server(*_: object, **__: object) -> GetSystemInfoResponse:
        return GetSystemInfoResponse(server_version="1.24.2")

    client = await client_of(address, "default")
    monkeypatch.setattr(WorkflowService, "get_system_info", of_an_older_server)
    overrides = {"temporal_address": address, "temporal_namespace": "default"}

    for refusing in (
        set_up_namespace(client, create=False),
        connect_temporal(stack.settings.model_copy(update=overrides), lazy=False),
    ):
        with pytest.raises(NamespaceError) as refused:
            await refusing
        assert str(refused.value) == (
            "Temporal's server is version 1.24.2. Everturn needs 1.25 or newer."
        )


async def test_versions_of_workers_need_a_server_that_knows_them(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object, **__: object) -> object:
        raise RPCError("unknown method DescribeWorkerDeployment", RPCStatusCode.UNIMPLEMENTED, b"")

    client = await client_of(address, "default")
    monkeypatch.setattr(WorkflowService, "describe_worker_deployment", unknown)

    await check_version(client, None)
    with pytest.raises(DeploymentError, match=r"Upgrade it to 1\.28 or newer, or unset EVERTURN_B"):
        await check_version(client, "1.3.0")


@pytest.mark.parametrize(
    ("version", "too_old"),
    [("1.24.2", True), ("0.9", True), ("1.25.0", False), ("1.31.0-rc1", False), ("dev", False)],
)
def test_a_server_that_is_too_old_is_refused(version: str, too_old: bool) -> None:  # noqa: FBT001 -- a case
    assert is_too_old(version) is too_old
