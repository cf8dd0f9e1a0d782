"""A slow live query that every commit touches: its client gets on, and sees the state of one moment each time."""

from threading import Event, Thread

from tests.http.serving import RunningServer
from tests.http.sync_client import SyncClient

CHANNEL = {"channel": "overtaken"}
ROUNDS = 2_000_000
CHANGES = 5


def test_a_slow_query_that_every_commit_touches_shows_beside_a_quick_one(server: RunningServer) -> None:
    is_enough = Event()
    message = {**CHANNEL, "author": "Ada", "body": "more"}

    def write() -> None:
        while not is_enough.is_set():
            assert server.call("mutation", "messages:send", message)["status"] == "success"

    writer = Thread(target=write)
    shown: dict[int, int] = {}
    changes: list[int] = []
    with SyncClient(server) as client:
        slow = client.watch("probe:busyCount", {**CHANNEL, "rounds": ROUNDS})
        quick = client.watch("probe:busyCount", {**CHANNEL, "rounds": 0})
        writer.start()
        try:
            while len(changes) < CHANGES:
                for change in client.hear("Transition")["modifications"]:
                    value = change["value"]
                    shown[change["queryId"]] = value
                    if change["queryId"] == slow:
                        changes.append(value)
                if slow in shown and quick in shown:
                    assert shown[slow] == shown[quick], "both are of one moment"
        finally:
            is_enough.set()
            writer.join()
    assert changes == sorted(changes)
