"""The settings: their names in the environment, defaults and bounds.

Each can also be read from a file: see setting_files.py.
"""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    IPvAnyNetwork,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from schema.usage import ModelPrice
from schema.users import Email
from schema.web_addresses import WebAddress
from services.file_settings import FileSettings
from services.mail.settings import MailSettings
from services.setting_files import with_files
from services.setup_errors import SetupError


def _standard(name: str) -> AliasChoices:
    """Read a setting under the name that other software already gave it."""
    return AliasChoices(name)


def _origin(address: str) -> str:
    """Return a URL that paths can be appended to."""
    if "?" in address:
        raise ValueError("must not have a query")
    return address.rstrip("/")


_PAGE_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]-]+")


def _page_origin(origin: str) -> str:
    """Return an origin as browsers send it."""
    if not _PAGE_ORIGIN.fullmatch(origin):
        raise ValueError("must be an origin in lower case, without a path: https://app.example.com")
    return origin


class Settings(MailSettings, FileSettings):
    """What an operator can set; read once at the start of a process.

    Errors: pydantic.ValidationError for a value out of bounds or of the wrong type.
    """

    model_config = SettingsConfigDict(
        env_prefix="EVERTURN_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        # Other settings are secret.
        hide_input_in_errors=True,
    )

    # Where things are
    database_url: SecretStr = Field(
        SecretStr("postgresql://everturn@127.0.0.1:5432/everturn"),
        validation_alias=_standard("DATABASE_URL"),
    )
    migration_database_url: SecretStr | None = None
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), validation_alias=_standard("REDIS_URL")
    )
    temporal_address: str = Field("127.0.0.1:7233", validation_alias=_standard("TEMPORAL_ADDRESS"))
    temporal_ui_url: WebAddress | None = None
    temporal_namespace: str = Field("default", validation_alias=_standard("TEMPORAL_NAMESPACE"))
    temporal_api_key: SecretStr | None = Field(None, validation_alias=_standard("TEMPORAL_API_KEY"))
    temporal_tls: bool | None = Field(None, validation_alias=_standard("TEMPORAL_TLS"))
    temporal_tls_server_name: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_SERVER_NAME")
    )
    temporal_tls_server_ca_cert_path: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_SERVER_CA_CERT_PATH")
    )
    temporal_tls_server_ca_cert_data: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_SERVER_CA_CERT_DATA")
    )
    temporal_tls_client_cert_path: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_CLIENT_CERT_PATH")
    )
    temporal_tls_client_cert_data: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_CLIENT_CERT_DATA")
    )
    temporal_tls_client_key_path: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_CLIENT_KEY_PATH")
    )
    temporal_tls_client_key_data: SecretStr | None = Field(
        None, validation_alias=_standard("TEMPORAL_TLS_CLIENT_KEY_DATA")
    )
    temporal_config_file: str | None = Field(
        None, validation_alias=_standard("TEMPORAL_CONFIG_FILE")
    )
    temporal_profile: str | None = Field(None, validation_alias=_standard("TEMPORAL_PROFILE"))
    temporal_encryption_keys: SecretStr | None = Field(
        None, description="Of what goes through Temporal."
    )
    anthropic_api_key: SecretStr | None = Field(
        None, validation_alias=_standard("ANTHROPIC_API_KEY")
    )
    anthropic_base_url: str | None = Field(None, validation_alias=_standard("ANTHROPIC_BASE_URL"))

    # HTTP
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    public_url: Annotated[WebAddress, AfterValidator(_origin)] | None = Field(
        None, description="Under which others reach the API."
    )
    max_head_bytes: int = Field(
        64 * 1024, ge=4096, le=1024 * 1024, description="Of a request's URL and headers."
    )
    head_timeout_s: float = Field(10.0, gt=0)
    body_timeout_s: float = Field(
        30.0, gt=0, description="In which a body, or 1024 bytes a second of it, must arrive."
    )
    max_connections: int = Field(4096, ge=16)
    max_connections_per_address: int = Field(
        2048, ge=1, description="Those of trusted proxies are not counted."
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    max_document_bytes: int = Field(20 * 1024 * 1024, ge=1024, le=100 * 1024 * 1024)
    answer_wait_s: float = Field(60.0, gt=0, description="How long `stream: false` waits.")
    keep_alive_s: float = Field(15.0, gt=0)
    frontend_url: Annotated[WebAddress, AfterValidator(_origin)] | None = Field(
        None, description="Where the links in mails lead."
    )
    eager_worker: bool = False
    drain_s: float = Field(
        0.0, ge=0, le=300, description="How long SIGTERM leaves new requests served, not ready."
    )
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...] | None, NoDecode] = Field(
        None, description="Whose `X-Forwarded-For` is believed."
    )
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_page_origin)], ...] | None, NoDecode
    ] = Field(None, description="Whose pages may call the API from a browser; `*` for any.")

    # Authentication
    auth_secret: SecretStr | None = None
    encryption_keys: SecretStr | None = Field(None, description="Of the secrets of tools.")
    access_token_minutes: int = Field(15, ge=1)
    refresh_token_days: int = Field(30, ge=1)
    account_cache_s: float = Field(
        5.0,
        ge=0,
        le=60,
        description="How long a change of role, status or plan takes in workers, or without Redis.",
    )
    sign_up: bool = True
    issuers: tuple[Any, ...] = Field((), description="External issuers of access tokens.")
    admin_email: Email | None = Field(None, description="The first administrator.")
    admin_password: SecretStr | None = Field(None, min_length=8)

    # Rate limits; those of users are in their plans
    rate_limits: bool = True
    auth_requests_per_minute: int = Field(60, ge=1, description="Of one address.")
    wrong_credentials_per_minute: int = Field(60, ge=1, description="From one address.")
    logins_per_hour: int = Field(30, ge=1, description="To one account.")
    shared_reads_per_minute: int = Field(300, ge=1, description="From one address.")

    # Turns
    max_content_chars: int = Field(32_000, ge=1)
    max_steps: int = Field(10, ge=1, le=100)
    sharing: bool = True
    max_queued_turns: int = Field(20, ge=1)
    prompt_tokens: int = Field(150_000, ge=100, description="The whole prompt's token budget.")
    user_tokens: int = Field(1_500, ge=0, description="Of them, for what is known of the user.")
    context_tokens: int = Field(8_000, ge=0, description="Of them, for memories and knowledge.")
    result_tokens: int = Field(
        20_000, ge=0, description="Of them, for results of earlier turns' tools; older are cut."
    )
    context_wait_s: float = Field(1.0, gt=0, le=10)

    # Tools
    max_tool_calls: int = Field(32, ge=1, description="Of one answer that are run; more fail.")
    tool_attempts: int = Field(3, ge=1, description="Attempts at a tool that does not answer.")
    approval_hours: float = Field(
        72.0, gt=0, le=24 * 90, description="How long a tool call waits for its user."
    )
    max_concurrent_tool_calls: int = Field(200, ge=1)
    allowed_private_hosts: Annotated[tuple[str, ...] | None, NoDecode] = None
    mcp_refresh_s: float = Field(300.0, gt=0, description="Between listings of MCP servers' tools.")
    mcp_commands: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="What MCP servers over stdio may run; none means anything."
    )
    mcp_home: Path | None = Field(None, description="Where MCP servers that are processes live.")
    mcp_memory_mb: int = Field(1024, ge=16, description="Of such a server and all it starts.")
    mcp_processes: int = Field(256, ge=1, description="Such a server and all it starts.")
    deep_reasoning_model: str | None = "claude-opus-5-5"
    deep_reasoning_tokens: int = Field(16_000, ge=1024, le=128_000, description="Of one call.")
    deep_reasoning_effort: Literal["low", "medium", "high", "xhigh", "max"] = "high"
    brave_api_key: SecretStr | None = Field(None, validation_alias=_standard("BRAVE_API_KEY"))
    brave_base_url: str = "https://api.search.brave.com"
    web_search_safe: Literal["off", "moderate", "strict"] = "moderate"
    web_search_cost_usd: Decimal = Field(Decimal("0.005"), ge=0, description="Of one search.")

    # Embeddings
    embedder: Literal["embedded", "voyage", "openai"] = "embedded"
    embedding_model: str | None = None
    embedding_base_url: str | None = None
    embedding_dimensions: int | None = Field(None, ge=1, le=4096)
    embedding_timeout_s: float = Field(30.0, gt=0)
    voyage_api_key: SecretStr | None = Field(None, validation_alias=_standard("VOYAGE_API_KEY"))
    openai_api_key: SecretStr | None = Field(None, validation_alias=_standard("OPENAI_API_KEY"))

    # Models
    models: Annotated[tuple[str, ...], NoDecode] = (
        "claude-haiku-5-5",
        "claude-sonnet-5-5",
        "claude-opus-5-5",
    )
    default_model: str = "claude-haiku-5-5"
    fallback_model: str | None = None
    memory_extraction: bool = True
    background_model: str | None = Field(
        None,
        validation_alias=AliasChoices("EVERTURN_BACKGROUND_MODEL", "EVERTURN_MEMORY_MODEL"),
        description="Reads turns for memories, names and summarises chats; a haiku by default.",
    )
    compaction: bool = True
    max_output_tokens: int = Field(4096, ge=1)
    model_attempts: int = Field(5, ge=1, description="Calls of one step before it has failed.")
    model_idle_timeout_s: float = Field(60.0, gt=0)
    model_answer_timeout_s: float = Field(
        600.0, gt=0, le=840, description="From a request to the model to the end of its answer."
    )
    model_prices: dict[str, ModelPrice] = Field(default_factory=dict)
    context_windows: dict[str, Annotated[int, Field(ge=1024)]] = Field(default_factory=dict)

    # Events
    delta_interval_ms: int = Field(30, ge=0, le=1000)
    event_retention_s: int = Field(3600, ge=1)

    # Workers
    sweep_interval_s: float = Field(15.0, gt=0, description="Between checks for stranded work.")
    works_interval_s: float = Field(1.0, gt=0, description="Between checks for works after turns.")
    max_concurrent_model_calls: int = Field(200, ge=1)
    max_concurrent_workflow_tasks: int = Field(
        6, ge=2, description="The rest waits in Temporal, which is fair between users."
    )
    temporal_pollers: int = Field(6, ge=2, description="Of workflows, and of activities.")
    user_turns_per_second: float = Field(
        8.0, gt=0, description="Of a burst beyond that, in each API process, while others chat."
    )
    shutdown_grace_s: float = Field(
        90.0, ge=0, description="After a signal to stop, for running activities and requests."
    )
    build_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$",
        description="The version of the workers; without one they are not versioned.",
    )

    # Alerts
    alert_webhook_url: WebAddress | None = Field(None, description="Where alerts are sent.")
    alert_webhook_secret: SecretStr | None = Field(
        None, min_length=16, max_length=1000, description="Signs what is sent there."
    )

    # All processes
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(0, ge=0, le=65535, description="Of one process; 0 serves none.")
    log_format: Literal["console", "json"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def front_end(self) -> str:
        """Where users reach the front end: as others reach the API, unless it is set."""
        return self.frontend_url or self.public_url or f"http://127.0.0.1:{self.api_port}"

    @property
    def cheap_model(self) -> str:
        """The model for work in the background: a cheap one, unless one is set."""
        cheap = next((model for model in self.models if "haiku" in model), self.default_model)
        return self.background_model or cheap

    @classmethod
    def settings_customise_sources(  # noqa: PLR0917 -- pydantic-settings' own signature
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read files of settings where the environment or `.env` names them."""
        del settings_cls, file_secret_settings
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                source.env_vars = with_files(source.env_vars, map(variable_of, cls.model_fields))
        return init_settings, env_settings, dotenv_settings

    @field_validator("issuers")
    @classmethod
    def _trust(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            return ()
        # With it come the libraries of signatures and HTTP, a sixth of a second.
        from services.auth.issuers import ExternalIssuerList  # noqa: PLC0415

        return TypeAdapter(ExternalIssuerList).validate_python(value)

    @field_validator(
        *("public_url", "alert_webhook_url", "alert_webhook_secret", "build_id", "temporal_tls"),
        "frontend_url",
        mode="before",
    )
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator(
        *("models", "trusted_proxies", "allowed_private_hosts", "cors_origins", "mcp_commands"),
        mode="before",
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @model_validator(mode="after")
    def _sign_alerts(self) -> Self:
        if (self.alert_webhook_url is None) != (self.alert_webhook_secret is None):
            raise ValueError(
                "Set EVERTURN_ALERT_WEBHOOK_URL and EVERTURN_ALERT_WEBHOOK_SECRET together."
            )
        return self

    @model_validator(mode="after")
    def _link_to_users(self) -> Self:
        if self.smtp_host is not None and not (self.frontend_url or self.public_url):
            raise ValueError(
                "Set EVERTURN_FRONTEND_URL or EVERTURN_PUBLIC_URL for the links in mails."
            )
        return self


class InvalidSettingsError(SetupError):
    """Settings are out of bounds, of the wrong type, or don't go together."""


def read_settings(**given: object) -> Settings:
    """Return the settings of this process; what is given takes precedence.

    Errors: InvalidSettingsError, SettingFileError: one line that says what is wrong with which
    variables, without their values.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # fields of any type
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors()))
    except SettingsError as error:
        # Its text names the field that is not JSON, and nothing else.
        field = re.search(r'field "(\w+)"', str(error))
        problems = f"{variable_of(field[1]) if field else error}: must be valid JSON"
    raise InvalidSettingsError(f"Invalid settings. {problems}")


def _problem(error: ErrorDetails) -> str:
    """Return what is wrong with a setting, or with several that don't go together."""
    if not error["loc"]:
        return str(error["ctx"]["error"])
    return f"{_variable(str(error['loc'][0]))}: {error['msg']}"


def _variable(name: str) -> str:
    """Return the variable of what an error names: a field, or a standard name."""
    return variable_of(name) if name in Settings.model_fields else name


def variable_of(field: str) -> str:
    """Return the environment variable of a setting; some have a standard name."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"EVERTURN_{field.upper()}"
