"""Authentication: sign-up and sign-in, access tokens, API keys, external issuers, caches."""
