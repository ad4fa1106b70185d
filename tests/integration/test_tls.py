"""TLS, with and without client certificates, towards Postgres, Redis and Temporal."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from schema.actors import SERVICE
from services.database import Database
from services.database.startup import DatabaseSetupError, SchemaError, require_schema
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import unique
from tests.fixtures.stack import Stack, open_stack
from tests.fixtures.tls import HOST, Authority, TlsRelay, tls_relay
from tests.fixtures.tls_postgres import tls_postgres
from workers.composition.foundation import open_redis
from workers.composition.temporal import TemporalUnreachableError, connect_temporal


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed the certificates of the servers, and of clients that they trust."""
    return Authority(tmp_path_factory.mktemp("certificates"), "trusted")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "stranger")


@dataclass(frozen=True, slots=True)
class Secured:
    """Relays that end TLS in front of the stack's servers, and settings that lead to them."""

    database: TlsRelay
    redis: TlsRelay
    temporal: TlsRelay

    def settings(self, stack: Stack, trusted: Authority, client: Authority) -> dict[str, Any]:
        """Return settings that trust an authority, with a certificate of a client."""
        certificate, key = client.client
        libpq = (
            f"sslmode=verify-full&sslrootcert={trusted.certificate}"
            f"&sslcert={certificate}&sslkey={key}"
        )
        redis = f"ssl_ca_certs={trusted.certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
        return {
            "database_url": SecretStr(through(stack.addresses.database, self.database, libpq)),
            "redis_url": SecretStr(
                through(stack.addresses.redis, self.redis, redis).replace("redis:", "rediss:")
            ),
            "temporal_address": f"{HOST}:{self.temporal.port}",
            "temporal_tls_server_ca_cert_path": trusted.certificate,
            "temporal_tls_client_cert_path": certificate,
            "temporal_tls_client_key_path": key,
        }


def through(url: str, relay: TlsRelay, options: str) -> str:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{credentials}@{HOST}:{relay.port}", query=options).geturl()


@asynccontextmanager
async def open_relays(
    stack: Stack, authority: Authority, *, client_required: bool
) -> AsyncIterator[Secured]:
    context = authority.server_context(client_required=client_required)
    targets = stack.addresses.database, stack.addresses.redis, f"//{stack.addresses.temporal}"
    async with AsyncExitStack() as opened:
        yield Secured(
            *[
                await opened.enter_async_context(
                    tls_relay(urlsplit(url).port or 0, context, is_postgres="postgres" in url)
                )
                for url in targets
            ]
        )


@pytest.fixture
async def mutual(stack: Stack, authority: Authority) -> AsyncIterator[Secured]:
    async with open_relays(stack, authority, client_required=True) as opened:
        yield opened


async def test_a_turn_runs_with_mutual_tls_to_all_servers(
    stack: Stack, stack_name: str, authority: Authority, mutual: Secured
) -> None:
    settings = mutual.settings(stack, authority, authority)
    question = unique()

    async with open_stack(f"{stack_name}-tls", settings) as secured:
        secured.model.add(Script(match=question, text="By TLS."))
        user = await secured.sign_up()
        answered = await user.ask(await user.create_chat(), question)

    assert answered["turn"]["status"] == "completed"
    assert min(mutual.database.connections, mutual.redis.connections) > 0
    assert mutual.temporal.connections > 0


async def test_tls_needs_no_client_certificate_where_the_server_does_not(
    stack: Stack, authority: Authority
) -> None:
    async with open_relays(stack, authority, client_required=False) as relays:
        database_url = through(
            stack.addresses.database,
            relays.database,
            f"sslmode=verify-ca&sslrootcert={authority.certificate}",
        )
        await check_database(database_url)
        redis_url = through(
            stack.addresses.redis, relays.redis, f"ssl_ca_certs={authority.certificate}"
        )
        settings = stack.settings.model_copy(
            update={
                "redis_url": SecretStr(redis_url.replace("redis:", "rediss:")),
                "temporal_address": f"{HOST}:{relays.temporal.port}",
                "temporal_tls": True,
                "temporal_tls_server_ca_cert_data": authority.pem,
            }
        )
        async with open_redis(settings) as redis:
            assert await redis.ping()
        client = await connect_temporal(settings, lazy=False)
        assert await client.service_client.check_health()


async def check_database(url: str) -> None:
    database = Database(url)
    try:
        await require_schema(database, url)
    finally:
        await database.close()


async def test_a_postgres_with_tls_of_its_own_is_verified(
    authority: Authority, stranger: Authority
) -> None:
    async with tls_postgres(authority) as url:
        verified = f"{url}?sslmode=verify-full&sslrootcert={authority.certificate}"
        by_tls = await is_by_tls(verified)
        # It is reached, and empty.
        with pytest.raises(SchemaError, match="has not been migrated"):
            await check_database(verified)
        with pytest.raises(DatabaseSetupError, match=r"by TLS: .*certificate verify failed"):
            await check_database(f"{url}?sslmode=verify-full&sslrootcert={stranger.certificate}")
        with pytest.raises(DatabaseSetupError, match=r"refuses the connection: .*no encryption"):
            await check_database(f"{url}?sslmode=disable")

    assert by_tls is True


async def is_by_tls(url: str) -> object:
    database = Database(url)
    try:
        async with database.statements(SERVICE) as connection:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return await connection.fetchval(query)
    finally:
        await database.close()


async def test_a_server_of_another_authority_is_refused_in_one_line(
    stack: Stack, authority: Authority, stranger: Authority, mutual: Secured
) -> None:
    update = mutual.settings(stack, stranger, authority)
    settings = stack.settings.model_copy(update=update)

    with pytest.raises(DatabaseSetupError, match=r"by TLS: .*certificate verify failed.*sslmode"):
        await check_database(settings.database_url.get_secret_value())
    async with open_redis(settings) as redis:
        with pytest.raises(RedisError):
            await redis.ping()
    with pytest.raises(TemporalUnreachableError, match=r"by TLS: .*Check TEMPORAL_TLS_\*"):
        await connect_temporal(settings, lazy=False)


async def test_a_client_of_another_authority_is_refused_in_one_line(
    stack: Stack, authority: Authority, stranger: Authority, mutual: Secured
) -> None:
    update = mutual.settings(stack, authority, stranger)
    settings = stack.settings.model_copy(update=update)

    with pytest.raises(DatabaseSetupError):
        await check_database(settings.database_url.get_secret_value())
    async with open_redis(settings) as redis:
        with pytest.raises(RedisError):
            await redis.ping()
    with pytest.raises(TemporalUnreachableError):
        await connect_temporal(settings, lazy=False)
