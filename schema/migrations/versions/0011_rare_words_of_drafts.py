"""Rare words are determined from what the actor finds: published passages and own drafts."""

from alembic import op

from schema.migrations.policies import APPLICATION_ROLE

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SIGNATURE = "everturn_rare_first(text[], uuid[], integer[])"

# Beside the function of 0010, which processes of the previous version still call during a rollout.
# Own drafts are scanned one by one: the index covers all users' drafts, and how soon it yields
# fifty would reveal theirs. `IS TRUE` keeps it from being used.
_RARE_FIRST = r"""
CREATE FUNCTION everturn_rare_first(words text[], draft_ids uuid[], draft_versions integer[])
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET gin_fuzzy_search_limit = 100 SET enable_seqscan = off AS $$
    SELECT given.word
    FROM (
        SELECT word, length(word) AS letters,
               ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery AS query
        FROM (SELECT DISTINCT unnest(words) AS word) AS distinct_words
        ORDER BY letters DESC, word LIMIT 30
    ) AS given
    CROSS JOIN LATERAL (
        SELECT count(*) AS passages
        FROM (
            (SELECT FROM passages WHERE published AND search_text @@ given.query LIMIT 50)
            UNION ALL
            (SELECT FROM unnest(draft_ids, draft_versions) AS drafts (document_id, version)
             JOIN passages USING (document_id, version)
             WHERE NOT passages.published AND passages.user_id = everturn_user_id()
               AND (passages.search_text @@ given.query) IS TRUE
             LIMIT 50)
            LIMIT 50
        ) AS few
    ) AS known
    WHERE everturn_actor_type() IN ('user', 'admin', 'service')
    ORDER BY known.passages, given.letters DESC, given.word COLLATE "C"
$$
"""


def upgrade() -> None:
    """Count in what the actor finds; only the application may call it."""
    op.execute(_RARE_FIRST)
    op.execute(f"REVOKE ALL ON FUNCTION {_SIGNATURE} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_SIGNATURE} TO {APPLICATION_ROLE}")


def downgrade() -> None:
    """Count only in what is published."""
    op.execute(f"DROP FUNCTION {_SIGNATURE}")
