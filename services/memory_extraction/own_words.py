"""What the user of a message says themselves: without code, quotes, mails and pasted texts.

The rules are the certain part, in a few languages; the model is asked to leave out the rest. They
find too much of a quote rather than too little: what is missed may come up again. Each runs in time
that grows with the message's length alone.
"""

import re
import unicodedata
from typing import Final

GAP: Final = "[…]"
"""Stands for others' words."""

_FENCE: Final = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_INLINE_CODE: Final = re.compile(r"`[^`\n]+`")
_TAG: Final = re.compile(r"<(/?)([A-Za-z][\w-]{0,40})(?:\s[^<>]{0,400})?>")
_EMPHASIS: Final = frozenset(["b", "i", "u", "s", "em", "strong", "mark", "br", "p", "span"])
_QUOTED_LINE: Final = re.compile(r"^[ \t]*[>\uff1e|].*$", re.MULTILINE)

_MAIL: Final = re.compile(
    r"^(?:"
    # The lines of mail programs in front of what they quote.
    r"[-_ ]{2,}.{0,20}(?:original message|forwarded message|ursprüngliche nachricht"
    r"|weitergeleitete nachricht|message d'origine|message transféré|mensaje original"
    r"|mensaje reenviado|messaggio originale|原始邮件|转发邮件)"
    r"|begin forwarded message:"
    r"|(?:on|am|le|el|il|op|em)\b.{4,150}(?:wrote|schrieb\b.{0,60}|a écrit|escribió|ha scritto"
    r"|schreef|escreveu)[ \xa0]?:[ \t]*$"
    # The head of a mail: two of its fields, one after the other.
    r"|(?:from|von|de|da|发件人|差出人)[ \xa0]?[:\uff1a].{1,200}\n"
    r"(?:sent|date|to|subject|cc|gesendet|datum|an|betreff|envoyé|à|objet|enviado|para|asunto"
    r"|发送时间|收件人|主题)[ \xa0]?[:\uff1a])",
    re.IGNORECASE | re.MULTILINE,
)

# What follows is material: to be translated, corrected, summed up, not a word about its author.
_MATERIAL: Final = re.compile(
    r"\b(?:(?:translate|proofread|summari[sz]e|rewrite|rephrase|paraphrase|analy[sz]e|shorten"
    r"|übersetz\w*|korrigier\w*|zusammenfass\w*|formulier\w*|tradui\w*|corrige[rz]?|résume\w*"
    r"|traduce|traducir|resume|resumir|traduza?|traduci|riassumi|vertaal)"
    r"|(?:this|these|the following|following|my|diese[nmrs]?|folgende[nmrs]?|ce|cet|cette|este|esta"
    r"|questo|questa)[ \t](?:e-?mail|letter|article|text|document|transcript|review|lyrics|poem"
    r"|story|essay|paragraph|sentence|message|brief|artikel|satz|lettre|texte|phrase|carta|texto"
    r"|frase|testo))\b[^\n:\uff1a]{0,60}[:\uff1a]",
    re.IGNORECASE,
)
_MATERIAL_UNSPACED: Final = re.compile(
    r"(?:翻译|翻譯|改写|总结|润色|校对|訳して|翻訳|要約|添削)[^\n:\uff1a]{0,20}[:\uff1a]"
)

# A speech begins behind these, unless its speaker is the user. The speaker is looked up where one
# was found: both at once take several times as long.
_SPEECH: Final = re.compile(
    r"\b(?:says|said|wrote|writes|asked|asks|told me|tells me|replied|answered|posted|tweeted"
    r"|texted|sagt|sagte|schreibt|schrieb|meint|meinte|fragt|fragte|antwortete"
    r"|dit|disait|écrit|demande|répond|dice|dijo|escribe|escribió|pregunta|respondió"
    r"|diz|disse|escreveu|ha detto|scrive|ha scritto|zegt|zei|schrijft|schreef)\b"
    r"[^\n:\uff1a.!?]{0,40}[:\uff1a]",
    re.IGNORECASE,
)
_SPEECH_UNSPACED: Final = re.compile(r"(?:说|說|写道|寫道|问|言った|言いました)[^\n]?[:\uff1a]")
_SPEAKER: Final = re.compile(r"[\w'\u2019]{1,40}(?=[ \t]+\Z)")
_MOST_SPEAKER_CHARS: Final = 60
_FIRST_PERSON: Final = frozenset(
    ["i", "we", "ich", "wir", "je", "j'ai", "nous", "yo", "eu", "io", "ik", "我", "私"]
)

