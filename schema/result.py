"""`Result`: what a service returns for a decision that its caller must branch on."""

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[T_co]):
    """The decision was yes; `value` is what came of it."""

    value: T_co


@dataclass(frozen=True, slots=True)
class Err(Generic[E_co]):
    """The decision was no, and stays no for these inputs; `error` says why."""

    error: E_co


Result: TypeAlias = Ok[T_co] | Err[E_co]
