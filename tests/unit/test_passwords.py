"""What production spends on a password; the tests' own stacks spend less."""

import runpy

from services.auth import credentials


async def test_passwords_are_hashed_at_the_cost_that_rfc_9106_recommends() -> None:
    # A fresh copy of the module: a test stack may have lowered the cost in this process.
    hashed = await runpy.run_path(credentials.__file__)["Passwords"]().hash("secret")

    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
