"""`skerry admin backup` and `restore`, against a server that runs."""

import json
from pathlib import Path

from tests.http.serving import ADMIN_KEY, serve, skerry


def test_a_deployment_comes_back_with_its_data_and_code(tmp_path: Path, app_bundle: Path) -> None:
    data = tmp_path / "data"
    with serve(data) as running:
        host = {
            "SKERRY_HOST_CREDENTIAL": (data / "host.credential").read_text().strip(),
            "CONVEX_SELF_HOSTED_URL": running.url,
            "CONVEX_SELF_HOSTED_ADMIN_KEY": ADMIN_KEY,
        }
        assert running.deploy(app_bundle.read_bytes()).status == 200
        first, second = tmp_path / "first.backup", tmp_path / "second.backup"
        done = json.loads(skerry("admin", "backup", first, "--json", **host).stdout)
        assert done["ok"] and done["bytes"] == first.stat().st_size
        assert skerry("admin", "backup", first, **host).returncode == 1, "nothing is written over"
        told = skerry("admin", "backup", second, "--since", first, **host)
        assert told.returncode == 0 and "what has changed in local" in told.stdout, told
        alone = skerry("admin", "restore", "new", second, "--json", **host)
        assert json.loads(alone.stdout)["error"]["code"] == "BackupInvalid"
        quota = ("--set", "storage-bytes=9000000")
        made = json.loads(skerry("admin", "restore", "new", first, second, *quota, "--json", **host).stdout)
        assert made["ok"] and made["of"] == "local" and made["adminKey"].startswith("new|")
        assert made["url"] == f"{running.url}/d/new"
        assert "9,000,000  set" in skerry("quotas", "new", **host).stdout
        assert skerry("admin", "restore", "other", first, "--set", "storage-bytes=x", **host).returncode == 2
        taken = skerry("admin", "restore", "new", first, "--json", **host)
        assert json.loads(taken.stdout)["error"]["code"] == "DeploymentNameTaken"
        body = json.dumps({"path": "probe:echo", "args": {}}).encode()
        headers = {"Host": "new.localhost:1", "Content-Type": "application/json"}
        assert running.ask("POST", "/api/query", body, headers).status == 200, "its code runs"
        refused = running.ask("GET", "/api/skerry/backup?since=1", headers={"Authorization": f"Convex {ADMIN_KEY}"})
        assert refused.refusal() == (409, "BackupBaseUnknown")
        running.stop()
    left = [entry.name for entry in (data / "deployments").iterdir()]
    assert sorted(left) == ["local", "new"]
    assert skerry("admin", "verify", "--data", data, "--deployment", "new").returncode == 0


def test_what_a_crash_left_of_a_restore_is_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(data) as running:
        running.stop()
    left = data / "deployments" / ".new.restoring"
    left.mkdir()
    (left / "upload").write_bytes(b"half")
    with serve(data) as running:
        assert not left.exists()
