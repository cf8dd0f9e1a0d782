"""`skerry usage`, `skerry quotas` and the log of calls, against a server that runs."""

import json
from pathlib import Path

import pytest

from tests.http.serving import serve, skerry

LINE = {
    "deployment", "request", "kind", "function", "ok", "code", "cached", "cpuUs", "guestUs", "hostUs", "guestSteps",
    "hostcalls", "documentsRead", "bytesRead", "documentsWritten", "bytesWritten", "bytesSent",
}  # fmt: skip


def test_quotas_refuse_with_a_time_to_come_again_and_usage_is_told(tmp_path: Path, app_bundle: Path) -> None:
    with serve(tmp_path / "data", "--log-calls") as running:
        host = {
            "SKERRY_HOST_CREDENTIAL": (tmp_path / "data" / "host.credential").read_text().strip(),
            "CONVEX_SELF_HOSTED_URL": running.url,
            "CONVEX_SELF_HOSTED_ADMIN_KEY": running.admin_key,
        }
        assert skerry("deploy", app_bundle, **host).returncode == 0
        refused = skerry("quotas", "local", "--set", "requests_per_minute=0", "--json", **host)
        assert json.loads(refused.stdout)["error"]["code"] == "InvalidQuotas"
        done = skerry("quotas", "local", "--set", "requests-per-minute=2", "--json", **host)
        assert json.loads(done.stdout)["set"] == {"requests_per_minute": 2}
        assert json.loads(done.stdout)["inForce"]["calls_at_once"] > 0
        body = json.dumps({"path": "probe:echo", "args": {}}).encode()
        answers = [running.ask("POST", "/api/query", body) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].refusal() == (429, "RequestRateExceeded")
        assert int(answers[2].headers["retry-after"]) in range(1, 31)
        framework = running.ask("GET", "/api/query?path=probe:echo&args=%7B%7D")
        assert framework.status == 429 and int(framework.headers["retry-after"]) in range(1, 31)
        told = json.loads(skerry("usage", "--json", **host).stdout)["usage"]
        assert (told["calls"], told["callsRefused"]) == (2, 2) and told["cpuUs"] > 0
        assert told["bytesSent"] >= sum(len(answer.body) for answer in answers)
        assert json.loads(skerry("usage", "local", "--json", **host).stdout)["usage"]["calls"] == 2
        assert "requests_per_minute" in skerry("quotas", "local", **host).stdout
        assert "set" not in skerry("quotas", "local", "--set", "requests_per_minute=default", **host).stdout
        metrics = running.ask("GET", "/metrics", headers={"Authorization": f"Convex {running.admin_key}"}).body.decode()
        assert 'skerry_deployment_calls_total{deployment="local"} 2.0' in metrics
        assert 'skerry_deployment_cpu_seconds_total{deployment="local"}' in metrics
        errors = running.stop()[1]
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith('{"deployment"')]
    assert [(line["function"], line["ok"]) for line in lines] == [("probe:echo", True)] * 2
    assert all(line.keys() == LINE and line["bytesSent"] > 0 for line in lines)


@pytest.mark.parametrize("change", ["calls_at_once", "calls_at_once=", "calls_at_once=-1", "calls_at_once=1.5"])
def test_what_is_no_quota(change: str) -> None:
    done = skerry("quotas", "local", "--set", change, "--url", "http://127.0.0.1:1", "--host-credential", "k")
    assert done.returncode == 2
