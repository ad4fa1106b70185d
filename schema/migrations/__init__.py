"""Alembic's environment and revisions: tables, roles and row-level policies."""
