"""A search for some of a question's words queries the database once, not word by word."""

from alembic import op

from schema.migrations.policies import APPLICATION_ROLE

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_WITH_ANY = "everturn_passages_with_any(text[], uuid[], integer[], integer, integer)"

# Most searches have no drafts, and to plan for some takes a fifth of what these cost.
_DRAFTS_IF_ANY = """
    RETURN QUERY
    SELECT found.id, ts_rank_cd(found.search_text, words)
    FROM (
        SELECT passages.id, passages.search_text FROM passages
        WHERE passages.published AND passages.search_text @@ words LIMIT greatest(most, 0)
    ) AS found
    WHERE exactly IS NULL OR found.search_text @@ exactly;
    IF cardinality(draft_ids) > 0 THEN
        RETURN QUERY
        SELECT found.id, ts_rank_cd(found.search_text, words)
        FROM (
            SELECT passages.id, passages.search_text
            FROM unnest(draft_ids, draft_versions) AS drafts (document_id, version)
            JOIN passages USING (document_id, version)
            WHERE NOT passages.published AND passages.user_id = everturn_user_id()
              AND passages.search_text @@ words LIMIT greatest(most, 0)
        ) AS found
        WHERE exactly IS NULL OR found.search_text @@ exactly;
    END IF;
"""
_DRAFTS_ALWAYS = """
    RETURN QUERY
    SELECT found.id, ts_rank_cd(found.search_text, words)
    FROM (
        (SELECT passages.id, passages.search_text FROM passages
         WHERE passages.published AND passages.search_text @@ words LIMIT greatest(most, 0))
        UNION ALL
        (SELECT passages.id, passages.search_text
         FROM unnest(draft_ids, draft_versions) AS drafts (document_id, version)
         JOIN passages USING (document_id, version)
         WHERE NOT passages.published AND passages.user_id = everturn_user_id()
           AND passages.search_text @@ words LIMIT greatest(most, 0))
    ) AS found
    WHERE exactly IS NULL OR found.search_text @@ exactly;
"""

# What is in more passages than are ranked hides the rarer words among them. So the rarest word is
# looked for alone, then any of the two rarest, and so on until that is too much; what was found
# before comes first. A small library mostly has few enough passages with any of all of them. In a
# large one each try costs as much as the one that counts, and that of all words most.
# It runs as its caller: the two functions that it calls decide what the caller may find.
_PASSAGES_WITH_ANY = r"""
CREATE FUNCTION everturn_passages_with_any(
    words text[], draft_ids uuid[], draft_versions integer[], most integer, best integer
)
RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    rare text[] := ARRAY(
        SELECT '''' || replace(replace(given.word, '\', '\\'), '''', '''''') || ''''
        FROM everturn_rare_first(words, draft_ids, draft_versions)
            WITH ORDINALITY AS given (word, place)
        ORDER BY given.place LIMIT 6
    );
    sizes integer[] := ARRAY(SELECT generate_series(1, cardinality(rare)));
    all_first boolean := cardinality(rare) > 1 AND (
        SELECT reltuples <= 20000 FROM pg_class WHERE oid = 'passages'::regclass
    );
    size integer;
    matches integer;
    hits uuid[];
    found uuid[] := '{}';
BEGIN
    IF all_first THEN
        sizes := cardinality(rare) || sizes;
    END IF;
    FOREACH size IN ARRAY sizes LOOP
        SELECT count(*), (array_agg(passage_id ORDER BY rank DESC, passage_id))[1:best]
        INTO matches, hits
        FROM everturn_passages_with(
            array_to_string(rare[1:size], ' | ')::tsquery, NULL, draft_ids, draft_versions, most
        );
        IF matches < most THEN
            found := coalesce(hits, '{}');
            EXIT WHEN size = cardinality(rare);
        ELSIF all_first THEN
            all_first := false;
        ELSE
            RETURN found || hits;
        END IF;
    END LOOP;
    RETURN found;
END $$
"""


def upgrade() -> None:
    """Run the steps inside the database."""
    op.execute(_passages_with(_DRAFTS_IF_ANY))
    op.execute(_PASSAGES_WITH_ANY)
    op.execute(f"REVOKE ALL ON FUNCTION {_WITH_ANY} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_WITH_ANY} TO {APPLICATION_ROLE}")


def downgrade() -> None:
    """Leave the steps to the search, and always plan for drafts."""
    op.execute(f"DROP FUNCTION {_WITH_ANY}")
    op.execute(_passages_with(_DRAFTS_ALWAYS))


def _passages_with(body: str) -> str:
    """Return the function that finds the best passages with some words, only for a bound actor."""
    return f"""
CREATE OR REPLACE FUNCTION everturn_passages_with(
    words tsquery, exactly tsquery, draft_ids uuid[], draft_versions integer[], most integer
)
RETURNS TABLE (passage_id uuid, rank real)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan SET synchronize_seqscans = off AS $$
BEGIN
    IF coalesce(everturn_actor_type(), '') NOT IN ('user', 'admin', 'service') THEN
        RETURN;
    END IF;
{body}
END $$
"""
