#!/usr/bin/env bash
# Creates the roles and databases of Everturn and Temporal when Postgres starts for the first time.
set -euo pipefail

# psql reads the passwords itself: arguments are visible to every process of the container.
psql --username=postgres --dbname=postgres --no-psqlrc --set=ON_ERROR_STOP=1 --quiet <<'SQL'
\set owner_password `cat /run/secrets/owner-password`
\set everturn_password `cat /run/secrets/everturn-password`
\set temporal_password `cat /run/secrets/temporal-password`

-- As docs/installation.md explains: one role owns and migrates, another one is Everturn's.
CREATE ROLE everturn_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE everturn LOGIN PASSWORD :'everturn_password';
CREATE DATABASE everturn OWNER everturn_owner;
REVOKE CONNECT ON DATABASE everturn FROM PUBLIC;
GRANT CONNECT ON DATABASE everturn TO everturn;

CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE CONNECT ON DATABASE temporal, temporal_visibility FROM PUBLIC;

\connect everturn
CREATE EXTENSION vector;
SQL
