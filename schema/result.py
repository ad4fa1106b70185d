"""`Result`: what a service returns if its caller must branch on the outcome."""

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[T_co]):
    """Success, with its `value`."""

    value: T_co


@dataclass(frozen=True, slots=True)
class Err(Generic[E_co]):
    """A refusal, the same for every retry with these inputs; `error` says why."""

    error: E_co


Result: TypeAlias = Ok[T_co] | Err[E_co]
