"""The namespace that workflows run in: what it lacks, and how it gets that.

NamespaceError    it is missing or incomplete, or Temporal refuses to change it
"""

import asyncio
import re
from datetime import timedelta
from typing import Final

import structlog
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    GetSystemInfoRequest,
    RegisterNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from schema.names import SEARCH_ATTRIBUTES
from services.setup_errors import SetupError

_log = structlog.get_logger(__name__)

_OLDEST_SERVER: Final = (1, 25)
"""The first version with summaries of runs; conflict policies of workflow ids came just before."""

_RPC_TIMEOUT: Final = timedelta(seconds=10)
_SPREADING_S: Final = 60.0
"""How long Temporal's processes may take to learn of a namespace or an attribute; usually 10 s."""
_PAUSE_S: Final = 0.2

_KINDS: Final = {
    number: name.removeprefix("INDEXED_VALUE_TYPE_").title().replace("_", "")
    for name, number in IndexedValueType.items()
}
"""Types of search attributes as Temporal's CLI names them, e.g. `KeywordList`."""
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}

_REFUSED: Final = frozenset(
    {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED}
)


class NamespaceError(SetupError):
    """The namespace is missing or incomplete, or Temporal refuses to change it."""


async def find_problem(client: Client) -> str | None:
    """Return what keeps turns from running in the client's namespace, as a sentence; or None.

    Errors: RPCError, or RuntimeError of a lazy client, where Temporal can't be reached.
    """
    too_old = await _problem_with_version(client)
    if too_old is not None:
        return too_old
    try:
        kinds = await _attributes(client)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return _no_namespace(client)
        if error.status not in _REFUSED:
            raise
        # Managed services keep operators' calls to themselves. A query needs the attributes, too.
        return await _problem_with_query(client)
    return _problem_with(client, kinds)


async def set_up_namespace(
    client: Client, *, create: bool, retention: timedelta = timedelta(days=7)
) -> None:
    """Add the search attributes that the namespace lacks; with `create`, also the namespace.

    Returns once they can be used. `retention` is how long a new namespace keeps ended workflows.
    Errors: NamespaceError; RPCError, or RuntimeError of a lazy client, where Temporal can't be
    reached.
    Idempotency: does nothing to a namespace that is complete.
    """
    too_old = await _problem_with_version(client)
    if too_old is not None:
        raise NamespaceError(too_old)
    try:
        kinds = await _attributes(client)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND and create:
            await _create(client, retention)
            kinds = await _attributes_of_new(client)
        elif error.status is RPCStatusCode.NOT_FOUND:
            raise NamespaceError(_no_namespace(client)) from error
        elif error.status in _REFUSED and await _problem_with_query(client) is None:
            return
        else:
            raise _refused(client, error) from error
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in kinds}
    if missing:
        await _add(client, missing)
        kinds = await _attributes(client)
    problem = _problem_with(client, kinds)
    if problem is not None:
        raise NamespaceError(problem)
    await _await_use(client)


async def _attributes(client: Client) -> dict[str, str]:
    """Return the namespace's search attributes, each with its type. Errors: RPCError."""
    request = ListSearchAttributesRequest(namespace=client.namespace)
    found = await client.operator_service.list_search_attributes(request, timeout=_RPC_TIMEOUT)
    return {name: _KINDS[kind] for name, kind in found.custom_attributes.items()}


def _problem_with(client: Client, kinds: dict[str, str]) -> str | None:
    wrong = [
        f"{name} is of type {kinds[name]} instead of {kind}"
        for name, kind in SEARCH_ATTRIBUTES.items()
        if kinds.get(name, kind) != kind
    ]
    if wrong:
        return (
            f"In Temporal's namespace {client.namespace!r}, the search attribute "
            f"{', '.join(wrong)}. Remove it with `temporal operator search-attribute remove`, "
            "then run `everturn setup-temporal`."
        )
    missing = sorted(SEARCH_ATTRIBUTES.keys() - kinds.keys())
    return _missing(client, ", ".join(missing)) if missing else None


