"""Texts taken apart: scripts, normal forms, bounds, and texts made to be slow."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import limits
from skerry.database.search_text import analyse, query_terms


def words(text: str) -> list[str]:
    return [term.decode() for term in analyse(text)[0]]


def asked(text: str) -> list[str]:
    return [term.decode() for term in query_terms(text)]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Hello, WORLD! don't e-mail a_b", ["hello", "world", "don", "t", "e", "mail", "a", "b"]),
        ("Zażółć GĘŚLĄ jaźń", ["zażółć", "gęślą", "jaźń"]),
        ("Straße GROẞE Ärger", ["strasse", "grosse", "ärger"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("e\u0301cole ÉCOLE", ["école"]),
        ("ﬁne ㎏ ™ Ⓐ \uff11\uff12", ["fine", "kg", "tm", "a", "12"]),
        ("ok 🎉 👩\u200d👧 ❤\ufe0f", ["ok", "🎉", "👩", "👧", "❤"]),
        ("\u0301\u0323 \u0301a", ["a"]),
        ("", []),
        ("... --- \n", []),
    ],
)
def test_words_of_a_text(text: str, terms: list[str]) -> None:
    assert words(text) == terms == list(dict.fromkeys(asked(text)))


def test_case_makes_no_difference() -> None:
    for text in ("Hello World", "ŁÓDŹ", "ΣΊΣΥΦΟΣ", "Ĳ"):
        assert words(text) == words(text.lower()) == words(text.upper())


def test_dense_scripts_are_found_by_character_and_by_neighbours() -> None:
    assert words("北京大") == ["北", "北京", "京", "京大", "大"]
    assert asked("北京大") == ["北京", "京大"]
    assert asked("北") == ["北"]
    assert words("ｶﾞｽ") == words("ガス") == ["ガ", "ガス", "ス"]
    assert words("日本 go") == ["日", "日本", "本", "go"]
    assert asked("ไทย") == ["ไท", "ทย"]


@given(st.text(alphabet="北京大学日本ガスเก", min_size=2, max_size=12), st.data())
def test_every_piece_of_a_dense_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 2))
    piece = text[start : data.draw(st.integers(start + 2, len(text)))]
    assert set(asked(piece)) <= set(words(text)) or piece[0] == "เ" != text[0]


@given(st.text())
def test_a_text_is_found_by_each_of_its_words(text: str) -> None:
    for term in words(text):
        assert len(term.encode()) <= limits.SEARCH_TERM_BYTES_MAX
        assert term in asked(term) or len(term) == 2 or len(term.encode()) > limits.SEARCH_TERM_BYTES_MAX - 4


def test_long_words_are_cut_alike_in_texts_and_queries() -> None:
    most = limits.SEARCH_TERM_BYTES_MAX
    for letter in ("a", "é", "д"):
        word = letter * 50
        assert words(word) == asked(word) == [letter * (most // len(letter.encode()))]
    assert words("b" * most) == ["b" * most]
    assert words("b" * (most + 1)) == ["b" * most]


def test_occurrences_are_counted_up_to_a_bound() -> None:
    most = limits.SEARCH_TERM_COUNT_MAX
    assert analyse("a " * most)[0] == {b"a": most}
    assert analyse("a " * (most + 1)) == ({b"a": most}, most + 1)


def test_what_lies_behind_the_bounds_of_a_text_is_left_out() -> None:
    chars, tokens = limits.SEARCH_TEXT_CHARS_MAX, limits.SEARCH_TOKENS_PER_TEXT_MAX
    different = limits.SEARCH_TERMS_PER_TEXT_MAX
    for letter in ("a", "é"):
        assert analyse(" " * (chars - 1) + letter)[1] == 1
        assert analyse(" " * chars + letter)[1] == 0
        assert analyse(f"{letter} " * tokens)[1] == tokens == analyse(f"{letter} " * (tokens + 1))[1]
        numbered = [f"{letter}{n}" for n in range(different + 1)]
        assert len(analyse(" ".join(numbered[:-1]))[0]) == different
        assert list(analyse(" ".join(numbered))[0]) == [word.encode() for word in numbered[:-1]]


def test_a_query_has_a_bounded_number_of_terms() -> None:
    most = limits.SEARCH_QUERY_TERMS_MAX
    assert len(query_terms("a " * most)) == most == len(query_terms("a " * (most + 1)))
    assert len(query_terms("é " * (1 << 20))) == most


HOSTILE: list[tuple[str, Callable[[int], str]]] = [
    ("one word", lambda n: "a" * n),
    ("one accented word", lambda n: "é" * n),
    ("different words", lambda n: " ".join([f"é{at}" for at in range(n // 6)])),
    ("marks alone", lambda n: "\u0301\u0323" * (n // 2)),
    ("a letter with marks", lambda n: "a" + "\u0301\u0323" * (n // 2)),
    ("letters with marks", lambda n: "a\u0301\u0323" * (n // 3)),
    ("a dense letter with marks", lambda n: "ก" + "\u0e31\u0e48" * (n // 2)),
    ("what normalises to four words", lambda n: "\ufdfa" * n),
    ("many of those", lambda n: "\ufdfa " * (n // 2)),
    ("dense", lambda n: "北京" * (n // 2)),
    ("emoji", lambda n: "🎉" * n),
    ("nothing", lambda n: "é" + " " * n),
]


@pytest.mark.parametrize(("name", "text"), HOSTILE)
def test_hostile_texts_take_bounded_steps(name: str, text: Callable[[int], str]) -> None:
    """Counted in lines of Python, which bound the calls into C; each of those sees a bounded run."""
    assert _lines(text(1 << 20)) <= 40 * limits.SEARCH_TOKENS_PER_TEXT_MAX, name
    assert _lines(text(1 << 14)) <= 40 * (1 << 14), name


def _lines(text: str) -> int:
    count = 0

    def local(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, _event, _argument: local if "search_text" in frame.f_code.co_filename else None)
    try:
        analyse(text)
    finally:
        sys.settrace(before)
    return count


def test_normalising_sees_bounded_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of combining marks costs the square of its length, so none is long."""
    from skerry.database import search_text

    seen: list[int] = []
    real = search_text.normalize

    def noting(form: str, text: str) -> str:
        seen.append(len(text))
        return real(form, text)

    monkeypatch.setattr(search_text, "normalize", noting)
    for _, text in HOSTILE:
        analyse(text(1 << 16) + "é")
    longest_expansion = 18
    assert 0 < max(seen) <= longest_expansion * limits.SEARCH_RUN_CHARS_MAX
