"""Requests written by hand, sent to every operation that has a place for them."""

import asyncio
import json

from tests.fuzz.accounts import Accounts, asker_of
from tests.fuzz.findings import CONFORMS
from tests.fuzz.nasty import (
    BODIES,
    HEADERS,
    LITERALS,
    NEVER_VALID,
    SEGMENTS,
    queries,
    some_of,
    with_literal,
)
from tests.fuzz.operations import Operation
from tests.fuzz.probing import Probe
from tests.fuzz.things import parameters_of


async def test_any_field_may_hold_anything(
    accounts: Accounts, operation_with_fields: Operation, share: int
) -> None:
    fields = operation_with_fields.fields

    def probe() -> None:
        with Probe(accounts, asker_of(operation_with_fields), operation_with_fields) as probing:
            example = json.loads(probing.valid_body() or b"{}")
            for field in fields:
                for literal in some_of(LITERALS.values(), (operation_with_fields, field), share):
                    probing.send_by_hand(body=with_literal(example, field, literal))
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_a_body_may_be_anything(accounts: Accounts, operation: Operation, share: int) -> None:
    def probe() -> None:
        with Probe(accounts, asker_of(operation), operation) as probing:
            for name, (headers, body) in some_of(BODIES.items(), operation, share):
                response = probing.send_by_hand(headers=headers, body=body)
                if response is not None and "requestBody" in operation.definition:
                    refused = response.status_code >= 400 or name not in NEVER_VALID
                    probing.findings.expect(response, that=refused, what="This is no valid body.")
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_a_query_may_be_anything(
    accounts: Accounts, operation: Operation, share: int
) -> None:
    names = [each["name"] for each in operation.parameters if each["in"] == "query"]

    def probe() -> None:
        with Probe(accounts, asker_of(operation), operation) as probing:
            for name in names or ["unknown"]:
                for query in some_of(queries(name), operation, share):
                    probing.send_by_hand(query=query)
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_headers_may_be_anything(
    accounts: Accounts, operation: Operation, share: int
) -> None:
    def probe() -> None:
        with Probe(accounts, asker_of(operation), operation) as probing:
            for name, value in some_of(HEADERS, operation, share):
                probing.send_by_hand(headers={name: value})
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_an_id_in_a_path_may_be_anything(
    accounts: Accounts, operation_with_ids: Operation, share: int
) -> None:
    names = parameters_of(operation_with_ids.path)

    def probe() -> None:
        with Probe(accounts, asker_of(operation_with_ids), operation_with_ids) as probing:
            for name in names:
                for segment in some_of(SEGMENTS, (operation_with_ids, name), share):
                    path = probing.existing_path(**{name: segment})
                    response = probing.send_by_hand(path=path, checks=CONFORMS)
                    if response is not None:
                        allowed = {*operation_with_ids.statuses, "404", "405"}
                        probing.findings.expect(
                            response,
                            that=str(response.status_code) in allowed,
                            what="This status is not documented.",
                        )
            probing.findings.check_none()

    await asyncio.to_thread(probe)
