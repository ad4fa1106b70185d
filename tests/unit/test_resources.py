"""The hash that distinguishes a retry from another request with the same key."""

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
    request_hash = hash_of_request(asked, Wish(what="A cat", stream=True), without=without)

    assert request_hash == sha256(hashed).digest()
