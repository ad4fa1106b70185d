"""The connection to Temporal: address, TLS and credentials, what encrypts payloads, its logs."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from temporalio.client import Client, Interceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfigProfile, ClientConnectConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from activities.namespace import NamespaceError, find_problem
from services.settings import Settings, variable_of
from services.setup_errors import SetupError
from workers.composition.failure_converters import (
    EncodedTracelessFailureConverter,
    TracelessFailureConverter,
)
from workers.composition.payload_encryption import EncryptionCodec
from workers.process_metrics import sdk_metrics

_PREFIX: Final = "temporal_"
_OF_PROFILES: Final = (
    *("address", "namespace", "api_key", "tls", "tls_server_name"),
    *("tls_server_ca_cert_path", "tls_server_ca_cert_data"),
    *("tls_client_cert_path", "tls_client_cert_data"),
    *("tls_client_key_path", "tls_client_key_data"),
)
"""The settings that take precedence over a profile of TEMPORAL_CONFIG_FILE."""


class TemporalConfigError(SetupError):
    """The configuration of the connection to Temporal can't be read."""


class TemporalUnreachableError(SetupError):
    """Temporal does not answer at the configured address."""


async def connect_temporal(
    settings: Settings, *, lazy: bool, interceptors: Sequence[Interceptor] = ()
) -> Client:
    """Return a client; a lazy one connects with its first call. Workers take its interceptors.

    Errors: TemporalConfigError; unless `lazy`, TemporalUnreachableError, and NamespaceError where
    the namespace lacks what turns need.
    """
    config = connect_config(settings)
    try:
        client = await Client.connect(
            **config,
            data_converter=make_data_converter(settings),
            interceptors=interceptors,
            runtime=_runtime(has_metrics=settings.metrics_port > 0),
            # Payloads are references of a few hundred bytes: packing them costs more than sending.
            grpc_compression=GrpcCompression.NONE,
            lazy=lazy,
        )
    except ValueError as error:  # of a certificate or an address
        raise TemporalConfigError(f"Temporal's TLS configuration is invalid: {error}.") from error
    except RuntimeError as error:
        raise TemporalUnreachableError(unreachable(settings, error)) from error
    if not lazy:
        await _require_namespace(client, settings)
    return client


async def _require_namespace(client: Client, settings: Settings) -> None:
    try:
        problem = await find_problem(client)
    except RPCError as error:
        raise TemporalUnreachableError(unreachable(settings, error)) from error
    if problem is not None:
        raise NamespaceError(problem)


def connect_config(settings: Settings) -> ClientConnectConfig:
    """Return how to connect: by a profile, if one is named, and by what is set directly.

    Errors: TemporalConfigError.
    """
    file = settings.temporal_config_file
    try:
        profile = ClientConfigProfile.load(
            profile=settings.temporal_profile or None,
            # The SDK takes a missing file for an empty one.
            config_source=Path(file).read_bytes() if file else None,
            disable_file=not file,
            config_file_strict=True,
            override_env_vars=_variables(settings),
        )
        config = profile.to_client_connect_config()
    except OSError as error:
        raise TemporalConfigError(
            f"The file {error.filename} of Temporal's configuration can't be read: "
            f"{error.strerror}. Check TEMPORAL_CONFIG_FILE and TEMPORAL_TLS_*."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise TemporalConfigError(
            f"TEMPORAL_CONFIG_FILE can't be used: {str(error).splitlines()[0]}."
        ) from error
    config.setdefault("target_host", settings.temporal_address)
    config.setdefault("namespace", settings.temporal_namespace)
    return config


def _variables(settings: Settings) -> dict[str, str]:
    """Return what is set directly, under the names that Temporal's own tools use."""
    variables = {}
    for name in _OF_PROFILES:
        field = _PREFIX + name
        value = getattr(settings, field)
        if field in settings.model_fields_set and value not in {None, ""}:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            variables[variable_of(field)] = text.lower() if isinstance(value, bool) else text
    return {name: value for name, value in variables.items() if value}


def make_data_converter(settings: Settings) -> DataConverter:
    """Return what turns values into payloads, encrypted if keys are set.

    Errors: WeakEncryptionKeyError.
    """
    keys = settings.temporal_encryption_keys
    if keys is None or not keys.get_secret_value().strip():
        return replace(pydantic_data_converter, failure_converter_class=TracelessFailureConverter)
    return replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(keys.get_secret_value()),
        # Messages of failures then are payloads, too.
        failure_converter_class=EncodedTracelessFailureConverter,
    )


def unreachable(settings: Settings, error: RPCError | RuntimeError) -> str:
    """Return where Temporal can't be reached and, where TLS or its answer is to blame, why."""
    address = connect_config(settings).get("target_host")
    if isinstance(error, RPCError) and error.status is not RPCStatusCode.UNAVAILABLE:
        return f"Temporal at {address} answers {error.status.name}: {error.message}."
    detail = str(error)
    if "ertificate" in detail or "tls" in detail.lower():
        return f"Temporal at {address} can't be reached by TLS: {detail}. Check TEMPORAL_TLS_*."
    return f"Temporal can't be reached at {address}. Check TEMPORAL_ADDRESS, or start it."


@cache
def _runtime(*, has_metrics: bool) -> Runtime:
    """Return the one runtime of the SDK's native core, whose logs join all others."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
                forwarding=forwarding,
            ),
            metrics=sdk_metrics() if has_metrics else None,
            attach_service_name=False,
        )
    )
