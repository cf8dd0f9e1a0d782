"""`skerry deploy` and `skerry run` against a real server, as processes."""

import json
import socket
from pathlib import Path

import pytest

from tests.cli.test_build import small_app
from tests.http.serving import RunningServer, serve, skerry


def test_a_bundle_deployed_elsewhere_answers_there(app_bundle: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "data") as other:
        done = skerry("deploy", app_bundle, "--url", other.url, "--admin-key", other.admin_key, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["ok"] is True
        assert result["url"] == other.url
        assert len(result["version"]) == 64
        assert other.call("query", "messages:list", {"channel": "x"})["value"] == []


def test_a_folder_deploys_with_the_server_from_the_environment(tmp_path: Path) -> None:
    with serve(tmp_path / "data") as own:
        app = small_app(tmp_path / "app")
        names = {"CONVEX_SELF_HOSTED_URL": own.url + "/", "CONVEX_SELF_HOSTED_ADMIN_KEY": own.admin_key}
        done = skerry("deploy", app, **names)
        assert done.returncode == 0, done.stderr
        assert "deployed 1 functions" in done.stdout
        ran = skerry("run", "numbers:one", **names)
        assert (ran.returncode, ran.stdout) == (0, "1\n")


def test_run_prints_the_value_and_puts_log_lines_aside(server: RunningServer) -> None:
    done = skerry("run", "probe:talk", "--url", server.url)
    assert (done.returncode, done.stdout) == (0, "null\n")
    assert done.stderr == "[LOG] 'hello' 1\n[WARN] 'careful'\n"
    done = skerry("run", "probe:echo", '{"b": 1, "a": {"$integer": "AQAAAAAAAAA="}}', "--url", server.url, "--json")
    assert json.loads(done.stdout) == {
        "ok": True,
        "status": "success",
        "value": {"a": {"$integer": "AQAAAAAAAAA="}, "b": 1},
    }


def test_run_without_a_function_name_means_the_default_export(server: RunningServer) -> None:
    for key in ([], ["--admin-key", server.admin_key]):
        done = skerry("run", "probe.js", "--url", server.url, *key)
        assert (done.returncode, done.stdout) == (0, '"the default export"\n'), done.stderr


def test_only_the_admin_key_runs_internal_functions(server: RunningServer) -> None:
    refused = skerry("run", "probe:hidden", "--url", server.url)
    assert refused.returncode == 1
    assert "Could not find public function" in refused.stderr
    allowed = skerry("run", "probe:hidden", "--url", server.url, "--admin-key", server.admin_key)
    assert (allowed.returncode, allowed.stdout) == (0, '"seen by admins"\n')


def test_a_failing_function_fails_the_command(server: RunningServer) -> None:
    done = skerry("run", "probe:refuse", "--url", server.url)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Uncaught ConvexError" in done.stderr
    assert '"reason": "no"' in done.stderr
    as_json = skerry("run", "probe:refuse", "--url", server.url, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["ok"] is False


@pytest.mark.parametrize("args", ["{", "[1]", "1", "{'a': 1}"])
def test_arguments_that_are_no_object(server: RunningServer, args: str) -> None:
    done = skerry("run", "probe:echo", args, "--url", server.url)
    assert done.returncode == 2
    assert "JSON" in done.stderr


@pytest.mark.parametrize("url", ["localhost:3210", "ftp://a", "http://", "http://a:x"])
def test_an_address_that_is_none(url: str) -> None:
    done = skerry("run", "probe:echo", "--url", url)
    assert done.returncode == 2
    assert "http://127.0.0.1:3210" in done.stderr


def test_a_server_that_is_not_there(app_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for arguments in (["run", "a:b"], ["deploy", str(app_bundle), "--admin-key", "local|k"]):
        done = skerry(*arguments, "--url", f"http://127.0.0.1:{port}", "--json")
        assert done.returncode == 3
        assert json.loads(done.stdout)["error"]["code"] == "ServerUnreachable"
        assert "Traceback" not in done.stderr


def test_something_else_answers(server: RunningServer) -> None:
    done = skerry("run", "probe:echo", "--url", server.site_url, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "ServerAnswerInvalid"


def test_deploying_needs_the_right_key(server: RunningServer, app_bundle: Path) -> None:
    for key, code in ((None, "AdminKeyMissing"), ("local|wrong", "BadDeployKey"), ("ключ", "BadAdminKey")):
        arguments = ["--admin-key", key] if key else []
        done = skerry("deploy", app_bundle, "--url", server.url, *arguments, "--json")
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["error"]["code"] == code


def test_what_is_no_bundle_is_refused_before_it_is_sent(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a bundle")
    done = skerry("deploy", file, "--url", server.url, "--admin-key", server.admin_key, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "BundleInvalid"
    types = skerry("deploy", file, "--url", server.url, "--admin-key", server.admin_key, "--typecheck")
    assert types.returncode == 2
