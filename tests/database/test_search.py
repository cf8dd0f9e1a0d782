"""Searches: what is found and in which order, filters, operators, pages, own writes, errors and bounds."""

from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.database import Conflict, verify
from skerry.database.bulk import clear_imported
from skerry.database.search_counts import Counts, counts_of, counts_write
from skerry.database.search_index import SearchIndex, coded_length, length_code
from skerry.errors import DeveloperError
from skerry.storage import Tree, index_prefix
from tests.database.search_world import UNDEFINED, bodies, found, pages, search_query, search_schema
from tests.database.test_bulk import Importing
from tests.database.test_query import fails
from tests.database.world import World, range_query, scan_query, table_schema


@pytest.fixture
def chat(world: World) -> World:
    world.schema(search_schema())
    return world


def say(world: World, *texts: str, channel: Any = "a") -> list[str]:
    return [world.insert_all("m", [{"body": text, "channel": channel}])[0] for text in texts]


def counts(world: World) -> Counts:
    number = world.database.catalog.tables["m"].indexes["find"].number
    return world.read(lambda t: counts_of(t, number))


# -- what is found ---------------------------------------------------------------------------------------------------


def test_any_of_the_words_finds_and_more_of_them_come_first(chat: World) -> None:
    say(chat, "red apple pie", "red car", "green pear", "apple and red wine and bread")
    assert bodies(chat, "red apple") == ["red apple pie", "apple and red wine and bread", "red car"]
    assert bodies(chat, "blue") == [] == bodies(chat, "") == bodies(chat, "?!")


def test_the_last_word_is_a_prefix_too_and_an_exact_match_comes_first(chat: World) -> None:
    say(chat, "the cat", "the catalogue", "cab")
    assert bodies(chat, "cat") == ["the cat", "the catalogue"]
    assert bodies(chat, "ca") == ["cab", "the catalogue", "the cat"]
    assert bodies(chat, "cat the") == ["the cat", "the catalogue"]
    assert bodies(chat, "ca xyz") == []


def test_equal_scores_come_newest_first(chat: World) -> None:
    say(chat, "same one", "same two", "same three")
    assert bodies(chat, "same") == ["same three", "same two", "same one"]


def test_a_repeated_word_counts_once(chat: World) -> None:
    say(chat, "one two", "two three three")
    assert bodies(chat, "one two") == bodies(chat, "one one one two two")


def test_texts_in_many_scripts_are_found(chat: World) -> None:
    say(
        chat,
        "Zażółć gęślą jaźń",
        "Die GROẞE Straße",
        "我们明天去北京大学",
        "東京タワーへ行く",
        "서울에서 만나요",
        "🎉 party",
    )
    for text, begin in (
        ("gęśl", "Zaż"), ("grosse", "Die"), ("STRASSE", "Die"), ("北京", "我们"), ("京大学", "我们"), ("学", "我们"),
        ("タワー", "東京"), ("서울", "서울"), ("🎉", "🎉"), ("GE\u0328S\u0301LA\u0328", "Zaż"),
    ):  # fmt: skip
        assert bodies(chat, text)[0].startswith(begin), text


def test_only_texts_are_searched_also_nested_ones(world: World) -> None:
    world.schema(search_schema(field="post.text", filters=()))
    world.insert_all("m", [{"post": {"text": "here"}}, {"post": "here"}, {"post": {"text": 5}}, {"text": "here"}, {}])
    query = search_query("here", field="post.text")
    assert [d["post"] for d in orjson.loads(world.read(lambda t: t.collect_query(query)))] == [{"text": "here"}]
    assert counts(world) == Counts(1, 1)


# -- filters and operators -------------------------------------------------------------------------------------------


def test_filters_leave_what_equals_missing_and_every_type_included(chat: World) -> None:
    values: list[Any] = ["a", "b", None, 1, True, ["a"], {"a": 1}, 0.0, -0.0, "x" * 100_000]
    for value in values:
        say(chat, f"word {values.index(value) if value != 0 else repr(value)}", channel=value)
    chat.insert_all("m", [{"body": "word none"}])
    for value in values:
        sent = {"$float": "AAAAAAAAAIA="} if repr(value) == "-0.0" else value
        assert len(bodies(chat, "word", {"channel": sent})) == 1, value
    assert bodies(chat, "word", {"channel": UNDEFINED}) == ["word none"]
    assert bodies(chat, "word", {"channel": "other"}) == []
    assert len(bodies(chat, "word")) == len(values) + 1


