"""Connections: kept for a while, never shared, bounded, and gone when their owner is closed."""

import asyncio
import random
import threading

import pytest

from skerry import limits
from skerry.egress import Egress, EgressBounds, EgressPolicy, FetchRequest, LookupThreads
from skerry.egress.resolver import system_lookup
from skerry.errors import DeveloperError
from tests.egress.world import (
    LOOPS,
    NAMES,
    OUTSIDE,
    Seen,
    code_of,
    egress,
    fault_of,
    get,
    names,
    outside_policy,
    raw,
    read_all,
    reply,
    run,
    serving,
    until,
)


async def _never(_: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


HALF = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_is_used_again(loop: str) -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            for _ in range(5):
                await get(way, f"http://a.test:{server.port}/")
            assert server.connections == 1
            await get(way, f"http://b.test:{server.port}/")
            assert server.connections == 2  # another name, though the same address

    run(work(), loop)


def test_connections_are_not_shared_between_deployments() -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as one, egress(server.port) as other:
            for way in (one, other, one, other):
                await get(way, f"http://a.test:{server.port}/")
            peers = [seen.peer for seen in server.seen]
            assert peers[0] == peers[2] != peers[1] == peers[3]
            assert server.connections == 2

    run(work())


def test_a_connection_whose_check_is_old_is_not_used_again() -> None:
    async def work() -> None:
        asked = 0

        async def resolve(host: str, port: int) -> list[str]:
            nonlocal asked
            asked += 1
            return [OUTSIDE]

        async with serving(reply()) as server:
            for seconds, connections in ((limits.EGRESS_CHECK_SECONDS_MAX, 1), (0, 2)):
                bounds = EgressBounds(check_seconds=seconds)
                server.connections = asked = 0
                async with egress(server.port, resolve=resolve, bounds=bounds) as way:
                    await get(way, f"http://a.test:{server.port}/")
                    await get(way, f"http://a.test:{server.port}/")
                    assert (server.connections, asked) == (connections, connections)
        assert limits.EGRESS_IDLE_SECONDS_MAX < limits.EGRESS_CHECK_SECONDS_MAX == EgressBounds().check_seconds

    run(work())


@pytest.mark.parametrize("head", ["Connection: close\r\n", ""])
def test_connections_that_cannot_be_used_again_are_not(head: str) -> None:
    async def work() -> None:
        async with serving(reply(b"hello", head)) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            if head:
                await get(way, url)
            else:
                server.answer = HALF
                (await way.fetch(FetchRequest("GET", url))).close()
                server.answer = reply()
            await get(way, url)
            assert server.connections == 2

    run(work())


EXTRA = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"junk", b"HTTP/1.1 200 OK\r\nX: "]


@pytest.mark.parametrize("extra", EXTRA)
def test_what_comes_with_a_response_is_nobodys(extra: bytes) -> None:
    """A server that says more than it was asked cannot answer the next request in advance."""

    async def work() -> None:
        first = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        async with serving(raw(first + extra)) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            try:
                assert (await get(way, url))[1] == b"hello"
            except DeveloperError as error:
                assert error.code == "EgressFailed"
            server.answer = reply(b"good")
            assert (await get(way, url))[1] == b"good"

    run(work())


@pytest.mark.parametrize("extra", EXTRA)
def test_what_comes_with_the_end_of_a_body_is_nobodys(extra: bytes) -> None:
    """The connection is given back while the parser still has bytes in hand."""

    async def work() -> None:
        is_head_read = asyncio.Event()

        async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await is_head_read.wait()
            writer.write(b"lo" + extra)

        async with serving(answer) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            response = await way.fetch(FetchRequest("GET", url))
            is_head_read.set()
            try:
                assert await read_all(response) == b"hello"
            except DeveloperError as error:
                assert error.code == "EgressFailed"
            server.answer = reply(b"good")
            assert (await get(way, url))[1] == b"good"

    run(work())


@pytest.mark.parametrize("extra", EXTRA)
def test_what_comes_while_nothing_is_asked_drops_the_connection(extra: bytes) -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            await get(way, url)
            assert way.sockets == 1
            server.writers[0].write(extra)
            await until(lambda: not way.sockets)
            server.answer = reply(b"good")
            assert (await get(way, url))[1] == b"good"
            assert server.connections == 2

    run(work())


