"""Rare words are determined from what is published: statistics include others' drafts."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Counted up to fifty passages; beyond, a word is common. The index is asked for some of a common
# word's places only: to read all of them takes longer than all the rest.
_RARE_IN_WHAT_IS_PUBLISHED = r"""
CREATE OR REPLACE FUNCTION everturn_rare_first(words text[])
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET gin_fuzzy_search_limit = 100 SET enable_seqscan = off AS $$
    SELECT given.word
    FROM (
        SELECT DISTINCT word, length(word) AS letters FROM unnest(words) AS word
        ORDER BY letters DESC, word LIMIT 30
    ) AS given
    CROSS JOIN LATERAL (
        SELECT count(*) AS passages
        FROM (
            SELECT FROM passages
            WHERE published AND search_text @@
                ('''' || replace(replace(given.word, '\', '\\'), '''', '''''') || '''')::tsquery
            LIMIT 50
        ) AS few
    ) AS known
    WHERE everturn_actor_type() IN ('user', 'admin', 'service')
    ORDER BY known.passages, given.letters DESC, given.word COLLATE "C"
$$
"""
_RARE_BY_STATISTICS = """
CREATE OR REPLACE FUNCTION everturn_rare_first(words text[])
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT given.word
    FROM (SELECT DISTINCT unnest(words) AS word) AS given
    LEFT JOIN (
        SELECT element.word, element.frequency
        FROM pg_stats
        CROSS JOIN LATERAL unnest(most_common_elems::text::text[], most_common_elem_freqs)
            AS element (word, frequency)
        WHERE schemaname = 'public' AND tablename = 'passages' AND attname = 'search_text'
    ) AS known ON known.word = given.word
    WHERE public.everturn_actor_type() IN ('user', 'admin', 'service')
    ORDER BY coalesce(known.frequency, 0), length(given.word) DESC, given.word COLLATE "C"
$$
"""


def upgrade() -> None:
    """Count in what all users may read."""
    op.execute(_RARE_IN_WHAT_IS_PUBLISHED)


def downgrade() -> None:
    """Use the statistics of all passages."""
    op.execute(_RARE_BY_STATISTICS)
