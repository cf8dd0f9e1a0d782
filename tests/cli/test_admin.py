"""`skerry admin`, against a server that runs and a folder that nobody serves."""

import json
from pathlib import Path

import pytest

from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.http.serving import RunningServer, serve, skerry


def _keys(running: RunningServer) -> dict[str, str]:
    return {"CONVEX_SELF_HOSTED_URL": running.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": running.admin_key}


def test_looking_after_a_deployment_that_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(data) as running:
        keys = _keys(running)
        space = json.loads(skerry("admin", "space", "--json", **keys).stdout)
        assert space["ok"] and space["space"]["tables"] == [] and space["file"]["bytes"] > 0
        text = skerry("admin", "space", **keys)
        assert text.returncode == 0 and "commit log" in text.stdout and "3,600 s (the default)" in text.stdout
        assert "counting 0%" in text.stderr
        assert json.loads(skerry("admin", "verify", "--json", **keys).stdout)["isSound"] is True
        assert skerry("admin", "verify", **keys).stdout.startswith("sound: 0 documents")
        compacted = json.loads(skerry("admin", "compact", "--json", **keys).stdout)
        assert 0 < compacted["afterBytes"] <= compacted["beforeBytes"] and compacted["pauseMs"] >= 0
        assert "now; writes waited" in skerry("admin", "compact", **keys).stdout
        assert "7,200 s (set for this deployment)" in skerry("admin", "retention", "2h", **keys).stdout
        assert json.loads(skerry("admin", "retention", "--json", **keys).stdout)["historyRetentionSeconds"] == 7200
        refused = skerry("admin", "retention", "1s", "--json", **keys)
        assert refused.returncode == 1 and json.loads(refused.stdout)["error"]["code"] == "InvalidSettings"
        metrics = running.ask("GET", "/metrics", headers={"Authorization": f"Convex {running.admin_key}"}).body.decode()
        assert 'skerry_deployment_history_retention_seconds{deployment="local"} 7200.0' in metrics
        assert 'skerry_deployment_file_bytes{deployment="local"}' in metrics
        in_use = skerry("admin", "verify", "--data", data, "--json", **keys)
        assert in_use.returncode == 4 and json.loads(in_use.stdout)["error"]["code"] == "DataFolderInUse"
        running.stop()
    sound = skerry("admin", "verify", "--data", data)
    assert sound.returncode == 0 and sound.stdout.startswith("sound: ")
    engine = LmdbEngine(data / "deployments" / "local")
    engine.commit([(Tree.INDEXES, b"\0\0\x99\x99key", b"")]).result(20)
    engine.close()
    damaged = skerry("admin", "verify", "--data", data)
    assert damaged.returncode == 1 and "IndexOfNobody" in damaged.stdout and "indexes/00009999" in damaged.stdout
    assert json.loads(skerry("admin", "verify", "--data", data, "--json").stdout)["differenceCount"] == 1
    assert skerry("admin", "verify", "--data", data, "--deployment", "other").returncode == 1
    assert skerry("admin", "verify", "--data", data, "--deployment", "../other").returncode == 2


@pytest.mark.parametrize("duration", ["2x", "-1h", "1.5h", "h", ""])
def test_what_is_no_duration(duration: str) -> None:
    done = skerry("admin", "retention", "--url", "http://127.0.0.1:1", "--admin-key", "k", "--", duration)
    assert done.returncode == 2


@pytest.mark.parametrize("command", ["space", "verify", "compact", "retention"])
def test_help_and_a_missing_key(command: str) -> None:
    shown = skerry("admin", command, "--help")
    assert shown.returncode == 0 and "--admin-key" in shown.stdout
    assert skerry("admin", command, "--url", "http://127.0.0.1:1").returncode == 3
