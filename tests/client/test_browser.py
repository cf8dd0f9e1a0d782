"""The chat example's React page, with the unmodified `convex/react`, in a real browser against a real server.

The page runs as `npm run dev` serves it, which is React's StrictMode in development: each effect runs twice. Each test
has a channel of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.browser import Page, chromium_or_skip
from tests.client.stand import Stand, standing
from tests.client.vite import ViteServer

BODIES = "[...document.querySelectorAll('%s > li:not(.oldest) > span')].map((line) => line.textContent)"
HISTORY = BODIES % ".history"
CONNECTED = "document.querySelector('header output')?.textContent === 'connected'"
DISCONNECTED = "document.querySelector('header output')?.textContent === 'connecting'"
SENDING = "document.querySelectorAll('li.sending').length"
PAGE_MESSAGES = 20


@dataclass
class ChatStand(Stand):
    """Shape: `url` is the page's."""

    url: str = ""

    def open(self, who: str, channel: str) -> Page:
        return self.open_page(f"{self.url}?channel={channel}&author={who}")

    def say(self, channel: str, *bodies: str) -> None:
        for body in bodies:
            answer = self.server.call("mutation", "messages:send", {"channel": channel, "author": "Bob", "body": body})
            assert answer["status"] == "success", answer

    def said(self, channel: str) -> list[str]:
        """What the server has, newest first."""
        answer = self.server.call("query", "messages:list", {"channel": channel, "limit": 200})
        return [message["body"] for message in answer["value"]]


@pytest.fixture(scope="module")
def stand(app_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatStand]:
    chromium = chromium_or_skip()
    folder = tmp_path_factory.mktemp("browser")
    with standing(ChatStand, chromium, folder, app_bundle) as stand:
        vite = ViteServer(folder / "app", stand.server.url)
        try:
            stand.url = vite.url
            yield stand
        finally:
            vite.close()


@pytest.fixture
def people(stand: ChatStand, request: pytest.FixtureRequest) -> Iterator[tuple[str, Page, Page]]:
    """A channel and two people's pages of it, which know that it is empty; what the pages threw fails the test."""
    channel: str = request.node.name
    pages = [stand.open(who, channel) for who in ("Ada", "Grace")]
    for page in pages:
        page.until("document.querySelector('.history')?.dataset.status === 'Exhausted'")
    yield channel, *pages
    stand.close_pages()


def shows(*bodies: str) -> str:
    """The condition that the history is this, newest first, and all of it is the server's."""
    return f"JSON.stringify({HISTORY}) === JSON.stringify({list(bodies)!r}) && !{SENDING}"


def say(page: Page, body: str) -> None:
    page.type("form input", body)
    page.press_enter()


def test_what_one_types_the_other_sees(people: tuple[str, Page, Page]) -> None:
    _, ada, grace = people
    say(ada, "hello")
    grace.until(shows("hello"))
    say(grace, "hi Ada")
    for page in (ada, grace):
        page.until(shows("hi Ada", "hello"))
    authors = "[...document.querySelectorAll('.history b')].map((line) => line.textContent)"
    assert ada.evaluate(authors) == grace.evaluate(authors) == ["Grace", "Ada"]


def test_both_catch_up_after_the_server_was_killed(stand: ChatStand, people: tuple[str, Page, Page]) -> None:
    channel, ada, grace = people
    say(ada, "before")
    for page in (ada, grace):
        page.until(shows("before"))
    stand.kill()
    for page in (ada, grace):
        page.until(DISCONNECTED)

    # What is typed without a server is shown at once, to its author alone, and is sent once there is one.
    say(ada, "while away")
    assert ada.until(f"{SENDING} === 1 && {HISTORY}") == ["while away", "before"]
    assert grace.evaluate(HISTORY) == ["before"]
    stand.start()
    for page in (ada, grace):
        page.until(CONNECTED)
        page.until(shows("while away", "before"))
    say(grace, "after")
    for page in (ada, grace):
        page.until(shows("after", "while away", "before"))
    assert stand.said(channel) == ["after", "while away", "before"]


