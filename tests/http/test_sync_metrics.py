"""What `/metrics` says of live queries: many clients of one query cost one run for each commit that touches it."""

from contextlib import ExitStack

from tests.http.serving import RunningServer
from tests.http.sync_client import SyncClient

CLIENTS = 5
COMMITS = 3


def test_a_query_that_many_watch_runs_once_for_each_commit(server: RunningServer) -> None:
    def metric(name: str) -> float:
        return server.metric(f"skerry_{name}")

    while metric("sync_connections"):  # those of other tests are being closed
        pass
    before = {name: metric(name) for name in ("sync_connections", "live_queries", "live_query_runs_total")}
    channel = {"channel": "counted"}
    with ExitStack() as opened:
        clients = [opened.enter_context(SyncClient(server)) for _ in range(CLIENTS)]
        live = [client.watch("messages:list", channel) for client in clients]
        for client, query_id in zip(clients, live, strict=True):
            assert client.hear_of(query_id)["value"] == []
        for number in range(COMMITS):
            clients[0].mutate(number, "messages:send", {**channel, "author": "Ada", "body": "x"})
            for client, query_id in zip(clients, live, strict=True):
                assert len(client.hear_of(query_id)["value"]) == number + 1
        after = {name: metric(name) - before[name] for name in before}
        assert after == {"sync_connections": CLIENTS, "live_queries": 1, "live_query_runs_total": 1 + COMMITS}