_LABEL: Final = re.compile(
    r"^[ \t]*(?:[\[(]?\d{1,2}[:.]\d{2}(?:[:.]\d{2})?[\])]?[ \t,-]*)?"
    r"(?P<label>\w[\w.'\u2019 -]{0,30})[:\uff1a][ \t]*\S.*$",
    re.MULTILINE,
)
_LEAST_TRANSCRIPT: Final = 3

_PAIRS: Final = (("“", "”"), ("„", "“"), ("「", "」"), ("『", "』"), ('"', '"'))
_GUILLEMETS: Final = (("«", "»"), ("»", "«"))
_LONGEST_NAME_WORDS: Final = 2
_LONGEST_NAME_CHARS: Final = 8
"""In scripts without spaces. A quote up to these lengths may be a name, e.g. that of a dog."""

# Scripts that write no spaces between words: Thai to Myanmar, Khmer, kana and Han.
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
_LEAST_LETTERS: Final = 3


def own_words(message: str) -> str:
    """Return what the user says themselves; each place where others speak is a `GAP`."""
    text = message.replace("\r\n", "\n")
    text = _without_rest(text, _MAIL)
    text = _without_fences(text)
    text = _without_elements(text)
    text = _INLINE_CODE.sub(GAP, text)
    text = _QUOTED_LINE.sub(GAP, text)
    if ":" in text or "\uff1a" in text:
        text = _without_transcript(text)
        text = _without_rest(text, _MATERIAL)
        text = _without_rest(text, _MATERIAL_UNSPACED)
        text = _without_speeches(text, _SPEECH)
        text = _without_speeches(text, _SPEECH_UNSPACED)
    # French quotes open where German ones close.
    guillemets = sorted(_GUILLEMETS, key=lambda pair: text.find(pair[0]) % (len(text) + 1))
    for opening, closing in (*_PAIRS, guillemets[0]):
        text = _without_quotes(text, opening, closing)
    return re.sub(rf"{re.escape(GAP)}(?:\s*{re.escape(GAP)})+", GAP, text).strip()


def says_something(own: str) -> bool:
    """Whether there are words that a memory could come from: more than an “ok”."""
    said = own.replace(GAP, " ")
    return len(_UNSPACED.findall(said)) >= _LEAST_LETTERS or len(re.findall(r"[^\W\d_]+", said)) > 1


def contains_passage(own: str, passage: str) -> bool:
    """Whether the passage stands in the user's own words, but for case, width and spaces."""
    wanted = _folded(passage).strip(" .,;:!?…\"'“”„«»「」。、\uff01\uff1f")
    if sum(map(str.isalnum, wanted)) < (2 if _UNSPACED.search(wanted) else _LEAST_LETTERS):
        return False
    said, start = _folded(own), 0
    while (start := said.find(wanted, start)) >= 0:
        end = start + len(wanted)
        if not (_is_inside_word(said, start) or _is_inside_word(said, end)):
            return True
        start += 1
    return False


def passage_about(own: str, content: str) -> str | None:
    """Return the sentence that shares most words with a memory, or None if it shares too few."""
    wanted = _content_words(content)
    sentences = [part.strip() for part in re.split(r"(?<=[.!?。\uff01\uff1f])\s*|\n+", own)]
    best = max(sentences, key=lambda sentence: len(wanted & _content_words(sentence)), default="")
    shared = wanted & _content_words(best)
    return best if wanted and 2 * len(shared) >= len(wanted) and GAP not in best else None