# -- how many ----------------------------------------------------------------------------------------------------


def test_fetches_beyond_the_bound_wait_for_their_turn() -> None:
    async def work() -> None:
        bounds = EgressBounds(connections=2, fetches_waiting=1)
        async with serving(HALF) as server, egress(server.port, bounds=bounds) as way:
            request = FetchRequest("GET", f"http://a.test:{server.port}/")
            one, two = await way.fetch(request), await way.fetch(request)
            three = asyncio.ensure_future(way.fetch(request))
            await asyncio.sleep(0)
            assert await code_of(way.fetch(request)) == "EgressBusy"
            assert not three.done()
            one.close()
            (await three).close()
            two.close()
            four, five = await way.fetch(request), await way.fetch(request)
            four.close()
            five.close()
        defaults = EgressBounds()
        assert defaults.connections == limits.EGRESS_CONNECTIONS_MAX
        assert defaults.fetches_waiting == limits.EGRESS_FETCHES_WAITING_MAX
        assert defaults.wait_seconds == limits.EGRESS_WAIT_SECONDS_MAX

    run(work())


def test_a_turn_that_does_not_come_in_time() -> None:
    async def work() -> None:
        bounds = EgressBounds(connections=1, wait_seconds=0.05)
        async with serving(HALF) as server, egress(server.port, bounds=bounds) as way:
            request = FetchRequest("GET", f"http://a.test:{server.port}/")
            first = await way.fetch(request)
            assert await code_of(way.fetch(request)) == "EgressBusy"
            first.close()
            (await way.fetch(request)).close()

    run(work())


