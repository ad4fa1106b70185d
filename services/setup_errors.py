"""Errors in the setup of a process, whose messages say what to do.

SetupError
MissingApiKeyError         no model can be called
PortTakenError             another process listens on a port
MetricsAddressError        the metrics can't be served at an address
WeakSecretError            services/auth/credentials.py
WeakEncryptionKeyError     services/tools/secrets.py
UnknownPriceError          services/models/pricing.py
EmbeddingKeyError          services/embeddings/selection.py
EmbeddingAddressError      services/embeddings/selection.py
EmbeddingDimensionsError   services/embeddings/selection.py
EmbeddedModelMissingError  services/embeddings/selection.py
InvalidSettingsError       services/settings.py
SettingFileError           services/setting_files.py
DatabaseSetupError         services/database/startup.py
SchemaError                services/database/startup.py
MissingRoleError           services/database/migrations.py; five more of migrations there
NamespaceError             activities/namespace.py
RedisUrlError              workers/composition/foundation.py
TemporalConfigError        workers/composition/temporal.py
TemporalUnreachableError   workers/composition/temporal.py
"""


class SetupError(Exception):
    """The process can't start with this setup."""


class MissingApiKeyError(SetupError):
    """No model can be called."""

    def __init__(self) -> None:
        super().__init__(
            "ANTHROPIC_API_KEY is not set. Set it, or run `everturn dev`, which has a demo model."
        )


class PortTakenError(SetupError):
    """Another process listens on the port that `setting` names."""

    def __init__(self, port: int, setting: str) -> None:
        super().__init__(f"Port {port} is in use. Stop the process that uses it, or set {setting}.")


class MetricsAddressError(SetupError):
    """The metrics can't be served at the address that the settings name."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"Can't serve metrics at {host}: {reason}. Check EVERTURN_METRICS_HOST.")
