"""The operations to fuzz, as the application's own OpenAPI document describes them.

This needs no server. Facts about single routes that the document does not contain are here, as
rules about paths.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, Final, TypeAlias

import schemathesis
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from workers.openapi import openapi_document

GeneratedCase: TypeAlias = Case[Any]
PREFIX: Final = "/api/v1"
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_STREAM_EVENTS: Final = 20
_VALID_CASES: Final = 6


@dataclass(frozen=True)
class Operation:
    """A method of a path."""

    described: APIOperation[Any, Any, Any, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path.removeprefix(PREFIX)}"

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return self.described.method.upper()

    @property
    def path(self) -> str:
        """The path with its parameters in braces."""
        return str(self.described.path)

    @property
    def is_secured(self) -> bool:
        """Whether a token is asked for."""
        return bool(self.definition.get("security"))

    @property
    def is_for_administrators(self) -> bool:
        """Whether others than administrators are turned away."""
        return self.path.startswith(f"{PREFIX}/admin/")

    @property
    def ends_accounts(self) -> bool:
        """Whether it may close an account, take its rights or change its password."""
        own = self.path.startswith((f"{PREFIX}/users/me", f"{PREFIX}/auth/")) and self.is_secured
        return self.method != "GET" and (own or self.path.startswith(f"{PREFIX}/admin/users/"))

    @property
    def deletes_accounts(self) -> bool:
        """Whether what it deletes is the account that asks."""
        return self.method == "DELETE" and self.path == f"{PREFIX}/users/me"

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters, with references followed."""
        return [dict(each.definition) for each in self.described.iter_parameters()]

    @property
    def definition(self) -> dict[str, Any]:
        """The operation as the document has it."""
        return dict(self.described.definition.raw)

    @property
    def statuses(self) -> set[str]:
        """The documented statuses; `default` is not one."""
        return set(self.definition["responses"]) - {"default"}

    @property
    def takes_input(self) -> bool:
        """Whether anything can be sent that is not valid."""
        return bool(self.parameters or self.described.body)

    @cached_property
    def body_schema(self) -> dict[str, Any] | None:
        """The schema of the JSON body, or None without one."""
        content = self.definition.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return None if schema is None else resolve(schema)

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """The fields of the JSON body, and those of the objects in it, as paths."""
        found: list[tuple[str, ...]] = []
        for name, schema in (self.body_schema or {}).get("properties", {}).items():
            inside = resolve(schema).get("properties", {})
            found += [(name,), *((name, inner) for inner in inside)]
        return found

    def valid_cases(self, most: int = _VALID_CASES) -> list[GeneratedCase]:
        """Return requests that the description allows, the documented examples first."""
        return [_copied(case) for case in self._valid_cases[:most]]

    @cached_property
    def _valid_cases(self) -> list[GeneratedCase]:
        # Kept, since most requests of a run are made of them.
        return list(islice(self.boundary_cases([GenerationMode.POSITIVE]), _VALID_CASES))

    def boundary_cases(self, modes: list[GenerationMode]) -> Iterator[GeneratedCase]:
        """Yield the requests at the edges of what the description allows, the same every time."""
        schema = described_api()
        return schema.iter_coverage_cases(
            self.described,
            generation_modes=modes,
            generation_config=schema.config.generation_for(operation=self.described),
        )


def _copied(case: GeneratedCase) -> GeneratedCase:
    """Return a case that can be changed without changing this one."""
    return Case(
        case.operation,
        case.method,
        case.path,
        path_parameters=dict(case.path_parameters),
        headers=case.headers.copy(),
        cookies=dict(case.cookies),
        query=dict(case.query),
        body=dict(case.body) if isinstance(case.body, dict) else case.body,
        media_type=case.media_type,
        multipart_content_types=case.multipart_content_types,
        meta=deepcopy(case.meta),
    )


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the OpenAPI document of the application."""
    loaded: dict[str, Any] = json.loads(openapi_document())
    return loaded


@lru_cache(maxsize=1)
def described_api() -> schemathesis.BaseSchema:
    """Return the document as Schemathesis reads it; tokens are for the tests to send."""
    schema = schemathesis.openapi.from_dict(document())
    schema.config.generation.with_security_parameters = False
    schema.config.max_stream_events = _STREAM_EVENTS
    schema.config.phases.coverage.unexpected_methods = set()  # test_methods.py asks all of them
    return schema


@lru_cache(maxsize=1)
def operations() -> list[Operation]:
    """Return all operations whose responses end."""
    found = described_api().get_all_operations()
    known = [Operation(each.ok()) for each in found if isinstance(each, Ok)]
    return [each for each in known if each.path != f"{PREFIX}/users/me/events"]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its own reference followed, but not those inside it."""
    while "$ref" in schema:
        node: Any = document()
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        schema = node
    return schema
