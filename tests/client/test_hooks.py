"""The hooks of the unmodified `convex/react`, in a real browser against a real server.

The page (app/page.tsx) shows the JSON of what a hook gives and keeps each state that was on the screen. Each test has a
list of its own.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from skerry.bundle.node import find_node, install_packages, node_environment, tool_packages
from tests.client.browser import Page, chromium_or_skip
from tests.client.stand import Stand, standing
from tests.client.vite import CHAT
from tests.http.apps import build

APP = Path(__file__).parent / "app"
STATE = "JSON.parse(document.querySelector('#state')?.textContent ?? 'null')"
BUNDLE_SECONDS_MAX = 60
PAGE_ROWS = 4

Opener = Callable[..., Page]


def bundle_page(folder: Path) -> Path:
    """The page with React as it is in development, as one script: its address is the file's own."""
    node, tools = tool_packages(lambda _: None)
    packages = install_packages(find_node(lambda _: None), CHAT, "chat")
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="development"', "--log-level=warning"]
    done = subprocess.run(
        [
            node.executable,
            tools / "node_modules/esbuild/bin/esbuild",
            APP / "page.tsx",
            *options,
            f"--outfile={folder / 'page.js'}",
        ],
        env={**node_environment(), "NODE_PATH": str(packages / "node_modules")},
        capture_output=True,
        text=True,
        timeout=BUNDLE_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    (folder / "page.html").write_bytes((APP / "page.html").read_bytes())
    return folder / "page.html"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    chromium = chromium_or_skip()
    folder = tmp_path_factory.mktemp("hooks")
    with standing(Stand, chromium, folder, build(APP, folder / "app.skerry")) as stand:
        yield stand


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bundle_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The test's own list."""
    return request.node.name


@pytest.fixture
def opened(stand: Stand, address: str, name: str) -> Iterator[Opener]:
    def open_scene(scene: str, **asked: object) -> Page:
        query = urlencode({"server": stand.server.url, "scene": scene, "list": name, **asked})
        return stand.open_page(f"{address}?{query}")

    yield open_scene
    stand.close_pages()


def shows(page: Page, state: Any) -> None:
    """Waits until the page shows just this."""
    text = json.dumps(state, separators=(",", ":"), sort_keys=True)
    page.until(f"document.querySelector('#state')?.textContent === {json.dumps(text)}")


def shown(page: Page) -> list[Any]:
    """Every state that was on the screen, in order."""
    return page.evaluate("shown")


def does(page: Page, hand: str, *args: Any) -> Any:
    """What one of the page's functions gives, awaited; a failure gives its message and data."""
    call = f"Promise.resolve(hands.{hand}(...{json.dumps(args)}))"
    return page.evaluate(f"{call}.catch((error) => ({{ message: error.message, data: error.data }}))")


def test_a_mutation_has_arrived_when_it_resolves(opened: Opener) -> None:
    page, other = opened("list"), opened("list")
    for each in (page, other):
        shows(each, [])
    assert page.evaluate("hands.add(3, 1).then((count) => [count, hands.known()])") == [2, [1, 3]]
    shows(other, [1, 3])
    assert does(page, "addAndLook", 2) == [1, 2, 3]
    for each in (page, other):
        shows(each, [1, 2, 3])
        assert shown(each) == [None, [], [1, 3], [1, 2, 3]]
    assert does(page, "addAndLook", -1)["data"] == {"negative": -1}
    # One-shot queries, on the page's socket and over HTTP from another origin.
    assert does(page, "once") == does(page, "overHttp") == [1, 2, 3]


def test_all_queries_of_a_page_move_together(stand: Stand, opened: Opener, name: str) -> None:
    pages = [opened("sums"), opened("sums")]
    for page in pages:
        shows(page, {"left": 0, "right": 0, "odd": 0})
        does(page, "unskip")
        shows(page, {"left": 0, "right": 0, "also": 0, "odd": 0})
    for n in range(1, 21):
        stand.server.call("mutation", "rows:move", {"list": name, "from": "left", "to": "right", "amount": n})
    stand.server.call("mutation", "rows:add", {"list": name, "ns": [1]})
    for page in pages:
        shows(page, {"left": -210, "right": 210, "also": -210, "odd": {"odd": 1}})
        states = [state for state in shown(page) if state and "also" in state]
        assert all(state["left"] + state["right"] == 0 and state["also"] == state["left"] for state in states), states
        assert [state["left"] for state in states] == sorted((state["left"] for state in states), reverse=True)


def test_a_query_that_fails_is_caught_and_comes_back(stand: Stand, opened: Opener, name: str) -> None:
    page = opened("pairs")
    shows(page, 0)
    stand.server.call("mutation", "rows:add", {"list": name, "ns": [1]})
    shows(page, {"caught": {"odd": 1}})
    stand.server.call("mutation", "rows:add", {"list": name, "ns": [2]})
    does(page, "again")
    shows(page, 1)


def test_optimistic_updates_neither_flicker_nor_stay(opened: Opener) -> None:
    page, other = opened("list"), opened("list")
    for each in (page, other):
        shows(each, [])
    page.go_offline()
    for n in (2, 1):
        page.evaluate(f"void hands.addSoon({n})")
    shows(page, [1, 2])
    assert page.evaluate("connection.hasInflightRequests")
    assert shown(other) == [None, []]
    page.go_online()
    shows(other, [1, 2])
    page.evaluate("hands.addSoon(3)")
    shows(page, [1, 2, 3])
    assert shown(page) == [None, [], [2], [1, 2], [1, 2, 3]]
    assert does(page, "refuseSoon", 4)["data"] == {"refused": [4]}
    shows(page, [1, 2, 3])
    assert shown(page)[-2:] == [[1, 2, 3, 4], [1, 2, 3]]


def test_pages_while_rows_come_and_go_in_their_middle(stand: Stand, opened: Opener, name: str) -> None:
    rows = [float(n * 10) for n in range(11)]
    stand.server.call("mutation", "rows:add", {"list": name, "ns": rows})
    reader, late = opened("pages", size=PAGE_ROWS), None
    loaded = PAGE_ROWS
    shows(reader, {"status": "CanLoadMore", "ns": [int(n) for n in rows[:loaded]]})

    def change(kind: str, *ns: float) -> None:
        answer = stand.server.call("mutation", f"rows:{kind}", {"list": name, "ns": ns})
        assert answer["status"] == "success", answer

    def everything() -> list[int]:
        return [int(n) for n in stand.server.call("query", "rows:all", {"list": name})["value"]]

    # Within the first page, at both of its ends, and behind it, where it is not seen.
    change("add", 15, 31)
    change("remove", 30)
    change("add", -5, 29, 45)
    shows(reader, {"status": "CanLoadMore", "ns": [-5, 0, 10, 15, 20, 29]})
    does(reader, "more")
    shows(reader, {"status": "CanLoadMore", "ns": [-5, 0, 10, 15, 20, 29, 31, 40, 45, 50]})
    change("remove", 10, 15, 31, 40, 50)
    change("add", 41, 42, 43, 12)
    shows(reader, {"status": "CanLoadMore", "ns": [-5, 0, 12, 20, 29, 41, 42, 43, 45]})
    late = opened("pages", size=PAGE_ROWS)
    for _ in range(3):
        does(reader, "more")
        reader.until(f"{STATE}.status !== 'LoadingMore'")
    shows(reader, {"status": "Exhausted", "ns": everything()})
    # What is appended now belongs to the last page; the pages between may become empty.
    change("add", 200, 201, 202, 203, 204, 205)
    change("remove", 60, 70, 80, 90)
    shows(reader, {"status": "Exhausted", "ns": everything()})
    shows(late, {"status": "CanLoadMore", "ns": everything()[:PAGE_ROWS]})
    for state in shown(reader):
        ns = state["ns"]
        assert ns == sorted(set(ns)), f"a row twice or out of place: {ns}"


def test_pages_that_grow_too_large_are_split(stand: Stand, opened: Opener, name: str) -> None:
    def add(*ns: int) -> None:
        answer = stand.server.call("mutation", "rows:add", {"list": name, "ns": ns})
        assert answer["status"] == "success", answer

    add(0, 100, 200, 300)
    page = opened("pages", size=3, capped=1)
    shows(page, {"status": "CanLoadMore", "ns": [0, 100, 200]})
    for n in range(1, 30):
        add(n, 100 + n)
    expected = sorted([*range(30), *range(100, 130), 200])
    shows(page, {"status": "CanLoadMore", "ns": expected})
    does(page, "more")
    shows(page, {"status": "Exhausted", "ns": [*expected, 300]})
    for state in shown(page):
        assert state["ns"] == sorted(set(state["ns"])), state
    # Asked for more than a page may read, the first look gives what it may, and the rest follows from there.
    whole = opened("pages", size=len(expected), capped=1)
    shows(whole, {"status": "CanLoadMore", "ns": expected[:8]})
    while whole.evaluate(f"{STATE}.status") != "Exhausted":
        does(whole, "more")
        whole.until(f"{STATE}.status !== 'LoadingMore'")
    shows(whole, {"status": "Exhausted", "ns": [*expected, 300]})


def test_a_page_whose_server_is_killed_amid_calls(stand: Stand, opened: Opener) -> None:
    page, reader = opened("list"), opened("pages", size=2)
    shows(page, [])
    shows(reader, {"status": "Exhausted", "ns": []})
    assert does(page, "add", 1, 2, 3, 4, 5) == 5
    shows(reader, {"status": "Exhausted", "ns": [1, 2, 3, 4, 5]})
    page.evaluate("void (globalThis.staying = hands.addAndStay(6).catch((error) => error.message))")
    shows(page, [1, 2, 3, 4, 5, 6])
    stand.kill()
    page.until("!connection.isWebSocketConnected")
    # Sent while there is no server: it runs when there is one, and once.
    page.evaluate("void (globalThis.adding = hands.add(7))")
    stand.start()
    assert "Connection lost while action was in flight" in page.evaluate("staying")
    assert page.evaluate("adding") == 7
    shows(page, [1, 2, 3, 4, 5, 6, 7])
    shows(reader, {"status": "Exhausted", "ns": [1, 2, 3, 4, 5, 6, 7]})
    assert page.evaluate("[connection.isWebSocketConnected, connection.hasEverConnected]") == [True, True]
    assert page.evaluate("connection.connectionCount") >= 2


def test_what_next_preloads_is_shown_at_once_and_lives(stand: Stand, opened: Opener, name: str) -> None:
    stand.server.call("mutation", "rows:add", {"list": name, "ns": [1]})
    script = f"""
      import {{ fetchMutation, preloadQuery }} from "convex/nextjs";
      import {{ anyApi }} from "convex/server";
      const preloaded = await preloadQuery(anyApi.rows.all, {{ list: {json.dumps(name)} }});
      await fetchMutation(anyApi.rows.add, {{ list: {json.dumps(name)}, ns: [2] }});
      console.log(JSON.stringify(preloaded));
    """
    node, packages = tool_packages(lambda _: None)
    done = subprocess.run(
        [node.executable, "--input-type=module", "-e", script],
        cwd=packages,
        env={**os.environ, "NEXT_PUBLIC_CONVEX_URL": stand.server.url},
        capture_output=True,
        text=True,
        timeout=BUNDLE_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    page = opened("preloaded", preloaded=done.stdout.strip())
    shows(page, [1, 2])
    stand.server.call("mutation", "rows:add", {"list": name, "ns": [3]})
    shows(page, [1, 2, 3])
    assert shown(page) == [[1], [1, 2], [1, 2, 3]]
