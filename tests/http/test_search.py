"""Full-text search of an unmodified TypeScript app, over HTTP: what was declared is found, ranked, filtered, paged."""

from typing import Any

import pytest

from tests.http.serving import RunningServer


def send(server: RunningServer, channel: str, *bodies: str, author: str = "Ada") -> None:
    for body in bodies:
        answer = server.call("mutation", "messages:send", {"channel": channel, "author": author, "body": body})
        assert answer["status"] == "success"


def ask(server: RunningServer, function: str, **args: Any) -> Any:
    answer = server.call("query", function, args)
    assert answer["status"] == "success", answer
    return answer["value"]


def test_the_example_finds_messages_of_a_channel(server: RunningServer) -> None:
    send(server, "zoo", "the otter swims", "an otter, an otter and an otterhound", "seals sleep", "ŻÓŁW i żółwie")
    send(server, "elsewhere zoo", "the otter sleeps")
    found = [message["body"] for message in ask(server, "messages:search", channel="zoo", words="otter")]
    assert found == ["an otter, an otter and an otterhound", "the otter swims"]
    assert len(ask(server, "messages:search", channel="zoo", words="ott", limit=1)) == 1
    assert [message["body"] for message in ask(server, "messages:search", channel="zoo", words="żół")] == [
        "ŻÓŁW i żółwie"
    ]
    assert ask(server, "messages:search", channel="zoo", words="walrus") == []


def test_collect_first_filter_and_iteration(server: RunningServer) -> None:
    send(server, "c1", "quokka smiles", "quokka")
    send(server, "c2", "quokka hops", author="Bob")
    assert ask(server, "searching:collected", words="quokka") == ["quokka", "quokka hops", "quokka smiles"]
    assert ask(server, "searching:collected", words="quokka", channel="c1") == ["quokka", "quokka smiles"]
    assert ask(server, "searching:first", words="quok") == "quokka"
    assert ask(server, "searching:first", words="aardwolf") is None
    assert ask(server, "searching:filtered", words="quokka", but="Bob") == ["quokka", "quokka smiles"]


def test_pages(server: RunningServer) -> None:
    send(server, "pages", *[f"numbat {n}" for n in range(7)])
    cursor, got = None, []
    while True:
        page = ask(server, "searching:paged", words="numbat", paginationOpts={"numItems": 3, "cursor": cursor})
        got.append(page["page"])
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
        send(server, "pages", "a numbat among many other words that came late")
    assert [body for page in got for body in page if "late" not in body] == [f"numbat {n}" for n in reversed(range(7))]
    assert len(got[0]) == len(got[1]) == 3


def test_a_mutation_searches_what_it_wrote(server: RunningServer) -> None:
    answer = server.call("mutation", "searching:written", {"word": "pangolin"})
    assert answer["value"] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("range", "Index messages.search_body is a search index and cannot be used in `withIndex`."),
        ("search", "Index messages.by_channel is no search index and cannot be used in `withSearchIndex`."),
        ("field", "contains a search filter against"),
        ("filter", "but that field isn't indexed for filtering in `filterFields`."),
        ("none", "does not contain any search filters."),
    ],
)
def test_misuse_is_told_to_the_function(server: RunningServer, how: str, says: str) -> None:
    answer = server.call("query", "searching:misused", {"how": how})
    assert answer["status"] == "error" and says in answer["errorMessage"]
