"""Imports and exports over HTTP: uploads in parts, what is confirmed, results, and a server that is killed."""

import signal
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from os import urandom
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import orjson
import pytest

from skerry import limits
from tests.http.serving import Answer, RunningServer, serve


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("transfers") / "data") as running:
        yield running


def ask(server: RunningServer, method: str, path: str, body: Any = b"", key: bool = True) -> Answer:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Convex {server.admin_key}"
    return server.ask(method, path, raw, headers)


def begin(server: RunningServer, raw: bytes, mode: str, kind: str, table: str | None, part_bytes: int = 1 << 20) -> str:
    """An import that was uploaded; its id."""
    token = ask(server, "POST", "/api/import/start_upload").json()["uploadToken"]
    tokens: list[str] = []
    for at in range(0, len(raw), part_bytes):
        where = f"/api/import/upload_part?uploadToken={token}&partNumber={len(tokens) + 1}"
        answer = ask(server, "POST", where, raw[at : at + part_bytes])
        assert answer.status == 200, answer
        tokens.append(answer.json())
    wanted = {"tableName": table, "mode": mode, "format": kind, "componentPath": None}
    body = {"import": wanted, "uploadToken": token, "partTokens": tokens}
    answer = ask(server, "POST", "/api/import/finish_upload", body)
    assert answer.status == 200, answer
    return answer.json()["importId"]


def wait(server: RunningServer, import_id: str, *states: str) -> dict[str, Any]:
    while True:
        state = ask(server, "GET", f"/api/skerry/imports/{import_id}").json()
        if state["state"] in ("completed", "failed", *states):
            return state


def perform(server: RunningServer, import_id: str) -> dict[str, Any]:
    assert wait(server, import_id, "waiting_for_confirmation")["state"] == "waiting_for_confirmation"
    assert ask(server, "POST", "/api/perform_import", {"importId": import_id}).status == 200
    return wait(server, import_id)


def export(server: RunningServer) -> bytes:
    assert ask(server, "POST", "/api/export/request/zip?includeStorage=true").status == 200
    while (state := ask(server, "GET", "/api/skerry/exports/latest").json())["state"] not in ("completed", "failed"):
        pass
    answer = ask(server, "GET", f"/api/export/zip/{state['zip_object_key']}")
    assert answer.status == 200 and answer.headers["content-disposition"].startswith("attachment; filename=")
    return answer.body


def lines(archive: bytes, table: str) -> list[Any]:
    with ZipFile(BytesIO(archive)) as opened:
        if f"{table}/documents.jsonl" not in opened.namelist():
            return []
        return [orjson.loads(line) for line in opened.read(f"{table}/documents.jsonl").splitlines()]


def test_a_file_in_parts_is_confirmed_and_imported(own: RunningServer) -> None:
    raw = b"".join(b'{"n":%d}\n' % n for n in range(20_000))
    job = begin(own, raw, "requireEmpty", "jsonLines", "parts", 50_000)
    state = wait(own, job, "waiting_for_confirmation")
    assert state["message_to_confirm"] == "This import will\n  create table parts"
    assert state["require_manual_confirmation"] is False
    state = perform(own, job)
    assert state == {"state": "completed", "num_rows_written": {"$integer": "IE4AAAAAAAA="}}
    archive = export(own)
    assert sorted(row["n"] for row in lines(archive, "parts")) == [float(n) for n in range(20_000)]
    with ZipFile(BytesIO(archive)) as opened:
        assert opened.read("_storage/documents.jsonl") == b""
    again = begin(own, archive, "replaceAll", "zip", None)
    assert wait(own, again, "waiting_for_confirmation")["require_manual_confirmation"] is True
    assert perform(own, again)["state"] == "completed"
    assert export(own) == archive


