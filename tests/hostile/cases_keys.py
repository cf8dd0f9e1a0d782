"""Attacks with keys: malformed, another deployment's, revoked, out of scope, and identities that are none."""

import json
from base64 import b64encode
from typing import Any

from tests.hostile.case import Case, Outcome
from tests.hostile.cases_http import refused
from tests.hostile.cases_script import value
from tests.hostile.ground import Ground, outcome_of

WALL = "administration"
SECRET = '{"path":"alive:secret","args":{}}'
WRONG = refused(401, "BadAdminKey", "")


def _as_user(identity: Any) -> str:
    raw = identity if isinstance(identity, bytes) else json.dumps(identity).encode()
    return b64encode(raw).decode()


def _header(template: str, name: str = "script", route: str = "/api/function", body: str = SECRET) -> Any:
    """A call with a header in which NEIGHBOUR, SCRIPT and HOST stand for the keys."""

    def run(ground: Ground) -> Outcome:
        keys = {"SCRIPT": ground.keys["script"], "NEIGHBOUR": ground.keys["neighbour"], "HOST": ground.credential}
        header = template
        for word, key in keys.items():
            header = header.replace(word, key)
        return outcome_of(ground.ask(name, "POST", route, body, {"Authorization": header}))

    return run


def _rewritten(ground: Ground) -> Outcome:
    """The neighbour's key under another name."""
    key = ground.keys["neighbour"].replace("neighbour|", "script|")
    return outcome_of(ground.ask("script", "POST", "/api/function", SECRET, {"Authorization": f"Convex {key}"}))


def _flipped(ground: Ground) -> Outcome:
    key = ground.keys["script"]
    other = key[:-1] + ("0" if key[-1] != "0" else "1")
    return outcome_of(ground.ask("script", "POST", "/api/function", SECRET, {"Authorization": f"Convex {other}"}))


def _scoped(scope: str, method: str, path: str, body: str | None = None) -> Any:
    def run(ground: Ground) -> Outcome:
        number, key = ground.key("script", scope)
        try:
            return outcome_of(ground.ask("script", method, path, body, {"Authorization": f"Convex {key}"}))
        finally:
            ground.operate("DELETE", f"/host/deployments/script/keys/{number}")

    return run


def _revoked(ground: Ground) -> Outcome:
    number, key = ground.key("script", "admin")
    header = {"Authorization": f"Convex {key}"}
    assert outcome_of(ground.ask("script", "POST", "/api/function", SECRET, header)) == ("value", "a secret")
    assert ground.operate("DELETE", f"/host/deployments/script/keys/{number}").status == 200
    return outcome_of(ground.ask("script", "POST", "/api/function", SECRET, header))


def _own_keys(ground: Ground) -> Outcome:
    """A key of one deployment that asks for a key of the other."""
    header = {"Authorization": f"Bearer {ground.keys['script']}"}
    return outcome_of(ground.server.ask("POST", "/host/deployments/neighbour/keys", '{"scope":"admin"}', header))


_HEADERS: list[tuple[str, str, Outcome]] = [
    ("no key", "Convex ", WRONG),
    ("the name alone", "Convex script|", WRONG),
    ("the neighbour's key", "Convex NEIGHBOUR", WRONG),
    ("the host's credential", "Convex HOST", WRONG),
    ("the key and a zero", "Convex SCRIPT0", WRONG),
    ("two spaces before the key", "Convex  SCRIPT", value("a secret")),
    ("a key twice", "Convex SCRIPT SCRIPT", WRONG),
    ("a key of 8 KiB", "Convex script|" + "a" * 8192, WRONG),
    ("a key of bytes", "Convex script|\xe9\xff", WRONG),
    ("the key as a user's token", "Bearer SCRIPT", refused(401, "InvalidAuthHeader", "")),
    ("a token signed by nobody", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", refused(401, "InvalidAuthHeader", "")),
    ("another scheme", "Basic c2NyaXB0OnNlY3JldA==", refused(400, "InvalidAdminKey", "")),
    ("an identity that is no base64", "Convex SCRIPT:???", refused(400, "HeaderParseFailure", "")),
    ("an identity that is a list", "Convex SCRIPT:" + _as_user([1]), refused(400, "HeaderParseFailure", "")),
    ("an identity of 1,000 levels", "Convex SCRIPT:" + _as_user(b"[" * 1000 + b"]" * 1000), refused(400, "HeaderParseFailure", "")),
    ("an identity without the key", "Convex :" + _as_user({"subject": "admin"}), WRONG),
    ("an identity behind the neighbour's key", "Convex NEIGHBOUR:" + _as_user({"subject": "admin"}), WRONG),
    ("two identities", "Convex SCRIPT:" + _as_user({"subject": "a"}) + ":" + _as_user({"subject": "b"}), refused(400, "HeaderParseFailure", "")),
]  # fmt: skip

CASES = [
    *(Case(f"key: {name}", WALL, template[:40], _header(template), want) for name, template, want in _HEADERS),
    Case("key: the neighbour's under this name", WALL, "script|ID.SECRET", _rewritten, WRONG),
    Case("key: one digit changed", WALL, "script|ID.SECRET", _flipped, WRONG),
    Case("key: revoked", WALL, "works, is revoked, is sent again", _revoked, WRONG),
    Case("key: the right one", WALL, "so that the others mean something", _header("Convex SCRIPT"), value("a secret")),
    Case("key: a public call with the neighbour's", WALL, "/api/query", _header("Convex NEIGHBOUR", route="/api/query"), WRONG),
    *(
        Case(f"scope: a {scope} key for {method} {path}", WALL, f"{method} {path}", _scoped(scope, method, path, body), refused(403, "KeyNotAllowed", ""))
        for scope, method, path, body in (
            ("read", "POST", "/api/function", SECRET),
            ("deploy", "POST", "/api/function", SECRET),
            ("read", "POST", "/api/skerry/deploy", ""),
            ("read", "POST", "/api/skerry/rollback", "{}"),
            ("read", "POST", "/api/skerry/keys", "{}"),
            ("deploy", "POST", "/api/skerry/keys", '{"scope":"admin"}'),
            ("deploy", "GET", "/api/skerry/keys", None),
        )
    ),
    Case("scope: a deployment's key for the host", WALL, "/host/deployments/neighbour/keys", _own_keys, refused(401, "BadHostCredential", "")),
]  # fmt: skip
