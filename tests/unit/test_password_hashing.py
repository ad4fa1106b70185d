"""How passwords are hashed beside everything else that a process does."""

import asyncio
import os
import sys
import threading

import pytest

from services.auth import credentials
from services.auth.credentials import Passwords


class Hashes:
    """Notes whether two run at the same time, and how urgent they are to the system."""

    def __init__(self) -> None:
        self.priorities: list[int] = []
        self.have_met = False
        self._meeting = threading.Barrier(2)

    def hash(self, password: str) -> str:
        self.priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        try:
            self._meeting.wait(timeout=0.1)
            self.have_met = True
        except threading.BrokenBarrierError:
            self._meeting.reset()
        return password


async def test_passwords_are_hashed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = Hashes()
    monkeypatch.setattr(credentials, "_HASHES", hashes)
    passwords = Passwords()

    hashed = await asyncio.gather(*map(passwords.hash, "abc"))

    assert hashed == ["a", "b", "c"]
    assert not hashes.have_met


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_hashing_gives_way_to_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = Hashes()
    monkeypatch.setattr(credentials, "_HASHES", hashes)
    own = os.getpriority(os.PRIO_PROCESS, 0)

    await Passwords().hash("a")

    assert hashes.priorities == [3]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_a_password_is_verified(password: str) -> None:
    passwords = Passwords()
    known = await passwords.hash("right")

    assert await passwords.verify(password, known) is (password == "right")
    assert not await passwords.verify(password, None)