def test_several_filters_must_all_hold(world: World) -> None:
    world.schema(search_schema(filters=("x", "y.z")))
    world.insert_all("m", [{"body": f"w {n}", "x": n % 2, "y": {"z": n % 3}} for n in range(12)])
    assert bodies(world, "w", {"x": 1, "y.z": 2}) == ["w 11", "w 5"]
    assert bodies(world, "w", {"y.z": 2, "x": 1}) == ["w 11", "w 5"]


def test_prefixes_are_of_words_in_the_filtered_documents(chat: World) -> None:
    for n in range(3 * limits.SEARCH_PREFIX_TERMS_MAX):
        say(chat, f"pre{n:03}")
    say(chat, "prey", channel="b")
    assert bodies(chat, "pre", {"channel": "b"}) == ["prey"]
    assert len(bodies(chat, "pre")) == limits.SEARCH_PREFIX_TERMS_MAX


def test_values_with_one_digest_are_told_apart(chat: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SearchIndex, "filter_scope", lambda _self, at, _value: b"\x20" + bytes((at,)) + b"8 bytes!")
    say(chat, "word one", channel="a")
    say(chat, "word two", channel="b")
    assert bodies(chat, "word", {"channel": "a"}) == ["word one"]


def test_operators_follow_a_search(chat: World) -> None:
    say(chat, *[f"word {n}" for n in range(10)])
    even: dict[str, Any] = {"filter": {"$neq": [{"$field": "body"}, {"$literal": "word 8"}]}}
    assert [d["body"] for d in chat.read(lambda t: found(t, "word", None, [even, {"limit": 2}]))] == [
        "word 9",
        "word 7",
    ]
    assert [d["body"] for d in chat.read(lambda t: found(t, "word", None, [{"limit": 2}, even]))] == ["word 9"]

    def one_by_one(t: Any) -> list[bytes | None]:
        number = t.open_query(search_query("word", None, [{"limit": 1}]))
        return [t.next(number), t.next(number)]

    first, end = chat.read(one_by_one)
    assert orjson.loads(first)["body"] == "word 9" and end is None


# -- writes ----------------------------------------------------------------------------------------------------------


def test_a_mutation_sees_its_own_writes(chat: World) -> None:
    old, gone = say(chat, "word old", "word gone")

    def step(t: Any) -> list[str]:
        t.delete(gone)
        t.patch(old, {"body": "word renewed"})
        new = t.insert("m", {"body": "word new word", "channel": "b"})
        brief = t.insert("m", {"body": "word brief"})
        t.delete(brief)
        t.savepoint()
        t.insert("m", {"body": "word undone"})
        t.patch(new, {"body": "nothing"})
        t.rollback()
        return [d["body"] for d in found(t, "word")]

    assert chat.run(step) == ["word new word", "word renewed"]
    assert bodies(chat, "word") == ["word new word", "word renewed"]
    assert bodies(chat, "old") == bodies(chat, "gone") == bodies(chat, "undone") == []
    assert counts(chat) == Counts(2, 5)
    assert verify(chat.engine.snapshot()).differences == []


def test_the_next_mutation_sees_pending_commits_and_queries_do_not(chat: World) -> None:
    first = chat.begin()
    first.insert("m", {"body": "word"})
    chat.commit(first)
    assert bodies(chat, "word") == []
    second = chat.begin()
    assert [d["body"] for d in found(second, "word")] == ["word"]
    number = chat.database.catalog.tables["m"].indexes["find"].number
    assert counts_of(second, number) == Counts(1, 1)
    second.insert("m", {"body": "second word"})
    chat.commit(second)
    chat.settle()
    assert bodies(chat, "word") == ["word", "second word"] and counts(chat) == Counts(2, 3)


def test_a_document_that_goes_away_during_a_search_is_passed_over(chat: World) -> None:
    first, second = say(chat, "word 1", "word 2")

    def step(t: Any) -> Any:
        number = t.open_query(search_query("word"))
        newest = orjson.loads(t.next(number))["_id"]
        t.delete(first)
        return newest == second, t.next(number)

    assert chat.run(step) == (True, None)


