"""What the PyPI client is asked to do: `python python_client.py PART`. SKERRY_URL and SKERRY_KEY say where."""

import math
import os
import sys
import threading

from convex import ConvexClient, ConvexError, ConvexInt64

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


if __name__ == "__main__":
    globals()[sys.argv[1]](ConvexClient(URL))
    sys.stdout.write(f"{sys.argv[1]} passed\n")
    sys.stdout.flush()
    os._exit(0)  # the client's own threads do not end by themselves
