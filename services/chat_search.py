"""The search of chats by words: which hold them, and where.

Each word, or part of one, has to stand in the title, or each in one message, in any case. A word is
looked for in all the ways in which it may be written: composed or not, and in the widths of East
Asian typography. So what is stored need not be folded, and texts without spaces are found by any of
their characters. A search reads the actor's messages from the newest chat on until a page is full;
no index could help it (docs/decisions/0015-hybrid-search.md).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import TextClause, text

from schema.chats import ChatHit, Mark

_MOST_WORDS: Final = 6
"""Of a search with more, the longest ones are looked for."""
_MOST_HITS: Final = 3
_BEFORE_CHARS: Final = 60
_EXCERPT_CHARS: Final = 240

_WIDE: Final = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_NARROW: Final = {
    ord(wide): chr(narrow)
    for narrow in range(0xFF65, 0xFFA0)
    if len(wide := unicodedata.normalize("NFKC", chr(narrow))) == 1
}


class SearchForm(NamedTuple):
    """What a search's statement depends on: its words, and the ways of writing that are tried."""

    words: int
    ways: int


class SearchedWords:
    """The words of a search, each in all the ways in which it may be written."""

    def __init__(self, words: Sequence[tuple[str, ...]] = ()) -> None:
        self._words = words
        any_of = sorted({way for ways in words for way in ways}, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, any_of)), re.IGNORECASE)

    @property
    def form(self) -> SearchForm | None:
        """The form of the statement, or None if nothing is searched."""
        if not self._words:
            return None
        return SearchForm(len(self._words), max(map(len, self._words)))

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters of the statement; a word with fewer ways repeats its first one."""
        form = self.form
        return {
            _name(place, way): ways[way] if way < len(ways) else ways[0]
            for place, ways in enumerate(self._words)
            for way in range(form.ways if form else 0)
        }

    def hits(self, title: str, found: Iterable[Mapping[str, Any]] | None) -> list[ChatHit]:
        """Return where the words stand: in the title, if all of them do, and in messages."""
        hits = [
            ChatHit(
                message_id=hit["id"],
                role=hit["role"],
                excerpt=hit["excerpt"],
                marks=self._marks(hit["excerpt"]),
            )
            for hit in found or ()
        ]
        if all(any(way.lower() in title.lower() for way in ways) for ways in self._words):
            marks = self._marks(title)
            hits.insert(0, ChatHit(message_id=None, role=None, excerpt=title, marks=marks))
        return hits

    def _marks(self, excerpt: str) -> list[Mark]:
        found = self._any.finditer(excerpt)
        return [Mark(start=match.start(), end=match.end()) for match in found]


NO_WORDS: Final = SearchedWords()


def words_of(query: str) -> SearchedWords:
    """Return the words of a query."""
    words = sorted(dict.fromkeys(query.split()), key=len, reverse=True)[:_MOST_WORDS]
    return SearchedWords([tuple(dict.fromkeys(_ways(word))) for word in words])


def _ways(word: str) -> Iterator[str]:
    """Yield the ways in which a word may be written, as it was typed first."""
    yield word
    plain = unicodedata.normalize("NFKC", word)
    yield plain
    yield unicodedata.normalize("NFD", plain)
    yield plain.translate(_WIDE)
    yield unicodedata.normalize("NFD", plain).translate(_NARROW)


def holds_words(form: SearchForm) -> TextClause:
    """Return the condition that a chat's title, or one of its messages, has all words."""
    in_title = _has_words(form, "lower(chats.title)")
    return text(
        f"({in_title} OR EXISTS (SELECT FROM ({_SAID}) AS said WHERE {_has_words(form, 'low')}))"
    )


def hits_of_words(form: SearchForm) -> TextClause:
    """Return the column `hits`: the newest messages with the words, each cut around them."""
    places = (f"nullif(strpos(low, {wanted}), 0)" for of in _wanted(form) for wanted in of)
    return text(f"""
(SELECT jsonb_agg(jsonb_build_object(
        'id', id, 'role', role,
        'excerpt', substr(content, greatest(1, place - {_BEFORE_CHARS}), {_EXCERPT_CHARS})
    ) ORDER BY turn_id DESC, id DESC)
FROM (
    SELECT said.*, least({", ".join(places)}) AS place FROM ({_SAID}) AS said
    WHERE {_has_words(form, "low")} ORDER BY turn_id DESC, id DESC LIMIT {_MOST_HITS}
) AS found) AS hits
""")  # noqa: S608 -- names of parameters


# Lowered once for all words, which the OFFSET sees to.
_SAID: Final = """
SELECT id, turn_id, role, content, lower(content) AS low
FROM messages WHERE chat_id = chats.id OFFSET 0
"""


def _has_words(form: SearchForm, low: str) -> str:
    return " AND ".join(
        f"({' OR '.join(f'strpos({low}, {wanted}) > 0' for wanted in of_word)})"
        for of_word in _wanted(form)
    )


def _wanted(form: SearchForm) -> list[list[str]]:
    """Return the SQL of each way of each word; a sub-select is computed once for a statement."""
    return [
        [f"(SELECT lower(CAST(:{_name(word, way)} AS text)))" for way in range(form.ways)]
        for word in range(form.words)
    ]


def _name(word: int, way: int) -> str:
    return f"word_{word}_{way}"