def _content_words(text: str) -> frozenset[str]:
    return frozenset(word[:5] for word in re.findall(r"\w{4,}", _folded(text)))


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub("[\u2019\u2018]", "'", folded).split())


def _is_inside_word(text: str, position: int) -> bool:
    if not 0 < position < len(text):
        return False
    before, after = text[position - 1], text[position]
    joined = before.isalnum() and after.isalnum()
    return joined and not (_UNSPACED.match(before) or _UNSPACED.match(after))


def _without_rest(text: str, pattern: re.Pattern[str]) -> str:
    found = pattern.search(text)
    if found is None:
        return text
    kept = text[: found.end()] if pattern is not _MAIL else text[: found.start()]
    return f"{kept} {GAP}" if text[found.end() :].strip() else text


def _without_fences(text: str) -> str:
    parts: list[str] = []
    position = 0
    opened: str | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence[1]
            parts += [text[position : fence.start()], GAP]
        elif fence[1] == opened:
            opened, position = None, fence.end()
    return "".join(parts) + (text[position:] if opened is None else "")


def _without_elements(text: str) -> str:
    """Leave out what stands between a tag and its end, but for what is only emphasised."""
    opened: dict[str, list[int]] = {}
    spans: list[tuple[int, int]] = []
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if name in _EMPHASIS:
            continue
        if not tag[1]:
            opened.setdefault(name, []).append(tag.start())
        elif starts := opened.get(name):
            spans.append((starts.pop(), tag.end()))
    return _without_spans(text, spans)


def _without_transcript(text: str) -> str:
    """Leave out a talk of several people, one of whom speaks twice."""
    lines = list(_LABEL.finditer(text))
    labels = [line["label"].casefold() for line in lines]
    if len(labels) < _LEAST_TRANSCRIPT or not 1 < len(set(labels)) < len(labels):
        return text
    return _without_spans(text, [line.span() for line in lines])


def _without_speeches(text: str, pattern: re.Pattern[str]) -> str:
    spans: list[tuple[int, int]] = []
    for speech in pattern.finditer(text):
        if _speaker(text, speech).casefold() in _FIRST_PERSON:
            continue
        end = text.find("\n", speech.end())
        if not text[speech.end() : end if end >= 0 else len(text)].strip():
            # The speech begins on the next line, and ends with its paragraph.
            end = text.find("\n\n", end + 1) if end >= 0 else -1
        spans.append((speech.end(), end if end >= 0 else len(text)))
    return _without_spans(text, spans)


def _speaker(text: str, speech: re.Match[str]) -> str:
    """Return the word in front of a speech; in scripts without spaces, the character."""
    if speech.re is _SPEECH_UNSPACED:
        return text[max(speech.start() - 1, 0) : speech.start()].strip()
    before = text[max(speech.start() - _MOST_SPEAKER_CHARS, 0) : speech.start()]
    found = _SPEAKER.search(before)
    return "" if found is None else found[0]


def _without_quotes(text: str, opening: str, closing: str) -> str:
    """Leave out quotes that are longer than a name; one ends in its paragraph."""
    inner = f"[^{re.escape(opening + closing)}\n]*"

    def leave_out(quote: re.Match[str]) -> str:
        said = quote[0][1:-1]
        if _UNSPACED.search(said):
            is_name = len(said) <= _LONGEST_NAME_CHARS
        else:
            is_name = len(said.split()) <= _LONGEST_NAME_WORDS
        return quote[0] if is_name else GAP

    return re.sub(f"{re.escape(opening)}{inner}{re.escape(closing)}", leave_out, text)


def _without_spans(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    position = 0
    for start, end in sorted(spans):
        if start >= position:
            parts += [text[position:start], GAP]
        position = max(position, end)
    return "".join(parts) + text[position:]
