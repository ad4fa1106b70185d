"""Owns `Result`, what a service returns for a decision that its caller must branch on."""

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The decision was yes; `value` is what came of it."""

    value: T


@dataclass(frozen=True, slots=True)
class Err(Generic[E]):
    """The decision was no, and stays no for these inputs; `error` says why."""

    error: E


Result: TypeAlias = Ok[T] | Err[E]
