#!/bin/sh
# Brings the schemas of Temporal's two databases to the version of this image, and does nothing
# where they are. Upgrade Temporal by one minor version at a time.
set -eu

SQL_PLUGIN=postgres12 SQL_HOST=postgres SQL_PORT=5432 SQL_USER=temporal
SQL_PASSWORD=$(cat /run/secrets/temporal-password)
export SQL_PLUGIN SQL_HOST SQL_PORT SQL_USER SQL_PASSWORD

update() {
    temporal-sql-tool --database "$1" setup-schema --version 0.0
    temporal-sql-tool --database "$1" update-schema \
        --schema-dir "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

update temporal temporal
update temporal_visibility visibility