def test_at_once(own: RunningServer) -> None:
    path = "/api/import?tableName=once&mode=replace&format="
    assert ask(own, "POST", path + "csv", b"a\n1\n2\n").json() == {"numWritten": 2}
    assert ask(own, "POST", path + "jsonLines", b'{"a":1}').json() == {"numWritten": 1}
    refused = ask(own, "POST", path + "jsonLines", b'{"a":1}\n{')
    assert refused.refusal() == (400, "ImportRefused")
    assert "Hit an error while importing:\nLine 2: " in refused.json()["message"]
    assert ask(own, "POST", path + "xml", b"").refusal() == (400, "ImportRefused")
    assert len(lines(export(own), "once")) == 1


def test_only_admins_may(own: RunningServer) -> None:
    for method, path in (
        ("POST", "/api/import"),
        ("POST", "/api/import/start_upload"),
        ("POST", "/api/import/upload_part"),
        ("POST", "/api/import/finish_upload"),
        ("POST", "/api/perform_import"),
        ("POST", "/api/cancel_import"),
        ("GET", "/api/skerry/imports/x"),
        ("POST", "/api/export/request/zip"),
        ("GET", "/api/skerry/exports/latest"),
        ("GET", "/api/export/zip/1"),
    ):
        assert ask(own, method, path, key=False).status in (401, 403), path
    made = ask(own, "POST", "/api/skerry/keys", {"scope": "deploy", "label": "ci"}).json()["key"]
    headers = {"Authorization": f"Convex {made}"}
    assert own.ask("POST", "/api/import/start_upload", b"", headers).status == 403
    assert own.ask("GET", "/api/skerry/exports/latest", None, headers).status == 403


def test_a_cancelled_import_leaves_nothing(own: RunningServer) -> None:
    raw = b"".join(b'{"n":%d}\n' % n for n in range(60_000))
    job = begin(own, raw, "requireEmpty", "jsonLines", "cancelled")
    assert wait(own, job, "waiting_for_confirmation")["state"] == "waiting_for_confirmation"
    assert ask(own, "POST", "/api/perform_import", {"importId": job}).status == 200
    other = begin(own, b'{"n":1}', "requireEmpty", "jsonLines", "other")
    wait(own, other, "waiting_for_confirmation")
    refused = ask(own, "POST", "/api/perform_import", {"importId": other})
    assert refused.refusal() == (409, "ImportInProgress")
    assert ask(own, "POST", "/api/cancel_import", {"importId": job}).status == 200
    state = wait(own, job)
    assert (state["state"], state["code"]) == ("failed", "ImportCanceled")
    assert ask(own, "POST", "/api/cancel_import", {"importId": other}).status == 200
    assert wait(own, other)["code"] == "ImportCanceled"
    assert ask(own, "POST", "/api/perform_import", {"importId": other}).refusal() == (409, "ImportInProgress")
    assert lines(export(own), "cancelled") == []