def test_a_cancelled_waiter_gives_its_turn_on() -> None:
    async def work() -> None:
        bounds = EgressBounds(connections=1)
        async with serving(HALF) as server, egress(server.port, bounds=bounds) as way:
            request = FetchRequest("GET", f"http://a.test:{server.port}/")
            first = await way.fetch(request)
            waiters = [asyncio.ensure_future(way.fetch(request)) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[0].cancel()
            first.close()
            waiters[1].cancel()  # its turn came in this very moment
            (await waiters[2]).close()
            ends = await asyncio.gather(*waiters[:2], return_exceptions=True)
            assert [type(end) for end in ends] == [asyncio.CancelledError] * 2

    run(work())


def test_idle_connections_count_too() -> None:
    async def work() -> None:
        bounds = EgressBounds(connections=3)
        hosts = [f"h{number}.test" for number in range(10)]
        resolve = names({host: [OUTSIDE] for host in hosts})
        async with serving(reply()) as server, egress(server.port, resolve=resolve, bounds=bounds) as way:
            for host in hosts:
                await get(way, f"http://{host}:{server.port}/")
                assert way.sockets <= 3
            assert way.sockets == 3

    run(work())


def test_small_responses_need_no_place() -> None:
    """A body that came with its head is held in memory; one byte more keeps the connection until it is read."""

    async def work() -> None:
        bounds = EgressBounds(connections=1, wait_seconds=0.05)
        size = limits.EGRESS_SMALL_BODY_BYTES
        async with serving(reply(b"x" * size)) as server, egress(server.port, bounds=bounds) as way:
            request = FetchRequest("GET", f"http://a.test:{server.port}/")
            unread = [await way.fetch(request) for _ in range(3)]
            assert [await read_all(each, 1000) for each in unread] == [b"x" * size] * 3
            server.answer = reply(b"x" * (size + 1))
            first = await way.fetch(request)
            assert await code_of(way.fetch(request)) == "EgressBusy"
            assert await read_all(first) == b"x" * (size + 1)
            await way.fetch(request)

    run(work())


# -- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_closing_ends_everything(loop: str) -> None:
    async def work() -> None:
        looking_up = asyncio.Event()

        async def resolve(host: str, port: int) -> list[str]:
            if host == "slow.test":
                looking_up.set()
                await asyncio.Event().wait()
            return [OUTSIDE]

        async with serving(HALF) as server, serving(_never, heads_only=True) as mute:
            way = egress(server.port, mute.port, resolve=resolve, bounds=EgressBounds(connections=5))
            base = f"http://a.test:{server.port}/"
            opened = await way.fetch(FetchRequest("GET", base))
            reading = await way.fetch(FetchRequest("GET", base))
            assert await reading.read(10) == b"abc"
            read = asyncio.ensure_future(reading.read(10))
            waits = [
                asyncio.ensure_future(way.fetch(request))
                for request in (
                    FetchRequest("GET", f"http://slow.test:{server.port}/"),
                    FetchRequest("GET", f"http://a.test:{mute.port}/"),
                    FetchRequest("POST", f"http://a.test:{mute.port}/", body=b"x" * (16 * limits.MIB)),
                    FetchRequest("GET", base),  # waits for a place
                )
            ]
            await looking_up.wait()
            await until(lambda: len(mute.seen) == 2)
            await way.close()
            await way.close()
            assert way.sockets == 0
            assert {await code_of(each) for each in (*waits, read)} == {"EgressFailed"}
            assert await code_of(opened.read(1)) == "EgressFailed"
            assert await code_of(way.fetch(FetchRequest("GET", base))) == "EgressFailed"

    run(work(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelling_a_fetch_leaves_nothing(loop: str) -> None:
    async def work() -> None:
        async with serving(_never) as server, egress(server.port, bounds=EgressBounds(connections=1)) as way:
            fetching = asyncio.ensure_future(way.fetch(FetchRequest("GET", f"http://a.test:{server.port}/")))
            await until(lambda: server.seen)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            server.answer = reply()
            assert (await get(way, f"http://a.test:{server.port}/"))[1] == b"hello"

    run(work(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(3))
def test_no_place_is_lost_whatever_becomes_of_fetches(loop: str, seed: int) -> None:
    chance = random.Random(seed)

    async def one(way: Egress, url: str) -> None:
        request = FetchRequest("POST", url, body=b"x" * chance.choice((0, 10, 200_000)))
        fetching = asyncio.ensure_future(way.fetch(request))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            fetching.cancel()
        try:
            response = await fetching
            if chance.random() < 0.5:
                await read_all(response)
            response.close()
        except DeveloperError as error:
            assert error.code in ("EgressFailed", "EgressTimedOut", "EgressTooLarge")
        except asyncio.CancelledError:
            assert fetching.cancelled()

    async def work() -> None:
        answers = [
            reply(),
            HALF,
            reply(b"x" * 100_000),
            raw(b"", hang_up=True),
            raw(b"junk\r\n\r\n"),
            reply(b"y" * 20_000),
        ]

        async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await chance.choice(answers)(seen, writer)

        bounds = EgressBounds(connections=5, silence_seconds=0.2, response_bytes=50_000, answer_seconds=5)
        async with serving(answer) as server, egress(server.port, bounds=bounds) as way:
            url = f"http://a.test:{server.port}/"
            await asyncio.gather(*(one(way, url) for _ in range(80)))
            assert way.sockets <= 5
            server.answer = HALF
            opened = [await way.fetch(FetchRequest("GET", url)) for _ in range(5)]
            sixth = asyncio.ensure_future(way.fetch(FetchRequest("GET", url)))
            await asyncio.sleep(0)
            assert not sixth.done()
            for response in opened:
                response.close()
            (await sixth).close()

    run(work(), loop)


def test_closing_a_response_while_it_is_read() -> None:
    async def work() -> None:
        async with serving(HALF) as server, egress(server.port) as way:
            response = await way.fetch(FetchRequest("GET", f"http://a.test:{server.port}/"))
            assert await response.read(3) == b"abc"
            reading = asyncio.ensure_future(response.read(3))
            await asyncio.sleep(0)
            assert await code_of(response.read(3)) == "EgressInvalidRequest"  # one reader at a time
            response.close()
            response.close()
            assert await code_of(reading) == "EgressFailed"
            assert await code_of(response.read(3)) == "EgressFailed"

    run(work())


# -- connecting and looking up -----------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    async def work() -> None:
        async with serving(reply()) as server:
            port = server.port
        async with egress(port) as way:
            fault = await fault_of(get(way, f"http://a.test:{port}/"))
            assert (fault.code, OUTSIDE in fault.message) == ("EgressFailed", False)

    run(work())


def test_a_name_that_nobody_knows_and_a_lookup_that_takes_too_long() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        async with egress() as way:
            assert await code_of(get(way, "http://gone.test/")) == "EgressFailed"
        async with egress(resolve=resolve, bounds=EgressBounds(lookup_seconds=0.05)) as way:
            assert await code_of(get(way, "http://a.test/")) == "EgressTimedOut"
        defaults = EgressBounds()
        assert defaults.lookup_seconds == limits.EGRESS_LOOKUP_SECONDS_MAX
        assert defaults.connect_seconds == limits.EGRESS_CONNECT_SECONDS_MAX
        assert defaults.answer_seconds == limits.EGRESS_ANSWER_SECONDS_MAX
        assert defaults.silence_seconds == limits.EGRESS_SILENCE_SECONDS_MAX
        assert defaults.total_seconds == limits.EGRESS_TOTAL_SECONDS_MAX

    run(work())


def test_ports_that_are_not_listed_are_refused_before_any_lookup() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return [OUTSIDE]

    async def work() -> None:
        async with Egress(EgressPolicy(), resolve) as way:
            for port in (22, 25, 3306, 6379, 81):
                assert await code_of(get(way, f"http://a.test:{port}/")) == "EgressRefused"
            assert not asked

    run(work())


def test_one_deployments_lookups_leave_threads_to_the_others() -> None:
    release = threading.Event()
    begun: list[str] = []

    def lookup(host: str, port: int) -> list[str]:
        begun.append(host)
        if host == "slow.test":
            release.wait()
        return [OUTSIDE]

    async def work() -> None:
        threads = LookupThreads(lookup)
        async with serving(reply()) as server:
            policy = outside_policy(server.port, bounds=EgressBounds(lookup_seconds=0.05))
            async with Egress(policy, threads.resolver()) as greedy, Egress(policy, threads.resolver()) as other:
                slow = [get(greedy, f"http://slow.test:{server.port}/") for _ in range(2 * limits.EGRESS_LOOKUPS_MAX)]
                codes = [await asyncio.gather(*(code_of(each) for each in slow))]
                assert codes == [["EgressTimedOut"] * len(slow)]
                assert begun == ["slow.test"] * limits.EGRESS_LOOKUPS_MAX
                assert (await get(other, f"http://a.test:{server.port}/"))[1] == b"hello"
                release.set()
                assert (await get(greedy, f"http://a.test:{server.port}/"))[1] == b"hello"
        threads.close()
        assert await code_of(Egress.fetch(greedy, FetchRequest("GET", "http://a.test/"))) == "EgressFailed"

    run(work())


def test_lookups_after_the_threads_have_ended_fail() -> None:
    async def work() -> None:
        threads = LookupThreads()
        threads.close()
        async with Egress(EgressPolicy(), threads.resolver()) as way:
            assert await code_of(get(way, "http://a.test/")) == "EgressFailed"

    run(work())


def test_the_systems_resolver_reads_odd_spellings_and_is_checked() -> None:
    assert system_lookup("0x7f.1", 80) == ["127.0.0.1"]

    async def work() -> None:
        threads = LookupThreads()
        async with Egress(EgressPolicy(), threads.resolver()) as way:
            for text in ("0x7f.1", "017700000001", "2130706433", "127.1", "0x7f000001", "0", "localhost", "LOCALHOST"):
                assert await code_of(get(way, f"http://{text}/")) == "EgressRefused", text
            for text in ("a" * 64 + ".test", "a..b.test"):
                assert await code_of(get(way, f"http://{text}/")) == "EgressFailed", text
        threads.close()

    run(work())


def test_ipv6() -> None:
    async def work() -> None:
        try:
            inside = serving(reply(), host="::1")
            async with inside as server:
                url = f"http://[::1]:{server.port}/"
                async with egress(server.port) as way:
                    assert await code_of(get(way, url)) == "EgressRefused"
                policy = EgressPolicy.of(allow=[f"[::1]:{server.port}"])
                async with Egress(policy, names(NAMES)) as way:
                    assert (await get(way, f"http://[0:0::0:1]:{server.port}/"))[1] == b"hello"
                    assert server.seen[0].header("Host") == f"[::1]:{server.port}"
        except OSError:
            pytest.skip("this machine has no IPv6")

    run(work())