def test_existing_documents_are_found_once_the_index_is_there(world: World) -> None:
    world.insert_all("m", [{"body": f"word {n}"} for n in range(300)])
    world.schema(table_schema("m", {}))
    with fails("IndexNotFoundError"):
        bodies(world, "word")
    world.schema(search_schema())
    assert len(bodies(world, "word")) == 300 and counts(world) == Counts(300, 600)
    world.schema(table_schema("m", {}))
    world.schema(search_schema())
    assert counts(world) == Counts(300, 600)
    assert verify(world.engine.snapshot()).differences == []


def test_an_edit_of_another_field_moves_nothing(chat: World) -> None:
    (id_,) = say(chat, "word")
    t = chat.begin()
    t.patch(id_, {"seen": 1})
    assert not t.lengths.get(chat.database.catalog.tables["m"].indexes["find"].number)
    chat.commit(t)
    chat.settle()
    assert len(bodies(chat, "word", {"channel": "a"})) == 1
    chat.run(lambda t: t.patch(id_, {"channel": "b"}))
    assert bodies(chat, "word", {"channel": "a"}) == [] and bodies(chat, "word", {"channel": "b"}) == ["word"]


# -- read sets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channel", "conflicts"),
    [
        ("hello there", "a", True),
        ("thin hello", "a", True),
        ("bye thus", "a", True),
        ("bye", "a", False),
        ("hellos", "a", False),
        ("hello there", "b", False),
        ("tg ti", "a", False),
    ],
)
def test_a_commit_touches_a_search_only_where_it_could_change_it(
    chat: World, text: str, channel: str, conflicts: bool
) -> None:
    say(chat, "hello you", "the end", "other")
    searching = chat.begin(detached=True)
    found(searching, "hello th", {"channel": "a"})
    searching.insert("m", {"body": "result"})
    say(chat, text, channel=channel)
    if conflicts:
        with pytest.raises(Conflict):
            chat.commit(searching)
    else:
        chat.commit(searching)
        chat.settle()


def test_a_taken_result_conflicts_with_its_edit_and_a_weaker_document_does_not(chat: World) -> None:
    (id_,) = say(chat, "unrelated")
    say(chat, *["common"] * 3)
    chat.insert_all(
        "m", [{"body": "common " + "x" * (n % 5), "channel": "a"} for n in range(limits.SEARCH_POSTINGS_MAX)]
    )
    taking = chat.begin(detached=True)
    taken = found(taking, "common", None, [{"limit": 1}])
    taking.insert("m", {"body": "result"})
    say(chat, "common " + "long and weak " * 20)
    chat.run(lambda t: t.patch(id_, {"body": "also unrelated"}))
    chat.commit(taking)
    chat.settle()
    again = chat.begin(detached=True)
    found(again, "common", None, [{"limit": 1}])
    again.insert("m", {"body": "result"})
    chat.run(lambda t: t.patch(taken[0]["_id"], {"seen": True}))
    with pytest.raises(Conflict):
        chat.commit(again)


# -- pages -----------------------------------------------------------------------------------------------------------


def test_pages_hold_each_result_once_and_end_as_pages_do(chat: World) -> None:
    say(chat, *[f"word {'more ' * (n % 4)}{n}" for n in range(10)])
    whole = bodies(chat, "word")
    got = pages(chat, search_query("word"), 3)
    assert [[d["body"] for d in page] for page in got] == [whole[:3], whole[3:6], whole[6:9], whole[9:]]
    even = pages(chat, search_query("word"), 5)
    assert [len(page) for page in even] == [5, 5, 0]


def test_pages_neither_skip_nor_repeat_while_others_write(chat: World) -> None:
    say(chat, *[f"word {'more ' * (n % 7)}{n}" for n in range(40)])
    whole = bodies(chat, "word")
    query, cursor, got = search_query("word"), None, []
    for turn in range(20):
        page = orjson.loads(chat.read(lambda t, cursor=cursor: t.page(query, cursor, None, 6)))
        got += [d["body"] for d in page["page"]]
        cursor = page["continueCursor"]
        say(chat, *["word " * 5 + f"new {turn} {n}" for n in range(7)], *["nothing at all"] * 20)
        if page["isDone"]:
            break
    assert [body for body in got if "new" not in body] == whole


