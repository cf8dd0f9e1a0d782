"""The routes for people, tools and browsers."""

import json

from skerry import __version__
from tests.http.serving import RunningServer


def test_plain_routes(server: RunningServer) -> None:
    assert server.ask("GET", "/").status == 200
    assert server.ask("GET", "/version").body.decode() == __version__
    assert server.ask("GET", "/instance_version").body.decode() == __version__
    assert server.ask("GET", "/instance_name").body == b"local"
    assert server.ask("GET", "/health").json() == {"status": "ok"}
    assert server.ask("POST", "/echo", b"\x00\xff").body == b"\x00\xff"


def test_the_admin_key_can_be_checked(server: RunningServer) -> None:
    assert server.ask("GET", "/api/check_admin_key", headers=server.admin_header()).json() == {"success": True}


def test_the_site_port_says_that_there_are_no_http_actions(server: RunningServer) -> None:
    answer = server.ask("GET", "/anything", site=True)
    assert answer.status == 404
    assert answer.body == b"This Convex deployment does not have HTTP actions enabled."


def test_functions_of_the_live_version_are_listed(server: RunningServer) -> None:
    described = server.ask("GET", "/api/skerry/functions", headers=server.admin_header()).json()
    assert len(described["version"]) == 64
    listed = json.dumps(described["functions"])
    assert "messages" in listed
    assert "hidden" in listed


def test_metrics_count_calls_and_refusals(server: RunningServer) -> None:
    success = 'skerry_calls_total{kind="query",outcome="success"}'
    broken = 'skerry_calls_total{kind="query",outcome="error"}'
    refused = 'skerry_requests_refused_total{code="BadFormat"}'
    server.ask("POST", "/api/query", '{"path": "probe:echo", "format": "no"}')
    before = [server.metric(name) for name in (success, broken, refused)]
    server.call("query", "probe:echo")
    server.call("query", "probe:fail")
    server.ask("POST", "/api/query", '{"path": "probe:echo", "format": "no"}')
    assert [server.metric(name) for name in (success, broken, refused)] == [count + 1 for count in before]
    assert server.metric("skerry_calls_in_flight") == 0


def test_browsers_may_ask_from_anywhere(server: RunningServer) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,convex-client",
    }
    for path in ("/api/mutation", "/api/check_admin_key", "/api/anything"):
        allowed = server.ask("OPTIONS", path, headers=asked)
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert allowed.headers["access-control-allow-headers"] == "content-type,convex-client"
        assert allowed.headers["access-control-max-age"] == "86400"
        methods = set(allowed.headers["access-control-allow-methods"].split(", "))
        assert methods == {"GET", "POST", "OPTIONS", "PATCH", "DELETE", "PUT"}


def test_answers_and_refusals_carry_the_origin(server: RunningServer) -> None:
    for method, path, body in (
        ("POST", "/api/query", '{"path": "probe:echo"}'),
        ("POST", "/api/query", "{"),
        ("GET", "/api/check_admin_key", None),
    ):
        answer = server.ask(method, path, body, {"Origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in server.ask("POST", "/api/query", "{").headers


def test_functions_know_where_they_are_served(server: RunningServer) -> None:
    assert server.call("query", "probe:addresses")["value"] == [server.url, server.site_url]
