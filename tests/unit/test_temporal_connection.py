"""How Temporal is connected to: by what is set directly, and by profiles of its own tools."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.envconfig import ClientConnectConfig
from temporalio.service import TLSConfig

from services.settings import Settings, variable_of
from workers.composition.temporal import TemporalConfigError, connect_config

PROFILES = """
[profile.default]
address = "default.example.com:7233"

[profile.cloud]
address = "cloud.example.com:7233"
namespace = "chat.a1b2c"
api_key = "of the profile"

[profile.cloud.tls]
server_name = "named"
"""


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in map(variable_of, Settings.model_fields):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    file = tmp_path / "temporal.toml"
    file.write_text(PROFILES)
    return str(file)


def config(**given: Any) -> ClientConnectConfig:  # noqa: ANN401 -- any setting
    return connect_config(Settings(_env_file=None, **given))


def test_by_default_temporal_is_on_this_machine_without_tls() -> None:
    assert config() == {"target_host": "127.0.0.1:7233", "namespace": "default"}


def test_an_api_key_turns_tls_on() -> None:
    assert config(temporal_address="t:1", temporal_api_key="key") == {
        "target_host": "t:1",
        "namespace": "default",
        "api_key": "key",
        "tls": True,
    }


def test_tls_can_be_turned_off_for_an_api_key() -> None:
    assert config(temporal_api_key="key", temporal_tls=False)["tls"] is False


def test_certificates_come_from_files_or_directly(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(f"{name} in a file")

    in_files = config(
        temporal_tls_server_name="temporal",
        temporal_tls_server_ca_cert_path=str(tmp_path / "ca"),
        temporal_tls_client_cert_path=str(tmp_path / "cert"),
        temporal_tls_client_key_path=str(tmp_path / "key"),
    )
    directly = config(temporal_tls_client_cert_data="cert", temporal_tls_client_key_data="key")

    assert in_files["tls"] == TLSConfig(
        domain="temporal",
        server_root_ca_cert=b"ca in a file",
        client_cert=b"cert in a file",
        client_private_key=b"key in a file",
    )
    assert directly["tls"] == TLSConfig(client_cert=b"cert", client_private_key=b"key")


def test_a_profile_is_used_and_what_is_set_directly_takes_precedence(profiles: str) -> None:
    default = config(temporal_config_file=profiles)
    cloud = config(
        temporal_config_file=profiles, temporal_profile="cloud", temporal_namespace="mine"
    )

    assert default == {"target_host": "default.example.com:7233", "namespace": "default"}
    assert cloud == {
        "target_host": "cloud.example.com:7233",
        "namespace": "mine",
        "api_key": "of the profile",
        "tls": TLSConfig(domain="named"),
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"temporal_config_file": "/missing.toml"}, "TEMPORAL_CONFIG_FILE"),
        ({"temporal_profile": "missing"}, "can't be used: Profile 'missing' not found"),
        ({"temporal_tls_server_ca_cert_path": "/missing.pem"}, "/missing.pem"),
    ],
)
def test_what_cannot_be_read_is_named(profiles: str, given: dict[str, str], named: str) -> None:
    with pytest.raises(TemporalConfigError, match=named):
        config(**{"temporal_config_file": profiles, **given})
