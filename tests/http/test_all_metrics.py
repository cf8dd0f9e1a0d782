"""Pages of metrics become one: each family once, each sample with its worker."""

import asyncio

import pytest

from skerry.http import all_metrics
from skerry.http.all_metrics import Peers, labelled, merged
from skerry.limits import METRICS_PAGE_BYTES_MAX, METRICS_PEER_SECONDS_MAX
from skerry.supervisor.channel import channel_pair
from skerry.supervisor.handover import receive_handover

PAGE = b'# HELP a_total What a is.\n# TYPE a_total counter\na_total %d\n# HELP b B.\n# TYPE b gauge\nb{x="1 {"} 2.0\n'


def test_each_family_is_there_once_and_each_sample_has_its_worker() -> None:
    text = merged({1: PAGE % 7, 0: PAGE % 5, 2: None}).decode()
    assert text.splitlines() == [
        "# HELP skerry_worker_up Whether a worker showed what it counts.",
        "# TYPE skerry_worker_up gauge",
        'skerry_worker_up{worker="0"} 1',
        'skerry_worker_up{worker="1"} 1',
        'skerry_worker_up{worker="2"} 0',
        "# HELP a_total What a is.",
        "# TYPE a_total counter",
        'a_total{worker="0"} 5',
        'a_total{worker="1"} 7',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{worker="0",x="1 {"} 2.0',
        'b{worker="1",x="1 {"} 2.0',
    ]
    assert labelled("a 1", 3) == 'a{worker="3"} 1'


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nall of it", b"all of it"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\nno", None),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (METRICS_PAGE_BYTES_MAX - 19), b"x" * (METRICS_PAGE_BYTES_MAX - 19)),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (METRICS_PAGE_BYTES_MAX - 18), None),
        (b"", None),
    ],
)
def test_what_another_worker_answers_is_its_page(answer: bytes, page: bytes | None) -> None:
    ours, theirs = channel_pair()

    async def ask() -> dict[int, bytes | None]:
        peers = Peers(0, [theirs, theirs], "secret")
        asking = asyncio.ensure_future(peers.pages(b"own"))
        while (arrived := receive_handover(ours)) is None:  # noqa: ASYNC110 - the socket is there at once
            await asyncio.sleep(0)
        assert arrived.received.startswith(b"GET /metrics/worker ") and b"Bearer secret\r\n" in arrived.received
        with arrived.connection as connection:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(connection, answer)
        return await asking

    assert asyncio.run(ask()) == {0: b"own", 1: page}
    ours.close()
    theirs.close()


def test_a_worker_whose_door_is_gone_is_left_out() -> None:
    ours, theirs = channel_pair()
    ours.close()
    peers = Peers(0, [theirs, theirs], "secret")
    assert asyncio.run(peers.pages(b"own")) == {0: b"own", 1: None}
    theirs.close()


def test_a_worker_that_does_not_answer_in_time_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_metrics, "METRICS_PEER_SECONDS_MAX", METRICS_PEER_SECONDS_MAX / 1_000)
    ours, theirs = channel_pair()
    assert asyncio.run(Peers(0, [theirs, theirs], "secret").pages(b"own")) == {0: b"own", 1: None}
    ours.close()
    theirs.close()
