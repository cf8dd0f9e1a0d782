"""Long messages over a real socket: read aside, in their order, and answered like short ones."""

from skerry.limits import JSON_WHOLE_BYTES_MAX
from tests.http.serving import RunningServer
from tests.http.sync_client import SyncClient


def test_long_arguments_are_read_and_answered_in_order(server: RunningServer) -> None:
    with SyncClient(server) as client:
        text = "x" * (8 * JSON_WHOLE_BYTES_MAX)
        live = client.watch("probe:echo", {"text": text})
        after = client.watch("probe:echo", {"n": 1})
        heard = {}
        while len(heard) < 2:
            for change in client.hear("Transition")["modifications"]:
                heard[change["queryId"]] = change["value"]
        assert heard == {live: {"text": text}, after: {"n": 1}}
        client.mutate(0, "messages:send", {"channel": "long", "author": "Ada", "body": text[:900_000]})
        client.mutate(1, "messages:send", {"channel": "long", "author": "Ada", "body": "short"})
        assert [client.answer()["requestId"] for _ in range(2)] == [0, 1]
    listed = server.call("query", "messages:list", {"channel": "long"})["value"]
    assert [len(message["body"]) for message in listed] == [5, 900_000]
