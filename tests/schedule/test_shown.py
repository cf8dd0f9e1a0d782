"""`skerry crons` and its route, against a server that runs."""

import json
from pathlib import Path

from tests.http.serving import serve, skerry
from tests.schedule.test_crons import EVERY, NIGHTLY, app


def test_crons_are_shown_with_their_last_and_next_run(base: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "app.skerry"
    bundle.write_bytes(app(base, EVERY + NIGHTLY))
    with serve(tmp_path / "data") as running:
        own = {"CONVEX_SELF_HOSTED_URL": running.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": running.admin_key}
        assert skerry("crons", **own).stdout == "no crons\n"
        assert skerry("deploy", bundle, **own).returncode == 0
        while True:
            listed = json.loads(skerry("crons", "--json", **own).stdout)["crons"]
            if listed and listed[0]["lastState"] is not None:
                break
        every, nightly = listed
        assert (every["name"], every["schedule"], every["function"]) == ("every", "every 60 s", "jobs.js:note")
        assert every["lastState"] == {"kind": "success"}
        assert nightly["schedule"] == "0 3 * * *" and nightly["lastState"] is None
        text = skerry("crons", **own).stdout
        assert "success" in text and "has not run yet" in text and " 03:00:00" in text
        assert skerry("crons", CONVEX_SELF_HOSTED_URL=running.url).returncode == 3
