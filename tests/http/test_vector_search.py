"""Vector search over HTTP: against a server that is killed, and for two deployments of one host."""

import json
import signal
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.http.apps import build
from tests.http.serving import Answer, RunningServer, serve

FOLDER = Path(__file__).parents[1] / "fixtures" / "vectors"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(FOLDER, tmp_path_factory.mktemp("vectors") / "app.skerry").read_bytes()


def value(answer: Any) -> Any:
    assert answer["status"] == "success", answer
    return answer["value"]


def test_what_was_acknowledged_is_found_after_a_kill(tmp_path: Path, bundle: bytes) -> None:
    documents = [{"embedding": [n, 1, 0, 0], "cuisine": "French" if n % 2 else "Thai"} for n in range(100)]
    wanted = {"vector": [1, 0.5, 0, 0], "limit": 20, "cuisines": ["French"]}
    with serve(tmp_path / "data") as running:
        assert running.deploy(bundle).status == 200
        ids = value(running.call("mutation", "docs:add", {"docs": documents}))
        found = value(running.call("action", "docs:search", wanted))
        assert len(found) == 20 and found[0]["_id"] == ids[3]
        last = value(
            running.call("mutation", "docs:add", {"docs": [{"embedding": [1, 0.5, 0, 0], "cuisine": "French"}]})
        )
        running.stop(signal.SIGKILL)
    with serve(tmp_path / "data") as running:
        after = value(running.call("action", "docs:search", wanted))
        assert after == [{"_id": last[0], "_score": 1}, *found[:19]]
        assert value(running.call("query", "docs:searchAndReadInQuery", wanted))[0]["_id"] == last[0]


def test_two_deployments_of_a_host(tmp_path: Path, bundle: bytes) -> None:
    data = tmp_path / "data"
    with serve(data, "--domain", "example.org") as running:
        credential = {"Authorization": f"Bearer {(data / 'host.credential').read_text().strip()}"}
        found: dict[str, Any] = {}
        for number, name in enumerate(("one", "two")):
            created = running.ask("POST", "/host/deployments", json.dumps({"name": name}), credential)
            key = created.json()["adminKey"]
            digest = f"sha-256=:{b64encode(sha256(bundle).digest()).decode()}:"
            headers = {"Authorization": f"Convex {key}", "Content-Digest": digest, "Host": f"{name}.localhost:1"}
            assert running.ask("POST", "/api/skerry/deploy", bundle, headers).status == 200
            documents = [{"embedding": [1, number, 0, 0]}] * (number + 1)
            ids = value(_call(running, name, "mutation", "docs:add", {"docs": documents}).json())
            found[name] = ids
        for name, ids in found.items():
            results = value(_call(running, name, "action", "docs:search", {"vector": [1, 0, 0, 0]}).json())
            assert {result["_id"] for result in results} == set(ids) and len(results) == len(ids)


def _call(running: RunningServer, name: str, kind: str, path: str, args: Any) -> Answer:
    body = json.dumps({"path": path, "args": args})
    return running.ask("POST", f"/api/{kind}", body, {"Host": f"{name}.localhost:1"})
