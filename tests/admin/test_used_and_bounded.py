"""Quotas and metering where the use happens: inside a guest, and on a real connection."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.admin.way_out import WaysOut
from skerry.limits import GUEST_MEMORY_BYTES_MAX, QUOTA_MEMORY_BYTES_MIN
from tests.admin.world import HostWorld
from tests.fixtures import shared
from tests.fixtures.action_bundle import action_bundle
from tests.fixtures.bundles import wrap_honestly
from tests.fixtures.guests import c_guest

PAGE_BYTES = 65_536
BODY = b"x" * 5_000


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        serving = threading.Thread(target=made.serve_forever)
        serving.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        serving.join()


def test_a_guest_gets_the_memory_of_its_quota_and_not_a_page_more(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", wrap_honestly(c_guest("hostile"), shared.module_cache(base)))
    for quota, expected in (
        (QUOTA_MEMORY_BYTES_MIN, QUOTA_MEMORY_BYTES_MIN),
        (3 * QUOTA_MEMORY_BYTES_MIN, 3 * QUOTA_MEMORY_BYTES_MIN),
        (None, GUEST_MEMORY_BYTES_MAX),
    ):
        host.wait(host.host.change_quotas("one", {"memory_bytes": quota}))
        found, pages = host.value("one", "query", "h:find", {})
        assert found == 0
        assert expected - 16 * PAGE_BYTES < pages * PAGE_BYTES <= expected, "it grows by sixteen pages"


def test_a_fetch_over_the_network_is_metered_and_ends_at_its_quota(base: Path, tmp_path: Path, server: str) -> None:
    ways_out = WaysOut((server,))
    with HostWorld(tmp_path / "data", shared.compiled(base), ways_out=ways_out) as host:
        host.create("one")
        host.deploy("one", action_bundle(base))
        host.wait(host.host.change_quotas("one", {"egress_requests_per_minute": 2}))
        for times in (1, 2):
            assert host.value("one", "action", "a:get", {"url": f"http://{server}/"})["body"] == BODY.decode()
            used = host.host.usage("one")
            assert used["egressRequests"] == times
            assert times * len(BODY) < used["egressBytes"] < times * (len(BODY) + 2_000), "heads count, nothing twice"
        refused = host.wait(host.call("one", "action", "a:get", {"url": f"http://{server}/"}))
        assert not refused.ok and "has used its 2 fetches a minute" in refused.error_message
        assert host.host.usage("one")["egressRequests"] == 2
    ways_out.close()
