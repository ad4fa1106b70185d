"""Owns hashing passwords: Argon2id, off the event loop."""

import asyncio
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

_HASHES: Final = PasswordHash((Argon2Hasher(),))


class Passwords:
    """Hashes and verifies passwords. Hashing takes tens of milliseconds of CPU on purpose."""

    def __init__(self) -> None:
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """Return the hash of a password, salt and parameters included."""
        return await asyncio.to_thread(_HASHES.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Say whether the password is that of the hash.

        Without a hash it works as long and says no, so that time does not tell which e-mail
        addresses have accounts.
        """
        if password_hash is None:
            self._decoy = self._decoy or await self.hash("decoy")
            await asyncio.to_thread(_HASHES.verify, password, self._decoy)
            return False
        return await asyncio.to_thread(_HASHES.verify, password, password_hash)
