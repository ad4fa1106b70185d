"""Sealed secrets and the keys that open them."""

import pytest

from services.tools.secrets import (
    NoEncryptionKeyError,
    SecretVault,
    UnreadableSecretError,
    WeakEncryptionKeyError,
)

OLD, NEW = "o" * 32, "n" * 40


def test_a_sealed_secret_opens_for_its_owner() -> None:
    vault = SecretVault(OLD)

    assert vault.open(vault.seal(b"hush", owner="tool:a"), owner="tool:a") == b"hush"


def test_a_secret_does_not_open_for_another_owner() -> None:
    vault = SecretVault(OLD)
    sealed = vault.seal(b"hush", owner="tool:a")

    with pytest.raises(UnreadableSecretError):
        vault.open(sealed, owner="tool:b")


def test_the_same_secret_looks_different_each_time_and_never_like_itself() -> None:
    vault = SecretVault(OLD)
    sealed = {vault.seal(b"hush", owner="a") for _ in range(10)}

    assert len(sealed) == 10
    assert not any(b"hush" in one for one in sealed)


def test_a_secret_outlives_its_key_as_the_first_one() -> None:
    sealed = SecretVault(OLD).seal(b"hush", owner="a")

    assert SecretVault(f"{NEW},{OLD}").open(sealed, owner="a") == b"hush"


def test_the_first_key_seals() -> None:
    sealed = SecretVault(f" {NEW} , {OLD} ").seal(b"hush", owner="a")

    assert SecretVault(NEW).open(sealed, owner="a") == b"hush"
    with pytest.raises(UnreadableSecretError):
        SecretVault(OLD).open(sealed, owner="a")


@pytest.mark.parametrize("place", [0, 1, 8, 9, 20, 21, -1])
def test_a_secret_that_was_tampered_with_does_not_open(place: int) -> None:
    vault = SecretVault(OLD)
    sealed = bytearray(vault.seal(b"hush", owner="a"))
    sealed[place] ^= 1

    with pytest.raises(UnreadableSecretError):
        vault.open(bytes(sealed), owner="a")


@pytest.mark.parametrize("length", [0, 1, 9, 15, 21, 30])
def test_a_secret_that_was_cut_off_does_not_open(length: int) -> None:
    vault = SecretVault(OLD)
    sealed = vault.seal(b"hush", owner="a")

    with pytest.raises(UnreadableSecretError):
        vault.open(sealed[:length], owner="a")


def test_without_a_key_nothing_is_sealed_and_nothing_opened() -> None:
    vault = SecretVault(" , ")

    assert not vault.has_key
    with pytest.raises(NoEncryptionKeyError):
        vault.seal(b"hush", owner="a")
    with pytest.raises(UnreadableSecretError):
        vault.open(b"", owner="a")


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(WeakEncryptionKeyError):
        SecretVault(f"{OLD},short")
