"""A disk that takes no more, under a real server: what writes says `StorageFull`, what reads goes on, nothing is lost
or left, and with room everything works again. The kernel refuses to let files grow, as a full disk does.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.admin.test_restore_failing import processes_of
from tests.http.serving import RunningServer, serve
from tests.http.test_transfers import ask, begin, export, lines, wait

FULL = (503, "StorageFull")
ROWS = b"".join(b'{"n":%d,"text":"%s"}\n' % (n, b"x" * 200) for n in range(3_000))


@contextmanager
def files_of_at_most(server: RunningServer, n_bytes: int) -> Iterator[None]:
    """For as long as this lasts no file of the server's grows beyond so many bytes."""
    found = processes_of(server)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in found}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def send(server: RunningServer, body: str) -> Any:
    return ask(
        server,
        "POST",
        "/api/mutation",
        {"path": "messages:send", "args": {"channel": "c", "author": "a", "body": body}},
    )


def listed(server: RunningServer) -> list[str]:
    return [message["body"] for message in server.call("query", "messages:list", {"channel": "c"})["value"]]


@pytest.fixture
def own(tmp_path: Path, app_bundle: Path) -> Iterator[RunningServer]:
    with serve(tmp_path / "data") as running:
        assert running.deploy(app_bundle.read_bytes()).status == 200
        assert send(running, "before").json()["status"] == "success"
        yield running


def test_each_thing_that_writes_says_so_and_what_reads_goes_on(
    own: RunningServer, app_bundle: Path, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {(tmp_path / 'data' / 'host.credential').read_text().strip()}"}
    backup = ask(own, "GET", "/api/skerry/backup").body
    waiting = begin(own, ROWS, "requireEmpty", "jsonLines", "rows")
    assert wait(own, waiting, "waiting_for_confirmation")["state"] == "waiting_for_confirmation"
    with files_of_at_most(own, 8_192):
        answer = send(own, "x" * 20_000)
        assert answer.refusal() == FULL
        assert listed(own) == ["before"]
        assert ask(own, "POST", "/api/perform_import", {"importId": waiting}).status == 200
        state = wait(own, waiting)
        assert (state["state"], state["code"]) == ("failed", "StorageFull")
        assert ask(own, "POST", "/api/import?tableName=rows&mode=replace&format=jsonLines", ROWS).refusal() == FULL
        token = ask(own, "POST", "/api/import/start_upload").json()["uploadToken"]
        place = f"/api/import/upload_part?uploadToken={token}&partNumber=1"
        assert ask(own, "POST", place, ROWS).refusal() == FULL
        assert own.deploy(app_bundle.read_bytes() + b" ").refusal() == FULL
        assert ask(own, "POST", "/api/skerry/storage/jobs", {"kind": "compact"}).status == 200
        while (job := ask(own, "GET", "/api/skerry/storage").json()["job"])["state"] == "running":
            pass
        assert (job["state"], job["error"]["code"]) == ("failed", "StorageFull")
        assert own.ask("POST", "/host/deployments/restored/restore", backup, headers).refusal() == FULL
        assert ask(own, "GET", "/api/skerry/backup").status == 200, "a backup is written where it is asked for"
        assert listed(own) == ["before"]
    assert send(own, "after").json()["status"] == "success"
    assert ask(own, "POST", place, ROWS).status == 200
    assert ask(own, "POST", "/api/import?tableName=rows&mode=replace&format=jsonLines", ROWS).status == 200
    assert listed(own) == ["after", "before"]
    assert own.ask("POST", "/host/deployments/restored/restore", backup, headers).json()["documents"] == 1
    with files_of_at_most(own, 8_192):
        assert ask(own, "POST", "/api/export/request/zip").status == 200
        while (state := ask(own, "GET", "/api/skerry/exports/latest").json())["state"] not in ("completed", "failed"):
            pass
        assert (state["state"], state["code"]) == ("failed", "StorageFull")
    assert len(lines(export(own), "rows")) == 3_000
    ask(own, "POST", "/api/skerry/storage/jobs", {"kind": "verify"})
    while (job := ask(own, "GET", "/api/skerry/storage").json()["job"])["state"] == "running":
        pass
    assert job["result"]["differences"] == [], job
