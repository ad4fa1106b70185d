"""Settings: their names in the environment, their defaults and their bounds."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.settings import InvalidSettingsError, Settings, read_settings

STANDARD = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "DATABASE_URL", "REDIS_URL"),
    *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"),
)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"EVERTURN_{name.upper()}" for name in Settings.model_fields]
    for name in (*names, *STANDARD):
        monkeypatch.delenv(name, raising=False)


def settings(**given: Any) -> Settings:  # noqa: ANN401 -- any setting
    return Settings(_env_file=None, **given)


def test_every_setting_but_secrets_has_a_default() -> None:
    defaults = settings()

    assert defaults.default_model in defaults.models
    assert defaults.max_body_bytes == 1024 * 1024
    assert defaults.event_retention_s == 3600


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_MAX_STEPS", "3")
    monkeypatch.setenv("EVERTURN_MODELS", "claude-a, claude-b,")
    monkeypatch.setenv("EVERTURN_MODEL_PRICES", '{"claude-a": {"input": "3", "output": "15"}}')

    read = settings()

    assert read.max_steps == 3
    assert read.models == ("claude-a", "claude-b")
    assert read.model_prices["claude-a"].output == Decimal(15)


@pytest.mark.parametrize("name", STANDARD)
def test_names_that_have_a_standard_keep_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    field = name.lower()
    monkeypatch.setenv(f"EVERTURN_{name}", "not this")
    monkeypatch.setenv(name, "this")

    value = getattr(settings(), field)

    assert (value if isinstance(value, str) else value.get_secret_value()) == "this"


def test_a_file_is_overruled_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text("EVERTURN_MAX_STEPS=4\nEVERTURN_MAX_QUEUED_TURNS=5\nUNKNOWN=6\n")
    monkeypatch.setenv("EVERTURN_MAX_STEPS", "3")

    read = Settings(_env_file=file)

    assert (read.max_steps, read.max_queued_turns) == (3, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("max_steps", 101),
        ("api_port", 65536),
        ("api_port", "http"),
        ("model_attempts", 0),
        ("delta_interval_ms", -1),
        ("max_body_bytes", 1),
        ("log_format", "xml"),
        ("keep_alive_s", 0),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        settings(**{name: value})


def test_secrets_are_not_shown() -> None:
    shown = repr(settings(auth_secret="hush", database_url="postgresql://u:hush@h/d"))

    assert "hush" not in shown


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", None),
        ("https://chat.example.com", "https://chat.example.com"),
        ("https://chat.example.com/", "https://chat.example.com"),
        ("http://10.0.0.7:8000/everturn//", "http://10.0.0.7:8000/everturn"),
    ],
)
def test_paths_are_appended_to_the_public_url(
    given: str, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTURN_PUBLIC_URL", given)

    assert Settings(_env_file=None).public_url == kept


@pytest.mark.parametrize(
    "given",
    ["chat.example.com", "ftp://a.example", "https://a.example/?b", "https://u:p@a.example"],
)
def test_a_public_url_unusable_for_callbacks_is_rejected(given: str) -> None:
    with pytest.raises(ValidationError):
        settings(public_url=given)


@pytest.mark.parametrize(
    "given",
    [
        {"alert_webhook_url": "https://ops.example.com/alerts"},
        {"alert_webhook_secret": "at least sixteen characters"},
        {"alert_webhook_url": "", "alert_webhook_secret": "at least sixteen characters"},
        {"alert_webhook_url": "https://ops.example.com/alerts", "alert_webhook_secret": ""},
    ],
)
def test_the_webhook_of_alerts_needs_a_url_and_a_secret(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="EVERTURN_ALERT_WEBHOOK_URL"):
        settings(**given)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("ftp://ops.example.com", "at least sixteen characters"),
        ("https://me:pw@ops.example.com", "at least sixteen characters"),
        ("https://ops.example.com", "short"),
    ],
)
def test_an_unusable_webhook_of_alerts_is_refused(url: str, secret: str) -> None:
    with pytest.raises(ValidationError):
        settings(alert_webhook_url=url, alert_webhook_secret=secret)


def test_alerts_are_only_stored_by_default() -> None:
    read = settings(alert_webhook_url="", alert_webhook_secret="")

    assert (read.alert_webhook_url, read.alert_webhook_secret) == (None, None)


def test_origins_are_those_that_browsers_send(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "https://app.example.com, http://localhost:5173,http://[::1]:80,tauri://localhost,*"
    monkeypatch.setenv("EVERTURN_CORS_ORIGINS", listed)
    assert len(settings().cors_origins or ()) == 5

    for wrong in ("https://app.example.com/", "https://App.example.com", "app.example.com"):
        monkeypatch.setenv("EVERTURN_CORS_ORIGINS", wrong)
        with pytest.raises(ValidationError, match=r"without a path: https://app\.example\.com"):
            settings()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"smtp_host": "mail.example"}, "EVERTURN_MAIL_FROM"),
        ({"smtp_host": "mail.example", "mail_from": "a@example.com"}, "EVERTURN_FRONTEND_URL"),
        ({"smtp_host": "mail.example", "mail_log": True}, "not both"),
        ({"require_verified_email": True}, "EVERTURN_SMTP_HOST"),
        ({"mail_from": "nobody"}, "Example <no-reply@example.com>"),
        ({"mail_from": "A\nBcc: b@example.com <a@example.com>"}, "Example <no-reply@example.com>"),
        ({"mail_from": "a@example.com, b@example.com"}, "Example <no-reply@example.com>"),
    ],
)
def test_mail_that_can_reach_nobody_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSettingsError, match=re.escape(says)):
        read_settings(_env_file=None, **given)


def test_a_sender_has_a_name_in_any_script() -> None:
    settings = Settings(_env_file=None, mail_from='"Grüße, Ω" <No-Reply@Bücher.example>')

    assert settings.mail_from == '"Grüße, Ω" <no-reply@xn--bcher-kva.example>'
    assert not settings.sends_mail
