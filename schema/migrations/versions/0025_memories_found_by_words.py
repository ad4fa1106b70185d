"""Memories are found by their words, too, stored once, and may expire or be pinned.

Words are those of English, folded, and pairs of characters of scripts without spaces between
words. `words_key` is the same for memories that differ at most by case, width, and spaces and
punctuation around them. Both are set by a trigger, whatever writes the row.
"""

from alembic import op

from schema.migrations.policies import statements

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# Thai, Lao, Burmese, Khmer, kana, Han, Hangul: no spaces, or particles without any.
_UNSPACED = r"\0E00-\0EFF\1000-\109F\1780-\17FF\3040-\30FF\3400-\4DBF\4E00-\9FFF\AC00-\D7AF"
_HAN = r"\3400-\4DBF\4E00-\9FFF"
_WORDS = rf"""
CREATE FUNCTION everturn_memory_words(written text)
RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT strip(to_tsvector('english', regexp_replace(text, U&'[{_UNSPACED}]+', ' ', 'g')))
        || array_to_tsvector(ARRAY(
            SELECT substr(run[1], place, 2)
            FROM regexp_matches(text, U&'[{_UNSPACED}]+', 'g') AS run,
                 generate_series(1, greatest(1, length(run[1]) - 1)) AS place
            UNION
            SELECT letter[1] FROM regexp_matches(text, U&'[{_HAN}]', 'g') AS letter
        ))
    FROM (SELECT everturn_folded(written) AS text) AS folded
$$
"""  # noqa: S608 -- ranges of characters
# Signs that can be part of a name, e.g. of C++ or C#, are kept.
_AROUND = r"""[\\s.,;:!?"''\00A1\00AB\00BB\00BF\2018-\201F\2026\2039\203A\3001\3002\300C-\300F]+"""
_KEY = rf"""
CREATE FUNCTION everturn_memory_key(written text)
RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT md5(coalesce(
        nullif(regexp_replace(text, U&'^{_AROUND}|{_AROUND}$', '', 'g'), ''), text
    ))::uuid
    FROM (
        SELECT regexp_replace(lower(everturn_folded(written)), '\s+', ' ', 'g') AS text
    ) AS folded
$$
"""  # noqa: S608 -- signs
_SET = """
CREATE FUNCTION everturn_set_memory_words() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    NEW.search_text := everturn_memory_words(NEW.content);
    NEW.words_key := everturn_memory_key(NEW.content);
    RETURN NEW;
END $$
"""

_ADDED = """
ALTER TABLE memories ADD COLUMN search_text tsvector, ADD COLUMN words_key uuid,
    ADD COLUMN expires_at timestamptz, ADD COLUMN pinned boolean NOT NULL DEFAULT false;
CREATE TRIGGER memories_words BEFORE INSERT OR UPDATE OF content ON memories
    FOR EACH ROW EXECUTE FUNCTION everturn_set_memory_words();
-- In bulk loads without triggers, too: the columns have no other way to be set.
ALTER TABLE memories ENABLE ALWAYS TRIGGER memories_words;
-- Forced policies hide all memories from an owner without an actor.
ALTER TABLE memories NO FORCE ROW LEVEL SECURITY;
UPDATE memories SET search_text = everturn_memory_words(content),
    words_key = everturn_memory_key(content);
ALTER TABLE memories FORCE ROW LEVEL SECURITY;
ALTER TABLE memories ALTER COLUMN search_text SET NOT NULL, ALTER COLUMN words_key SET NOT NULL;
CREATE INDEX memories_words_key_idx ON memories (user_id, words_key);
"""
_BACK = """
DROP TRIGGER memories_words ON memories;
ALTER TABLE memories DROP COLUMN search_text, DROP COLUMN words_key, DROP COLUMN expires_at,
    DROP COLUMN pinned;
DROP FUNCTION everturn_set_memory_words();
DROP FUNCTION everturn_memory_key(text);
DROP FUNCTION everturn_memory_words(text);
"""


def upgrade() -> None:
    """Add the columns, and set the words of all memories. This writes the table once."""
    for statement in (_WORDS, _KEY, _SET, *statements(_ADDED)):
        op.execute(statement)


def downgrade() -> None:
    """Drop the columns; expired memories are found again, and none is pinned."""
    for statement in statements(_BACK):
        op.execute(statement)
