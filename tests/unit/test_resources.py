"""What tells a repeated request from another one under the same idempotency key."""

from hashlib import sha256

import pytest
from pydantic import BaseModel

from services.resources import hash_of_request


class Wish(BaseModel):
    what: str
    stream: bool


@pytest.mark.parametrize(
    ("asked", "without", "hashed"),
    [
        ("Wish", None, b'Wish\n{"what":"A cat","stream":true}'),
        ("regenerate 1", "stream", b'regenerate 1\n{"what":"A cat"}'),
        (1, "stream", b'1\n{"what":"A cat"}'),
    ],
)
def test_hashes_that_are_stored_stay_those_of_their_requests(
    asked: object, without: str | None, hashed: bytes
) -> None:
    made = hash_of_request(asked, Wish(what="A cat", stream=True), without=without)

    assert made == sha256(hashed).digest()
