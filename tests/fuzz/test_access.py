"""What every secured operation asks of a token, and every path of a method."""

import asyncio
import re
from base64 import urlsafe_b64encode
from typing import Final

from api.routing import takes_head
from tests.fuzz.accounts import Accounts, Actor, asker_of
from tests.fuzz.findings import CONFORMS
from tests.fuzz.operations import METHODS, Operation, operations
from tests.fuzz.probing import Probe


def _part(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


_UNSIGNED: Final = ".".join((_part('{"alg": "none"}'), _part('{"sub": "a", "role": "admin"}'), ""))
_NO_TOKENS: Final[tuple[bytes, ...]] = (
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer x",
    b"Bearer \xff\xfe",
    b"bearer " + b"x" * 8_000,
    b"Bearer a.b.c",
    b"Bearer " + _UNSIGNED.encode(),
    b"Basic YTpi",
    b"Basic \xff",
    b"Digest username=a",
)


async def test_without_a_valid_token_nothing_is_answered(
    accounts: Accounts, secured_operation: Operation
) -> None:
    def probe() -> None:
        with Probe(accounts, Actor.ANONYMOUS, secured_operation) as probing:
            for value in (None, *_NO_TOKENS):
                headers = {} if value is None else {"Authorization": value}
                response = probing.send_by_hand(headers=headers)
                if response is not None:
                    asked = response.status_code == 401 and "www-authenticate" in response.headers
                    probing.findings.expect(response, that=asked, what="No token was asked for.")
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_administrators_operations_are_theirs_only(
    accounts: Accounts, operation_of_administrators: Operation
) -> None:
    def probe() -> None:
        with Probe(accounts, Actor.MEMBER, operation_of_administrators) as probing:
            response = probing.send_by_hand()
            if response is not None:
                refused = response.status_code == 403
                probing.findings.expect(response, that=refused, what="A member may do this.")
            probing.findings.check_none()

    await asyncio.to_thread(probe)


async def test_methods_that_are_not_described_are_refused(
    accounts: Accounts, operation: Operation
) -> None:
    described = {each.method for each in operations() if each.path == operation.path}

    def probe() -> None:
        with Probe(accounts, asker_of(operation), operation) as probing:
            # HEAD is answered as GET is, and in no description.
            has_head = "GET" in described and takes_head(operation.path)
            answered = described | ({"HEAD"} if has_head else set())
            for method in sorted({*METHODS, "HEAD", "OPTIONS", "TRACE", "QUERY"} - answered):
                response = probing.send_by_hand(method=method, checks=())
                if response is not None:
                    refused = response.status_code == 405
                    probing.findings.expect(response, that=refused, what=f"{method} is answered.")
                    named = set(re.findall(r"\w+", ",".join(response.headers.get("allow", []))))
                    what = f"`Allow` has to name {', '.join(sorted(answered))}."
                    probing.findings.expect(response, that=named == answered, what=what)
                    if method != "HEAD":
                        probing.findings.judge(probing.plain_case(), response, CONFORMS)
            probing.findings.check_none()

    await asyncio.to_thread(probe)
