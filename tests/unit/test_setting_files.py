"""Settings that are read from files."""

from pathlib import Path

import pytest

from services.setting_files import SettingFileError
from services.settings import InvalidSettingsError, Settings, read_settings, variable_of


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in map(variable_of, Settings.model_fields):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("variable", sorted(map(variable_of, Settings.model_fields)))
def test_every_setting_has_a_variable_for_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setenv(f"{variable}_FILE", str(missing))

    with pytest.raises(SettingFileError) as refused:
        Settings()

    assert str(refused.value) == (
        f"The file {missing} of {variable}_FILE can't be read: No such file or directory."
    )


@pytest.mark.parametrize("written", ["hush", "hush\n", "hush\r\n"])
def test_a_secret_is_read_from_a_file_without_its_last_line_break(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    (tmp_path / "secret").write_bytes(written.encode())
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "secret"))

    key = Settings().anthropic_api_key

    assert key is not None
    assert key.get_secret_value() == "hush"


def test_the_file_can_be_named_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("https://chat.example.com")
    (tmp_path / ".env").write_text(f"EVERTURN_PUBLIC_URL_FILE={tmp_path / 'secret'}\n")

    assert Settings().public_url == "https://chat.example.com"


def test_the_environment_takes_precedence_over_a_file_named_in_dotenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "steps").write_text("3")
    (tmp_path / ".env").write_text(f"EVERTURN_MAX_STEPS_FILE={tmp_path / 'steps'}\n")
    monkeypatch.setenv("EVERTURN_MAX_STEPS", "4")

    assert Settings().max_steps == 4


def test_a_setting_and_its_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://hush@db/everturn")
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database_url")

    with pytest.raises(SettingFileError) as refused:
        Settings()

    assert str(refused.value) == "DATABASE_URL and DATABASE_URL_FILE are both set. Set one of them."


def test_a_file_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff")
    monkeypatch.setenv("EVERTURN_AUTH_SECRET_FILE", str(tmp_path / "secret"))

    with pytest.raises(SettingFileError, match="EVERTURN_AUTH_SECRET_FILE can't be read: it is"):
        Settings()


def test_a_setting_that_must_be_json_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVERTURN_ISSUERS", "[hush")

    with pytest.raises(InvalidSettingsError) as refused:
        read_settings()

    assert str(refused.value) == "Invalid settings. EVERTURN_ISSUERS: must be valid JSON"