def test_requests_that_lead_nowhere(own: RunningServer) -> None:
    nowhere = {"importId": "x"}
    assert ask(own, "POST", "/api/perform_import", nowhere).refusal() == (404, "ImportNotFound")
    assert ask(own, "POST", "/api/cancel_import", nowhere).refusal() == (404, "ImportNotFound")
    assert ask(own, "GET", "/api/skerry/imports/x").refusal() == (404, "ImportNotFound")
    assert ask(own, "GET", "/api/export/zip/5").refusal() == (404, "ExportNotFound")
    part = "/api/import/upload_part?uploadToken="
    assert ask(own, "POST", part + "x&partNumber=1", b"x").refusal() == (404, "ImportNotFound")
    token = ask(own, "POST", "/api/import/start_upload").json()["uploadToken"]
    assert ask(own, "POST", f"{part}{token}", b"x").refusal() == (400, "BadJsonBody")
    assert ask(own, "POST", f"{part}{token}&partNumber=0", b"x").refusal() == (413, "ImportTooLarge")
    most = limits.IMPORT_PARTS_MAX
    assert ask(own, "POST", f"{part}{token}&partNumber={most}", b"x").status == 200
    assert ask(own, "POST", f"{part}{token}&partNumber={most + 1}", b"x").refusal() == (413, "ImportTooLarge")
    wanted = {"tableName": "a", "mode": "append", "format": "csv"}
    for tokens, expected in (
        ([], (404, "ImportNotFound")),
        ([f"{token}-2"], (404, "ImportNotFound")),
        (["../../etc/passwd"], (404, "ImportNotFound")),
        ([f"{token}-{most}", f"{token}-{most}"], (404, "ImportNotFound")),
        ("x", (400, "BadJsonBody")),
        ([1], (400, "BadJsonBody")),
        (["x"] * (most + 1), (400, "BadJsonBody")),
    ):
        body = {"import": wanted, "uploadToken": token, "partTokens": tokens}
        assert ask(own, "POST", "/api/import/finish_upload", body).refusal() == expected
    for changed in ({"mode": "x"}, {"format": "x"}, {"tableName": None}, {"componentPath": "c"}):
        body = {"import": {**wanted, **changed}, "uploadToken": token, "partTokens": ["x"]}
        assert ask(own, "POST", "/api/import/finish_upload", body).refusal() == (400, "ImportRefused")
    large = b" " * (limits.IMPORT_FINISH_BYTES_MAX - 2)
    assert ask(own, "POST", "/api/import/finish_upload", large + b"{}").refusal() == (400, "BadJsonBody")
    assert ask(own, "POST", "/api/import/finish_upload", large + b" {}").refusal() == (413, "RequestTooLarge")


def test_the_oldest_upload_goes(own: RunningServer) -> None:
    tokens = [
        ask(own, "POST", "/api/import/start_upload").json()["uploadToken"] for _ in range(limits.IMPORT_UPLOADS_MAX + 1)
    ]
    part = "/api/import/upload_part?partNumber=1&uploadToken="
    assert ask(own, "POST", part + tokens[1], b"x").status == 200
    assert ask(own, "POST", part + tokens[0], b"x").refusal() == (404, "ImportNotFound")


def test_one_export_at_a_time(own: RunningServer) -> None:
    assert (
        ask(own, "POST", "/api/import?tableName=many&mode=replace&format=csv", b"a\n" + b"1\n" * 30_000).status == 200
    )
    assert ask(own, "POST", "/api/export/request/zip").status == 200
    answer = ask(own, "POST", "/api/export/request/zip")
    assert answer.refusal() == (409, "ExportInProgress")
    while ask(own, "GET", "/api/skerry/exports/latest").json()["state"] != "completed":
        pass


def test_a_server_that_is_killed_has_all_of_an_import_or_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    raw = b"".join(b'{"n":%d,"text":"%d"}\n' % (n, n) for n in range(60_000))
    with serve(data) as server:
        assert ask(server, "POST", "/api/import?tableName=t&mode=replace&format=csv", b"n\n1\n2\n").status == 200
        before = export(server)
    for mode, seen in (("replace", 1), ("append", 20_000), ("replaceAll", 45_000)):
        with serve(data) as server:
            job = begin(server, raw, mode, "jsonLines", "t")
            wait(server, job, "waiting_for_confirmation")
            assert ask(server, "POST", "/api/perform_import", {"importId": job}).status == 200
            while True:
                state = ask(server, "GET", f"/api/skerry/imports/{job}").json()
                assert state["state"] == "in_progress", state
                if int.from_bytes(_bytes(state.get("rowsWritten")), "little") >= seen:
                    break
            token = ask(server, "POST", "/api/import/start_upload").json()["uploadToken"]
            place = f"/api/import/upload_part?uploadToken={token}&partNumber="
            part = ask(server, "POST", place + "1", raw).json()
            server.stop(signal.SIGKILL)
        with serve(data) as server:
            assert ask(server, "POST", place + "2", raw).refusal() == (404, "ImportNotFound")
            wanted = {"tableName": "t", "mode": mode, "format": "jsonLines"}
            finish = {"import": wanted, "uploadToken": token, "partTokens": [part]}
            assert ask(server, "POST", "/api/import/finish_upload", finish).refusal() == (404, "ImportNotFound")
            told = ask(server, "GET", f"/api/skerry/imports/{job}")
            assert told.refusal() == (404, "ImportNotFound") and "import again" in told.json()["message"]
            assert ask(server, "POST", "/api/perform_import", {"importId": job}).refusal() == (404, "ImportNotFound")
            assert export(server) == before
            assert not list((data / "deployments").glob("*/transfers/*-*-*"))
            assert ask(server, "POST", "/api/import?tableName=u&mode=replace&format=csv", b"n\n1\n").status == 200
            assert ask(server, "POST", "/api/import?tableName=t&mode=append&format=csv", b"n\n3\n").status == 200
            before = export(server)
    assert len(lines(before, "t")) == 5


