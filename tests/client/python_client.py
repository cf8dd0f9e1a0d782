"""What the PyPI client is asked to do: `python python_client.py PART`. SKERRY_URL and SKERRY_KEY say where."""

import asyncio
import math
import os
import sys
import threading

from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexHttpClient

URL = os.environ["SKERRY_URL"]


def queries(client: ConvexClient) -> None:
    assert client.query("probe:greet", {"user": {"name": "Ada"}}) == "hello Ada"
    sent = {"list": [1.5, [None, True]], "bytes": b"\0\1\xff", "int": ConvexInt64(-5), "text": "ü 🦭"}
    assert client.query("probe:echo", sent) == sent
    special = client.query("probe:special")
    assert special["int"] == ConvexInt64(9007199254740993) and math.isnan(special["nan"])
    assert client.action("probe:act", {"text": "x"}) == [{"text": "x"}, "slept"]


def failures(client: ConvexClient) -> None:
    for call, name in [
        (client.query, "probe:fail"),
        (client.query, "no:such"),
        (client.mutation, "messages:send"),
        (client.query, "probe:hidden"),
    ]:
        try:
            call(name, {})
        except ConvexError as error:
            raise AssertionError("not an error with data") from error
        except Exception as error:  # it has no class of its own for these
            assert "Server Error" in str(error) or "ArgumentValidationError" in str(error), str(error)
        else:
            raise AssertionError(name)
    for call, name in [(client.query, "probe:refuse"), (client.action, "probe:actAndFail")]:
        try:
            call(name)
        except ConvexError as error:
            assert error.data == {"count": ConvexInt64(5), "reason": "no"}, error.data
        else:
            raise AssertionError(name)


def subscribes(client: ConvexClient) -> None:
    live = iter(client.subscribe("messages:list", {"channel": "python"}))
    assert next(live) == []
    other = ConvexClient(URL)
    for n in range(3):
        (client, other)[n % 2].mutation("messages:send", {"channel": "python", "author": "Ada", "body": str(n)})
        assert [message["body"] for message in next(live)] == [str(m) for m in range(n, -1, -1)]
    failing = iter(client.subscribe("probe:refuse"))
    try:
        next(failing)
    except ConvexError as error:
        assert error.data["reason"] == "no"
    else:
        raise AssertionError("a live query that fails says so")


def orders(client: ConvexClient) -> None:
    threads = [
        threading.Thread(
            target=client.mutation, args=("messages:send", {"channel": "threads", "author": "Ada", "body": str(n)})
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = client.query("messages:list", {"channel": "threads"})
    assert sorted(message["body"] for message in found) == [str(n) for n in range(8)]


def reconnects(client: ConvexClient) -> None:
    clients = [ConvexClient(URL) for _ in range(20)]
    assert [each.query("probe:echo", {"n": float(n)}) for n, each in enumerate(clients)] == [
        {"n": float(n)} for n in range(20)
    ]
    del clients
    assert client.query("probe:default") == "the default export"


def admin(client: ConvexClient) -> None:
    client.set_admin_auth(os.environ["SKERRY_KEY"])
    assert client.query("probe:hidden") == "seen by admins"
    client.clear_auth()
    try:
        client.query("probe:hidden")
    except Exception as error:  # it has no class of its own for these
        assert "Could not find public function" in str(error), str(error)
        return
    raise AssertionError("nobody's key opens internal functions")


def watches_all(client: ConvexClient) -> None:
    """All watched queries, of one moment each time. What was told before `watch_all` was called is not told again."""
    everything = iter(client.watch_all())
    lists = [client.subscribe("messages:list", {"channel": channel}) for channel in ("all", "other")]
    found = next(everything)
    while len(found) < 2:
        found = next(everything)
    other = ConvexClient(URL)
    for n in range(1, 4):
        other.mutation("messages:send", {"channel": "all", "author": "Ada", "body": str(n)})
        found = next(everything)
        assert [len(found[live.id]["value"]) for live in lists] == [n, 0], found
    lists.pop().unsubscribe()
    other.mutation("messages:send", {"channel": "all", "author": "Ada", "body": "last"})
    while len(found[lists[0].id]["value"]) < 4:
        found = next(everything)


def awaits(client: ConvexClient) -> None:
    """In an event loop: changes are awaited, and calls are made on threads by the client that leaves the loop free."""
    calls = ConvexHttpClient(URL)

    async def main() -> None:
        seen: list[list[str]] = []

        async def watch() -> None:
            async for messages in client.subscribe("messages:list", {"channel": "loop"}):
                seen.append([message["body"] for message in messages])
                arrived.set()

        arrived = asyncio.Event()
        watching = asyncio.create_task(watch())
        for n in range(4):
            await arrived.wait()
            arrived.clear()
            assert seen[-1] == [str(m) for m in reversed(range(n))]
            await asyncio.to_thread(
                calls.mutation, "messages:send", {"channel": "loop", "author": "Ada", "body": str(n)}
            )
        watching.cancel()

    asyncio.run(main())
    assert calls.action("probe:act", {"text": "x"}) == [{"text": "x"}, "slept"]
    sent = {"int": ConvexInt64(7), "bytes": b"\0"}
    assert calls.query("probe:echo", sent) == sent
    try:
        calls.query("probe:refuse")
    except ConvexError as error:
        assert error.data["reason"] == "no", error.data
    else:
        raise AssertionError("the data of an error comes over HTTP too")


def outlives(client: ConvexClient) -> None:
    """Says how many messages there are each time that it hears of them, until its input ends."""

    async def main() -> None:
        async for messages in client.subscribe("messages:list", {"channel": "outlives"}):
            sys.stdout.write(f"{len(messages)}\n")
            sys.stdout.flush()

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    globals()[sys.argv[1]](ConvexClient(URL))
    sys.stdout.write(f"{sys.argv[1]} passed\n")
    sys.stdout.flush()
    os._exit(0)  # the client's own threads do not end by themselves
