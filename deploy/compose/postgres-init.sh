#!/usr/bin/env bash
# Creates the roles and databases of Everturn and Temporal when Postgres starts for the first time.
set -euo pipefail

# psql reads the passwords itself: arguments are visible to every process of the container.
psql --username=postgres --dbname=postgres --no-psqlrc --set=ON_ERROR_STOP=1 --quiet <<'SQL'
\set everturn_password `cat /run/secrets/everturn-password`
\set temporal_password `cat /run/secrets/temporal-password`

CREATE ROLE everturn LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE
    PASSWORD :'everturn_password';
CREATE DATABASE everturn;
REVOKE CONNECT ON DATABASE everturn FROM PUBLIC;
GRANT CONNECT ON DATABASE everturn TO everturn;

CREATE ROLE temporal LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE
    PASSWORD :'temporal_password';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE CONNECT ON DATABASE temporal, temporal_visibility FROM PUBLIC;
SQL