async def _problem_with_query(client: Client) -> str | None:
    """Return what a query of all attributes is refused for, as a sentence; or None."""
    query = " AND ".join(f"{name} IS NULL" for name in SEARCH_ATTRIBUTES)
    request = CountWorkflowExecutionsRequest(namespace=client.namespace, query=query)
    try:
        await client.workflow_service.count_workflow_executions(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return _no_namespace(client)
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            return _missing(client, f"{', '.join(SEARCH_ATTRIBUTES)} ({error.message})")
        if error.status in _REFUSED:
            return (
                f"Temporal refuses this client the namespace {client.namespace!r}: "
                f"{error.message}. Check TEMPORAL_NAMESPACE and TEMPORAL_API_KEY, or the client "
                "certificate."
            )
        raise
    return None


async def _problem_with_version(client: Client) -> str | None:
    """Return that the server is too old, as a sentence; or None."""
    found = await client.workflow_service.get_system_info(
        GetSystemInfoRequest(), timeout=_RPC_TIMEOUT
    )
    if not is_too_old(found.server_version):
        return None
    return (
        f"Temporal's server is version {found.server_version}. Everturn needs "
        f"{'.'.join(map(str, _OLDEST_SERVER))} or newer."
    )


def is_too_old(server_version: str) -> bool:
    """Return whether a server lacks what workflows need. A version that is no number passes."""
    numbers = re.match(r"(\d+)\.(\d+)", server_version)
    return numbers is not None and tuple(map(int, numbers.groups())) < _OLDEST_SERVER


async def _create(client: Client, retention: timedelta) -> None:
    period = Duration()
    period.FromTimedelta(retention)
    request = RegisterNamespaceRequest(
        namespace=client.namespace,
        description="Everturn",
        workflow_execution_retention_period=period,
    )
    try:
        await client.workflow_service.register_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        # Of several that create it at once, one succeeds.
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise _refused(client, error) from error
    else:
        _log.info("temporal_namespace_created", namespace=client.namespace)


async def _attributes_of_new(client: Client) -> dict[str, str]:
    async with asyncio.timeout(_SPREADING_S):
        while True:
            try:
                return await _attributes(client)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(_PAUSE_S)


async def _add(client: Client, missing: dict[str, str]) -> None:
    request = AddSearchAttributesRequest(
        namespace=client.namespace,
        search_attributes={
            name: IndexedValueType.ValueType(_NUMBERS[kind]) for name, kind in missing.items()
        },
    )
    try:
        await client.operator_service.add_search_attributes(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise _refused(client, error) from error
    else:
        _log.info("search_attributes_added", namespace=client.namespace, attributes=sorted(missing))


async def _await_use(client: Client) -> None:
    """Return once the attributes can be used: a server that just learned of them caches for 10 s.

    Errors: NamespaceError after a minute.
    """
    problem = None
    try:
        async with asyncio.timeout(_SPREADING_S):
            while True:
                problem = await _problem_with_query(client)
                if problem is None:
                    return
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise NamespaceError(problem or "Temporal does not answer.") from error


def _no_namespace(client: Client) -> str:
    return (
        f"Temporal has no namespace {client.namespace!r}. Set TEMPORAL_NAMESPACE, or create it: "
        "everturn setup-temporal --create-namespace"
    )


def _missing(client: Client, names: str) -> str:
    return (
        f"Temporal's namespace {client.namespace!r} lacks the search attributes {names}: "
        "no turn can start. Add them: everturn setup-temporal"
    )


def _refused(client: Client, error: RPCError) -> NamespaceError:
    wanted = ", ".join(f"{name} ({kind})" for name, kind in SEARCH_ATTRIBUTES.items())
    return NamespaceError(
        f"Temporal refuses to set up the namespace {client.namespace!r}: {error.message}. It must "
        f"exist and have these search attributes: {wanted}."
    )