def test_what_the_server_dies_amid_is_said_once(stand: ChatStand, people: tuple[str, Page, Page]) -> None:
    channel, ada, grace = people
    said: list[str] = []
    for turn in range(3):
        for n in range(8):
            if n == 5:  # some are answered by now, some are stored and not answered, some are under way
                stand.kill()
            said.insert(0, f"{turn}.{n}")
            say(ada, said[0])
        assert ada.evaluate(HISTORY)[:3] == said[:3]
        stand.start()
        for page in (ada, grace):
            page.until(shows(*said))
    assert stand.said(channel) == said


def test_what_was_said_while_a_page_had_no_network(stand: ChatStand, people: tuple[str, Page, Page]) -> None:
    channel, ada, grace = people
    ada.go_offline()
    say(ada, "from afar")
    ada.until(f"{SENDING} === 1")
    say(grace, "one")
    stand.say(channel, "two")
    grace.until(shows("two", "one"))
    assert ada.evaluate(HISTORY) == ["from afar"]
    ada.go_online()
    for page in (ada, grace):
        page.until(shows("from afar", "two", "one"))


def test_history_comes_as_one_scrolls_back_and_stays_while_others_write(
    stand: ChatStand, people: tuple[str, Page, Page]
) -> None:
    channel, ada, _ = people
    old = [f"old {n}" for n in range(70)]
    stand.say(channel, *old)
    expected = [*reversed(old)]
    # The page that was open throughout holds what its first page has grown to; one that opens now, the newest.
    ada.until(f"{HISTORY}.length === 70")
    assert ada.evaluate(HISTORY) == expected
    grace = stand.open("Grace", channel)
    grace.until(f"{HISTORY}.length === {PAGE_MESSAGES} && !!document.querySelector('[data-status=CanLoadMore]')")
    assert grace.evaluate(HISTORY) == expected[:PAGE_MESSAGES]

    while grace.evaluate("document.querySelector('.history').dataset.status") != "Exhausted":
        shown = len(grace.evaluate(HISTORY))
        grace.evaluate("document.querySelector('.oldest').scrollIntoView()")
        grace.until(f"{HISTORY}.length > {shown}")
        grace.until("document.querySelector('.history').dataset.status !== 'LoadingMore'")
    assert grace.evaluate(HISTORY) == expected

    # Somebody who reads the past keeps her place while the newest lines come, with none lost or twice between pages.
    place = "document.querySelector('.oldest').getBoundingClientRect().top"
    grace.evaluate("document.querySelector('.oldest').scrollIntoView()")
    before = grace.evaluate(place)
    for n in range(25):
        say(ada, f"new {n}")
    new = [f"new {n}" for n in reversed(range(25))]
    for page in (ada, grace):
        page.until(shows(*new, *expected))
    assert abs(grace.evaluate(place) - before) < 2  # pixels, where 25 lines are some hundreds


def test_what_is_taken_down_and_put_up_again_shows_the_newest(stand: ChatStand, people: tuple[str, Page, Page]) -> None:
    channel, ada, grace = people
    stand.say(channel, "red fox", "blue fox")
    grace.until(shows("blue fox", "red fox"))
    grace.type("input[type=search]", "red")
    grace.until(f"JSON.stringify({BODIES % '.found'}) === '[\"red fox\"]'")
    say(ada, "red hen")
    grace.until(f"JSON.stringify({BODIES % '.found'}.sort()) === JSON.stringify(['red fox', 'red hen'])")
    grace.type("input[type=search]", "")
    grace.until(shows("red hen", "blue fox", "red fox"))
    say(grace, "bye")
    ada.until(shows("bye", "red hen", "blue fox", "red fox"))


def test_a_refused_message_is_taken_back(stand: ChatStand, people: tuple[str, Page, Page]) -> None:
    channel, ada, _ = people
    say(ada, "fits")
    ada.until(shows("fits"))
    # A document holds 1 MiB at most.
    ada.evaluate(
        """(() => {
          const field = document.querySelector('form input');
          Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, 'x'.repeat(1100000));
          field.dispatchEvent(new Event('input', { bubbles: true }));
          field.focus();
        })()"""
    )
    ada.press_enter()
    ada.until("document.querySelector('[role=alert]')?.textContent.length > 0")
    ada.until(shows("fits"))
    assert stand.said(channel) == ["fits"]