def test_a_page_that_is_run_again_keeps_its_bounds(chat: World) -> None:
    say(chat, *[f"word {n}" for n in range(6)])
    query = search_query("word")
    first = orjson.loads(chat.read(lambda t: t.page(query, None, None, 4)))
    say(chat, "word new")
    again = orjson.loads(chat.read(lambda t: t.page(query, None, first["continueCursor"], 4)))
    assert [d["body"] for d in again["page"]] == ["word new", "word 5", "word 4", "word 3", "word 2"]
    assert again["continueCursor"] == first["continueCursor"]


def test_a_cursor_of_another_search_is_refused(chat: World) -> None:
    say(chat, *[f"word {n}" for n in range(6)])
    cursor = orjson.loads(chat.read(lambda t: t.page(search_query("word"), None, None, 2)))["continueCursor"]
    with fails("InvalidCursor"):
        chat.read(lambda t: t.page(search_query("words"), cursor, None, 2))


# -- misuse ----------------------------------------------------------------------------------------------------------


def refused(world: World, filters: Any, **source: Any) -> tuple[str, str]:
    query = {"source": {"type": "Search", "indexName": "m.find", "filters": filters, **source}, "operators": []}
    with pytest.raises(DeveloperError) as caught:
        world.read(lambda t: t.collect_query(query))
    return caught.value.code, caught.value.message


def test_misuse_is_told_in_the_words_of_the_protocol(memory: World) -> None:
    memory.schema(search_schema(indexes=[{"indexDescriptor": "plain", "fields": ["body"]}]))
    word = {"type": "Search", "fieldPath": "body", "value": "x"}
    eq = {"type": "Eq", "fieldPath": "channel", "value": 1}
    assert refused(memory, [{**word, "fieldPath": "title"}]) == (
        "IncorrectSearchField",
        (
            'Search query against m.find contains a search filter against "title", which doesn\'t match the indexed '
            '`searchField` "body".'
        ),
    )
    assert refused(memory, [word, word]) == (
        "DuplicateSearchFiltersError",
        'Search query against m.find contains multiple search filters against "body". Only one is allowed.',
    )
    assert refused(memory, [eq])[0] == "MissingSearchFilterError"
    assert "does not contain any search filters. You must include a search filter like" in refused(memory, [])[1]
    assert refused(memory, [word, {**eq, "fieldPath": "author"}]) == (
        "IncorrectFilterFieldError",
        (
            'Search query against m.find contains an equality filter on "author" but that field isn\'t indexed for '
            "filtering in `filterFields`."
        ),
    )
    most = limits.SEARCH_FILTERS_MAX
    assert refused(memory, [word] + [eq] * (most + 1)) == (
        "TooManyFilterConditionsInSearchQueryError",
        f"Search query against m.find has too many filter conditions. Max: {most} Actual: {most + 1}",
    )
    assert bodies(memory, "x") == []
    memory.read(
        lambda t: t.collect_query(
            {**search_query("x"), "source": {**search_query("x")["source"], "filters": [word] + [eq] * most}}
        )
    )
    assert refused(memory, [word], indexName="m.plain")[0] == "IndexNotASearchIndexError"
    assert refused(memory, [word], indexName="m.by_id")[0] == "IndexNotASearchIndexError"
    assert refused(memory, [word], indexName="m.none") == ("IndexNotFoundError", "Index m.none not found.")
    assert refused(memory, [word], indexName="none.by_creation_time")[0] == "IndexNotFoundError"
    with fails("IndexNotADatabaseIndexError"):
        memory.read(lambda t: t.collect_query(range_query("m.find", [])))


@pytest.mark.parametrize(
    "filters",
    [None, {}, [1], [{}], [{"type": "Gt", "fieldPath": "body", "value": "x"}], [{"type": "Search", "value": "x"}],
     [{"type": "Search", "fieldPath": "body", "value": 5}], [{"type": "Search", "fieldPath": "body"}]],
)  # fmt: skip
def test_malformed_searches_are_refused(memory: World, filters: Any) -> None:
    memory.schema(search_schema())
    assert refused(memory, filters)[0] == "InvalidQuery"


