"""Memories and knowledge with their vectors, full text and publication."""

from alembic import op

from schema.migrations.policies import (
    APPLICATION_ROLE,
    IS_ADMIN,
    IS_SIGNED_IN,
    policy,
    secure,
    statements,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE memories (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('fact', 'preference', 'instruction', 'event')),
    content text NOT NULL CHECK (length(content) BETWEEN 1 AND 4000),
    importance real NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    status text NOT NULL DEFAULT 'accepted'
        CHECK (status IN ('suggested', 'accepted', 'rejected')),
    source_turn_id uuid,
    embedding vector,
    embedder text CHECK (length(embedder) <= 200),
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT memories_from_own_turn
        FOREIGN KEY (source_turn_id, user_id) REFERENCES turns (id, user_id)
        ON DELETE SET NULL (source_turn_id),
    CONSTRAINT memories_vector_has_a_maker CHECK ((embedding IS NULL) = (embedder IS NULL))
);
CREATE INDEX memories_user_id_idx ON memories (user_id, id DESC);
CREATE INDEX memories_importance_idx ON memories (user_id, importance DESC, id DESC);
CREATE INDEX memories_source_turn_id_idx ON memories (source_turn_id);
CREATE INDEX memories_embedder_idx ON memories (embedder, id);

CREATE TABLE documents (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    latest_version integer NOT NULL DEFAULT 1 CHECK (latest_version >= 1),
    published_version integer,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT documents_of_one_user UNIQUE (id, user_id),
    CONSTRAINT documents_publish_what_is_there CHECK (published_version <= latest_version)
);
CREATE INDEX documents_user_id_idx ON documents (user_id, id DESC);
CREATE INDEX documents_title_idx ON documents (user_id, title, id);
CREATE INDEX documents_published_idx ON documents (id DESC) WHERE published_version IS NOT NULL;

CREATE TABLE document_versions (
    document_id uuid NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    user_id uuid NOT NULL,
    content_type text NOT NULL CHECK (length(content_type) <= 100),
    source bytea NOT NULL,
    content text,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'ready', 'failed')),
    problem text CHECK (length(problem) <= 500),
    passage_count integer NOT NULL DEFAULT 0 CHECK (passage_count >= 0),
    embedded_count integer NOT NULL DEFAULT 0
        CHECK (embedded_count BETWEEN 0 AND passage_count),
    published boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (document_id, number),
    CONSTRAINT document_versions_of_one_user UNIQUE (document_id, number, user_id),
    CONSTRAINT document_versions_in_own_document
        FOREIGN KEY (document_id, user_id) REFERENCES documents (id, user_id) ON DELETE CASCADE,
    CONSTRAINT document_versions_published_are_ready CHECK (NOT published OR status = 'ready')
);
CREATE INDEX document_versions_user_id_idx ON document_versions (user_id);
CREATE UNIQUE INDEX document_versions_one_published ON document_versions (document_id)
    WHERE published;
CREATE INDEX document_versions_unfinished_idx ON document_versions (created_at)
    WHERE status IN ('pending', 'processing');