def test_a_restarted_server_knows_the_last_import_that_was_complete(tmp_path: Path) -> None:
    """So that whoever lost the answer to it does not import twice."""
    with serve(tmp_path / "data") as server:
        first = begin(server, b'{"n":1}', "append", "jsonLines", "t")
        assert perform(server, first)["state"] == "completed"
        last = begin(server, b'{"n":2}\n{"n":3}', "append", "jsonLines", "t")
        assert (told := perform(server, last))["state"] == "completed"
        server.stop(signal.SIGKILL)
    with serve(tmp_path / "data") as server:
        assert ask(server, "GET", f"/api/skerry/imports/{last}").json() == told
        assert ask(server, "GET", f"/api/skerry/imports/{first}").refusal() == (404, "ImportNotFound")
        assert len(lines(export(server), "t")) == 3


def test_files_of_transfers_take_no_more_than_the_storage_quota(tmp_path: Path) -> None:
    """Uploads, imports that wait, and the export together; what is over it changes nothing."""
    full = (413, "TransferQuotaReached")
    raw = b"".join(b'{"n":%d,"text":"%s"}\n' % (n, urandom(250).hex().encode()) for n in range(2_000))
    with serve(tmp_path / "data") as server:
        credential = {"Authorization": f"Bearer {(tmp_path / 'data' / 'host.credential').read_text().strip()}"}

        def quota(n_bytes: int) -> None:
            body = orjson.dumps({"storage_bytes": n_bytes})
            assert server.ask("POST", "/host/deployments/local/quotas", body, credential).status == 200

        assert perform(server, begin(server, raw, "replace", "jsonLines", "t"))["state"] == "completed"
        quota(len(raw) - 1)
        token = ask(server, "POST", "/api/import/start_upload").json()["uploadToken"]
        place = f"/api/import/upload_part?uploadToken={token}&partNumber=1"
        assert ask(server, "POST", place, raw).refusal() == full
        quota(len(raw))
        waiting = begin(server, raw, "replace", "jsonLines", "t")
        wait(server, waiting, "waiting_for_confirmation")
        assert ask(server, "POST", "/api/import?tableName=u&mode=append&format=csv", b"n\n1\n").refusal() == full
        assert ask(server, "POST", "/api/export/request/zip").status == 200
        while (state := ask(server, "GET", "/api/skerry/exports/latest").json())["state"] not in (
            "completed",
            "failed",
        ):
            pass
        assert (state["state"], state["code"]) == ("failed", "TransferQuotaReached")
        assert ask(server, "POST", "/api/cancel_import", {"importId": waiting}).status == 200
        assert len(lines(export(server), "t")) == 2_000
        assert [path.suffix for path in (tmp_path / "data" / "deployments" / "local" / "transfers").iterdir()] == [
            ".zip"
        ]


def _bytes(integer: Any) -> bytes:
    return b"" if integer is None else b64decode(integer["$integer"])