def test_a_search_has_no_other_order(memory: World) -> None:
    memory.schema(search_schema())
    assert refused(memory, [{"type": "Search", "fieldPath": "body", "value": "x"}], order="desc")[0] == "InvalidQuery"


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_so_many_results_are_given_and_one_more_is_an_error(memory: World) -> None:
    most = limits.SEARCH_RESULTS_MAX
    memory.schema(search_schema())
    memory.insert_all("m", [{"body": f"word {n % 7}"} for n in range(most - 1)])
    assert len(bodies(memory, "word")) == most - 1
    say(memory, "word")
    with pytest.raises(DeveloperError) as caught:
        bodies(memory, "word")
    assert caught.value.code == "SearchQueryScannedTooManyDocumentsError"
    assert caught.value.message.startswith(f"Search query scanned too many documents (fetched {most}). Consider using ")
    taken = memory.read(lambda t: found(t, "word", None, [{"limit": most - 1}]))
    assert len(taken) == most - 1 and taken[0]["body"] == "word"


def test_a_common_word_is_read_from_its_strong_end(memory: World) -> None:
    memory.schema(search_schema())
    most = limits.SEARCH_POSTINGS_MAX
    memory.insert_all("m", [{"body": "word " * (1 + n % 3) + "x " * (n % 50)} for n in range(4 * most)])
    say(memory, "word rare", "rare " + "x " * 60)

    def reading(t: Any) -> tuple[list[str], int]:
        best = [d["body"] for d in found(t, "word", None, [{"limit": 10}])]
        return best, t.usage.search_keys

    best, n_keys = memory.read(reading)
    assert best == ["word word word "] * 10 and n_keys < 2 * most
    assert bodies_first(memory, "word rare", 2) == ["word rare", "rare " + "x " * 60]


def bodies_first(world: World, text: str, count: int) -> list[str]:
    return [d["body"] for d in world.read(lambda t: found(t, text, None, [{"limit": count}]))]


