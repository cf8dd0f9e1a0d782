"""From a text to the terms it is found by, the same for documents and queries.

A term is a word in a normal form: a run of letters, digits and combining marks, by NFKC and without case, cut at
`SEARCH_TERM_BYTES_MAX` bytes of UTF-8. Everything else separates words, as in the protocol: no stemming, no words left
out, no folding of accents. Two kinds of text have no words of that form:

* *Dense* scripts, which are written without spaces (Chinese, Japanese, Thai, Khmer, Lao, Burmese): a text is indexed
  under each of its characters and each pair of neighbours, and a query asks for its pairs, for the character where it
  is a single one. So what is asked for is found wherever it stands, and pairs tell words apart.
* Emoji are terms of one character each.

Hostile texts. Patterns are single classes without alternatives in common, so matching is linear. Normalising costs the
square of a run of combining marks, hence `SEARCH_RUN_CHARS_MAX`. What of a text is indexed is bounded three times:
characters, tokens, different terms; what lies behind is not found.

Source: protocol reference 9.1 (splitting, case, nothing else); Unicode Standard Annex 24 for the scripts.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import islice, pairwise
from typing import Final
from unicodedata import normalize

from skerry.limits import (
    SEARCH_QUERY_TERMS_MAX,
    SEARCH_RUN_CHARS_MAX,
    SEARCH_TERM_BYTES_MAX,
    SEARCH_TERM_COUNT_MAX,
    SEARCH_TERMS_PER_TEXT_MAX,
    SEARCH_TEXT_CHARS_MAX,
    SEARCH_TOKENS_PER_TEXT_MAX,
)

_SCRIPTS: Final = r"\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}"
_DENSE: Final = rf"[[{_SCRIPTS}]&&[\p{{L}}\p{{N}}]]"
_WORD: Final = rf"[[\p{{L}}\p{{N}}]--[{_SCRIPTS}]]"
_ASCII_WORDS: Final = re.compile(r"[a-z0-9]+")


class _Patterns:
    """The patterns for texts beyond ASCII, made when the first such text comes: they take 2 MB and 10 ms."""

    def __init__(self) -> None:
        import regex

        # Before normalising: what may hold terms. Symbols are there because some turn into letters. Of a longer run
        # without a dense script only the beginning can be in a term; marks before the first letter are no part of one.
        word_run = rf"[{_WORD}\p{{M}}\p{{So}}]"
        self.runs: Final = regex.compile(
            rf"({_DENSE}(?:{_DENSE}|\p{{M}}){{0,{SEARCH_RUN_CHARS_MAX - 1}}})"
            rf"|({word_run}{{1,{SEARCH_RUN_CHARS_MAX}}}){word_run}*",
            regex.V1,
        )
        self.terms: Final = regex.compile(
            rf"({_DENSE}(?:{_DENSE}|\p{{M}})*)|({_WORD}[{_WORD}\p{{M}}]*)|(\p{{Extended_Pictographic}})", regex.V1
        )
        self.characters: Final = regex.compile(r"\P{M}\p{M}*", regex.V1)


_patterns: Final = cache(_Patterns)

Terms = dict[bytes, int]
"""How often each term occurs, at most `SEARCH_TERM_COUNT_MAX`."""


def analyse(text: str) -> tuple[Terms, int]:
    """The terms of a document's text, in the order in which they come, and how many tokens it has.

    Limits: SEARCH_TEXT_CHARS_MAX, SEARCH_TOKENS_PER_TEXT_MAX, SEARCH_TERMS_PER_TEXT_MAX; what lies behind is left out.
    """
    return _remembered(text)


def query_terms(text: str) -> list[bytes]:
    """The first terms of a query's text, in order, with repetitions. Limits: SEARCH_QUERY_TERMS_MAX."""
    return list(islice(_tokens(text[:SEARCH_TEXT_CHARS_MAX], is_query=True), SEARCH_QUERY_TERMS_MAX))


def _analyse(text: str) -> tuple[Terms, int]:
    text = text[:SEARCH_TEXT_CHARS_MAX]
    tokens: list[bytes]
    if text.isascii():
        words = _ASCII_WORDS.findall(text.lower())
        tokens = [word[:SEARCH_TERM_BYTES_MAX].encode() for word in words[:SEARCH_TOKENS_PER_TEXT_MAX]]
    else:
        tokens = list(islice(_tokens(text, is_query=False), SEARCH_TOKENS_PER_TEXT_MAX))
    terms: Terms = Counter(tokens)
    if len(tokens) > SEARCH_TERM_COUNT_MAX:
        kept = islice(terms.items(), SEARCH_TERMS_PER_TEXT_MAX)
        terms = {term: min(count, SEARCH_TERM_COUNT_MAX) for term, count in kept}
    return terms, len(tokens)


# A document's keys and its length are asked for one after the other, and twice each where it is rewritten.
_remembered = lru_cache(maxsize=4)(_analyse)


def _tokens(text: str, *, is_query: bool) -> Iterator[bytes]:
    """The terms of a text one after the other."""
    if text.isascii():
        for match in _ASCII_WORDS.finditer(text.lower()):
            yield match[0][:SEARCH_TERM_BYTES_MAX].encode()
        return
    patterns = _patterns()
    for run in patterns.runs.finditer(text):
        piece = run[1] or run[2]
        if piece.isascii():
            yield piece.lower().encode()[:SEARCH_TERM_BYTES_MAX]
            continue
        folded = normalize("NFKC", normalize("NFKC", piece).casefold())
        for match in patterns.terms.finditer(folded):
            if match[1] is None:
                yield _cut(match[0])
            else:
                yield from _dense(patterns.characters.findall(match[1]), is_query)


def _dense(characters: list[str], is_query: bool) -> Iterator[bytes]:
    """The terms of a run in a dense script."""
    if is_query and len(characters) > 1:
        for left, right in pairwise(characters):
            yield _cut(left + right)
        return
    previous = ""
    for character in characters:
        if previous:
            yield _cut(previous + character)
        yield _cut(character)
        previous = character


def _cut(term: str) -> bytes:
    """A term's bytes, whole characters of them."""
    raw = term.encode(errors="ignore")
    if len(raw) <= SEARCH_TERM_BYTES_MAX:
        return raw
    return raw[:SEARCH_TERM_BYTES_MAX].decode(errors="ignore").encode()
