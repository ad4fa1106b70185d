"""Owns what a parser process says: the text, or why there is none."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from schema.result import Err, Ok, Result
from services.knowledge.extraction.documents import ExtractionRefusal


class Answer(BaseModel):
    """Either of the two, and never both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = None
    refusal: ExtractionRefusal | None = None

    @classmethod
    def of(cls, result: Result[str, ExtractionRefusal]) -> Self:
        """Return the answer that carries a decision."""
        match result:
            case Ok(text):
                return cls(text=text)
            case Err(refusal):
                return cls(refusal=refusal)

    def result(self) -> Result[str, ExtractionRefusal]:
        """Return it as the decision that it is."""
        if self.refusal is not None:
            return Err(self.refusal)
        return Ok(self.text or "")