def test_two_common_words_find_what_has_both(memory: World) -> None:
    memory.schema(search_schema())
    most = limits.SEARCH_POSTINGS_MAX
    memory.insert_all("m", [{"body": f"{'left' if n % 2 else 'right'} {n}"} for n in range(5 * most // 2)])
    say(memory, "left right", "left or right", "word left and also right")
    expected = ["left right", "left or right", "word left and also right"]
    assert bodies_first(memory, "left right", 3) == expected
    assert limits.SEARCH_CANDIDATES_READ_MAX < most < limits.SEARCH_LONG_POSTINGS_MAX


def test_the_searches_of_one_function_read_so_many_keys(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from skerry.database import usage

    memory.schema(search_schema())
    say(memory, "word", "word")

    def keys_read(t: Any) -> int:
        found(t, "word")
        return t.usage.search_keys

    n_keys = memory.read(keys_read)
    assert limits.TRANSACTION_SEARCH_KEYS_MAX == usage.TRANSACTION_SEARCH_KEYS_MAX > 100 * n_keys > 0
    monkeypatch.setattr(usage, "TRANSACTION_SEARCH_KEYS_MAX", n_keys)
    memory.read(keys_read)
    monkeypatch.setattr(usage, "TRANSACTION_SEARCH_KEYS_MAX", n_keys - 1)
    with fails("TooManySearchKeysRead"):
        memory.read(keys_read)


def test_a_long_text_leaves_the_loop_thread(memory: World) -> None:
    memory.schema(search_schema())
    left: list[int] = []

    def leave() -> None:
        left.append(1)

    t = memory.begin()
    t.usage.bound(lambda: None, 1_000_000, leave)
    t.insert("m", {"body": "x" * limits.SLICE_SEARCH_CHARS_MAX})
    assert not left
    t.insert("m", {"body": "x" * (limits.SLICE_SEARCH_CHARS_MAX + 1)})
    assert left
    t.abort()


def test_a_document_of_many_different_words_is_written_and_found(chat: World) -> None:
    (id_,) = say(chat, " ".join([f"w{n}" for n in range(100_000)]), "other")[:1]
    assert len(bodies(chat, f"w{limits.SEARCH_TERMS_PER_TEXT_MAX - 1} zzz")) == 1
    assert bodies(chat, "w99999 zzz") == []
    assert counts(chat).tokens == limits.SEARCH_TOKENS_PER_TEXT_MAX + 1
    chat.run(lambda t: t.delete(id_))
    assert counts(chat) == Counts(1, 1) and bodies(chat, "w1 zzz") == []
    assert verify(chat.engine.snapshot()).differences == []


def test_lengths_are_kept_in_a_byte_in_their_order() -> None:
    lengths = range(limits.SEARCH_TOKENS_PER_TEXT_MAX + 1)
    codes = [length_code(length) for length in lengths]
    assert codes == sorted(codes) and codes[-1] == 255
    for length, code in zip(lengths, codes, strict=True):
        assert length - length // 16 <= coded_length(code) <= length and length_code(coded_length(code)) == code


def test_the_same_search_gives_the_same_bytes(chat: World) -> None:
    say(chat, *[f"word {'more ' * (n % 5)}{n % 3}" for n in range(60)])
    query = search_query("word m")
    runs = {chat.read(lambda t: t.collect_query(query) + t.page(query, None, None, 7)) for _ in range(3)}
    assert len(runs) == 1


# -- imports, checks, the past ---------------------------------------------------------------------------------------


def test_imported_documents_are_counted_with_those_that_are_written_meanwhile(world: World) -> None:
    world.schema(search_schema())
    world.insert_all("m", [{"body": f"old {n % 5} " + "x " * (n % 3)} for n in range(200)])
    ids = [document["_id"] for document in orjson.loads(world.read(lambda t: t.collect_query(scan_query("m"))))]
    importing = Importing(world)
    fill = importing.begin("m", world.database.catalog.tables["m"].number)
    turn = iter(range(1_000))

    def write() -> None:
        n = next(turn)
        if n < 60:
            world.run(lambda t: t.patch(ids[3 * n], {"body": "patched and longer"}))
            world.run(lambda t: t.delete(ids[199 - 3 * n]) if 199 - 3 * n not in range(0, 180, 3) else None)
            world.run(lambda t: t.insert("m", {"body": "born"}))

    importing.drive(fill.copy(), write)
    importing.add(fill, *[{"body": f"added {n}"} for n in range(50)])
    while next(turn) < 40:
        write()
    importing.switch()
    texts = [d["body"] for d in orjson.loads(world.read(lambda t: t.collect_query(scan_query("m"))))]
    assert counts(world) == Counts(len(texts), sum(len(text.split()) for text in texts))
    assert len(bodies(world, "added")) == 50 and len(bodies(world, "patched")) == texts.count("patched and longer") > 30
    importing.drive(clear_imported(world.database))
    assert verify(world.engine.snapshot()).differences == []


def test_a_wrong_count_and_a_missing_posting_are_found(chat: World) -> None:
    say(chat, "word", "two words")
    number = chat.database.catalog.tables["m"].indexes["find"].number
    chat.engine.commit([counts_write(number, Counts(3, 3))]).result()
    (difference,) = verify(chat.engine.snapshot()).differences
    assert difference.code == "SearchCountsWrong" and "Counts(documents=2, tokens=3)" in difference.says
    chat.engine.commit([counts_write(number, Counts(2, 3))]).result()
    snapshot = chat.engine.snapshot()
    first = next(iter(snapshot.scan(Tree.INDEXES, index_prefix(number), None, False)))[0]
    snapshot.close()
    chat.engine.commit([(Tree.INDEXES, first, None)]).result()
    assert [difference.code for difference in verify(chat.engine.snapshot()).differences] == ["IndexEntryMissing"]


def test_the_past_is_searched_with_the_weights_of_the_present(chat: World) -> None:
    first, second = say(chat, "word one", "word two")
    then = chat.database.durable_ts
    chat.run(lambda t: t.patch(first, {"body": "other one"}), lambda t: t.delete(second))
    say(chat, "word three")
    t = chat.database.begin(writable=False, now_ms=chat.now_ms, seed=b"s" * 32, detached=True, at_ts=then)
    assert [d["body"] for d in found(t, "word")] == ["word two", "word one"]
    assert found(t, "three") == found(t, "other") == []
    t.abort()


def test_what_was_counted_is_there_after_a_failure_and_after_opening(chat: World) -> None:
    say(chat, "word one")
    lost = chat.begin()
    lost.insert("m", {"body": "lost words"})
    lost.abort()
    chat.settle()
    chat.database = chat.open()
    assert counts(chat) == Counts(1, 2)
    say(chat, "word two")
    assert counts(chat) == Counts(2, 4) and bodies(chat, "word") == ["word two", "word one"]
