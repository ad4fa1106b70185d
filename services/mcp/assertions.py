"""Assertions: how a client with a private key proves to a token endpoint who it is.

Source: RFC 7523, 2.2 and 3, `private_key_jwt`.
"""

from time import time
from typing import Final
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.mcp.errors import McpServerError

_LIFETIME_S: Final = 60
_KIND: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def is_private_key(secret: str) -> bool:
    """Return whether a client's secret is a private key: it signs, and is never sent."""
    return secret.lstrip().startswith("-----BEGIN ")


def signed_assertion(client_id: str, private_key: str, *, audience: str) -> dict[str, str]:
    """Return the fields of a token request that prove the client. Errors: McpServerError."""
    key, algorithm = _key_of(private_key)
    now = int(time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": str(uuid4()),
        "iat": now,
        "exp": now + _LIFETIME_S,
    }
    assertion = jwt.encode(claims, key, algorithm=algorithm)
    return {"client_assertion_type": _KIND, "client_assertion": assertion}


def _key_of(
    private_key: str,
) -> tuple[ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, str]:
    try:
        key = load_pem_private_key(private_key.strip().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise McpServerError(
            "The client secret is a private key that can't be read: use PEM without a password."
        ) from None
    if isinstance(key, rsa.RSAPrivateKey):
        return key, "RS256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "EdDSA"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key, _CURVES[key.curve.name]
    raise McpServerError("The client's private key must be RSA, ECDSA or Ed25519.")