CREATE TABLE passages (
    id uuid PRIMARY KEY,
    document_id uuid NOT NULL,
    version integer NOT NULL,
    user_id uuid NOT NULL,
    position integer NOT NULL CHECK (position >= 0),
    content text NOT NULL,
    start_char integer NOT NULL CHECK (start_char >= 0),
    end_char integer NOT NULL CHECK (end_char > start_char),
    published boolean NOT NULL DEFAULT false,
    search_text tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english', content)) STORED,
    embedding vector,
    embedder text CHECK (length(embedder) <= 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT passages_position_key UNIQUE (document_id, version, position),
    CONSTRAINT passages_in_own_version
        FOREIGN KEY (document_id, version, user_id)
        REFERENCES document_versions (document_id, number, user_id) ON DELETE CASCADE,
    CONSTRAINT passages_vector_has_a_maker CHECK ((embedding IS NULL) = (embedder IS NULL))
);
CREATE INDEX passages_user_id_idx ON passages (user_id, document_id);
CREATE INDEX passages_search_text_idx ON passages USING gin (search_text) WHERE published;
CREATE INDEX passages_drafts_text_idx ON passages USING gin (search_text) WHERE NOT published;
CREATE INDEX passages_embedder_idx ON passages (embedder, id);
"""

# One approximate index for each length of vector that embedders in use have; pgvector indexes up
# to 2,000 dimensions, and 4,000 of half the precision. What is not published is searched exactly.
_DIMENSIONS = (256, 384, 512, 768, 1024, 1536, 2048, 3072)
_LONGEST_VECTOR = 2000

# Matching words is not leakproof, so Postgres checks a row's policies first and never uses an index
# of words: 300 ms instead of 1. These two run as their owner, who is let past the policies of
# passages. So they give away ids and an order of words that the caller knows, to a bound actor
# alone; what is behind the ids is read under the policies.
_RARE_FIRST = """
CREATE FUNCTION everturn_rare_first(words text[])
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
# The plan depends on how common the words are, and on nothing that other scans are doing.
_PASSAGES_WITH = """
CREATE FUNCTION everturn_passages_with(
    words tsquery, exactly tsquery, draft_ids uuid[], draft_versions integer[], most integer
)
RETURNS TABLE (passage_id uuid, rank real)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_custom_plan SET synchronize_seqscans = off AS $$
BEGIN
    IF coalesce(everturn_actor_type(), '') NOT IN ('user', 'admin', 'service') THEN
        RETURN;
    END IF;
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
END $$
"""

_IMMUTABLE = """
CREATE FUNCTION everturn_keep_document_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.source IS DISTINCT FROM OLD.source
       OR NEW.content_type IS DISTINCT FROM OLD.content_type
       OR NEW.number IS DISTINCT FROM OLD.number
       OR NEW.document_id IS DISTINCT FROM OLD.document_id
       OR (OLD.content IS NOT NULL AND NEW.content IS DISTINCT FROM OLD.content) THEN
        RAISE EXCEPTION 'a version of a document never changes'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$
"""
_IMMUTABLE_TRIGGER = (
    # Only if these columns are set: comparing a source means reading megabytes of it.
    "CREATE TRIGGER document_versions_immutable BEFORE UPDATE OF "
    "source, content_type, number, document_id, content ON document_versions "
    "FOR EACH ROW EXECUTE FUNCTION everturn_keep_document_version()"
)
# Publication and the vector change; what a passage says, and where it is from, do not.
_IMMUTABLE_PASSAGES = (
    "CREATE TRIGGER passages_immutable BEFORE UPDATE OF "
    "content, document_id, version, position, start_char, end_char ON passages "
    "FOR EACH ROW WHEN ("
    "(NEW.content, NEW.document_id, NEW.version, NEW.position, NEW.start_char, NEW.end_char) "
    "IS DISTINCT FROM "
    "(OLD.content, OLD.document_id, OLD.version, OLD.position, OLD.start_char, OLD.end_char)) "
    "EXECUTE FUNCTION everturn_refuse_change()"
)

_SEARCH_FUNCTIONS = (
    "everturn_rare_first(text[])",
    "everturn_passages_with(tsquery, tsquery, uuid[], integer[], integer)",
)

_READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Create everything."""
    for statement in statements(_TABLES) + _vector_indexes() + _security():
        op.execute(statement)
    op.execute(_IMMUTABLE)
    op.execute(_IMMUTABLE_TRIGGER)
    op.execute(_IMMUTABLE_PASSAGES)
    for statement in (_RARE_FIRST, _PASSAGES_WITH, *_search_security()):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything but the extension, which other schemas may use."""
    for table in ("passages", "document_versions", "documents", "memories"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION everturn_keep_document_version()")
    for function in _SEARCH_FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")


def _vector_indexes() -> list[str]:
    of_size = {size: "vector" if size <= _LONGEST_VECTOR else "halfvec" for size in _DIMENSIONS}
    return [
        f"CREATE INDEX passages_embedding_{size}_idx ON passages "
        f"USING hnsw ((embedding::{kind}({size})) {kind}_cosine_ops) "
        f"WHERE published AND vector_dims(embedding) = {size}"
        for size, kind in of_size.items()
    ]


def _search_security() -> list[str]:
    """Only the application searches; an owner that isn't a superuser needs the policy to do so."""
    return [
        "CREATE POLICY passages_search ON passages FOR SELECT TO CURRENT_USER USING (true)",
        *(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC" for function in _SEARCH_FUNCTIONS),
        *(
            f"GRANT EXECUTE ON FUNCTION {function} TO {APPLICATION_ROLE}"
            for function in _SEARCH_FUNCTIONS
        ),
    ]


def _security() -> list[str]:
    """Other users find what is published; administrators may unpublish it."""
    published = {
        "documents": "published_version IS NOT NULL",
        "document_versions": "published",
        "passages": "published",
    }
    return [
        *secure("memories", grants=_READ_WRITE),
        *(part for table in published for part in secure(table, grants=_READ_WRITE)),
        *(
            policy(table, "reader", "SELECT", f"{IS_SIGNED_IN} AND {condition}")
            for table, condition in published.items()
        ),
        *(policy(table, "unpublisher", "UPDATE", IS_ADMIN) for table in published),
    ]
