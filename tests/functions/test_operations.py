"""The operations of the host are those that OPS.md lists, each in its contexts, served or refused with its reason."""

import re
from pathlib import Path

import orjson
import pytest

from skerry.errors import DeveloperError
from skerry.functions.action_operations import ACTION_OPERATIONS, ACTION_SERVED
from skerry.functions.operations import OPERATIONS, REFUSED, SERVED
from tests.fixtures.world import World

ROW = re.compile(r"\| `([^`]+)` \| (sync|async|js) \| ([QMAH ]+?) \| (served|refused) \| (.*?) ?\|")
WRITES = {"1.0/insert", "1.0/shallowMerge", "1.0/replace", "1.0/remove"}
OURS = {"log", "entropy", "env/get"}
ONLY = {
    "Q": {"collect", *WRITES},  # the writes are known there, to say that queries only read
    "M": {"collect"},
    "A": {"timer/start", "timer/clear", "fetch/start", "fetch/write", "fetch/read", "fetch/cancel"},
}
TABLES = {**OPERATIONS, "action": ACTION_OPERATIONS}


@pytest.fixture(scope="module")
def rows(repository: Path) -> dict[str, tuple[str, str, str, str]]:
    """OPS.md: operation -> kind, contexts, what becomes of it, reason."""
    text = (repository / "guest_sdk" / "javascript" / "OPS.md").read_text()
    found = [match for line in text.splitlines() if (match := ROW.fullmatch(line))]
    assert len(found) == len(re.findall(r"(?m)^\| `", text)) > 40
    return {match[1]: (match[2], match[3].replace(" ", ""), match[4], match[5]) for match in found}


def test_the_host_serves_and_refuses_what_the_page_lists(rows: dict[str, tuple[str, str, str, str]]) -> None:
    served = {name: contexts for name, (_, contexts, state, _) in rows.items() if state == "served"}
    refused = {name: (contexts, why) for name, (_, contexts, state, why) in rows.items() if state == "refused"}
    offered = {name: contexts for name, (contexts, _) in SERVED.items()}
    assert offered | {name: offered.get(name, "") + "AH" for name in ACTION_SERVED} == served
    assert refused == REFUSED


@pytest.mark.parametrize(("kind", "letter"), [("query", "Q"), ("mutation", "M"), ("action", "A")])
def test_a_context_offers_exactly_its_operations(
    rows: dict[str, tuple[str, str, str, str]], kind: str, letter: str
) -> None:
    expected = {name for name, (_, contexts, _, _) in rows.items() if letter in contexts} | OURS | ONLY[letter]
    offered = {name.decode() for name in TABLES[kind]}
    assert {name for name in offered if not name.startswith("crypto/")} == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_its_reason(name: str) -> None:
    contexts, reason = REFUSED[name]
    for kind in (kind for kind, letter in (("query", "Q"), ("mutation", "M"), ("action", "A")) if letter in contexts):
        with pytest.raises(DeveloperError) as caught:
            TABLES[kind][name.encode()](None, b"{}", None)  # type: ignore[arg-type] -- a refusal looks at nothing
        assert caught.value.code == "FeatureNotServed"
        assert caught.value.message == f"{reason[0].upper()}{reason[1:]}."


@pytest.mark.parametrize("name", sorted(WRITES))
def test_a_write_in_a_query_says_that_queries_only_read(name: str) -> None:
    with pytest.raises(DeveloperError) as caught:
        OPERATIONS["query"][name.encode()](None, b"{}", None)  # type: ignore[arg-type] -- it looks at nothing
    assert caught.value.code == "ReadOnlyTransaction"


def test_every_listed_operation_answers_or_fails_for_a_guest(
    scripted: World, rows: dict[str, tuple[str, str, str, str]]
) -> None:
    """Through the package's own door, in queries and mutations: never a crash, never an answer where it is unknown."""
    for name, (_, contexts, state, reason) in rows.items():
        for kind, path, letter in (("query", "f:operation", "Q"), ("mutation", "f:write", "M")):
            result = scripted.call(kind, path, {"op": name})
            if letter not in contexts and name not in WRITES:
                assert f"Unknown async operation {name}\n" in result.error_message
            elif state == "refused":
                assert f"Uncaught Error: {reason[0].upper()}{reason[1:]}.\n" in result.error_message
            elif not result.ok:
                assert "Uncaught Error: " in result.error_message
                assert "Unknown" not in result.error_message


NULLARY = {
    "1.0/getUserIdentity": None,
    "1.0/getFunctionMetadata": {"name": "f:write", "componentPath": ""},
    "1.0/getDeploymentMetadata": {"name": "local", "region": None, "class": "local"},
    "1.0/getRequestMetadata": {
        "ip": "10.1.2.3",
        "userAgent": "tests",
        "requestId": "0123456789abcdef",
        "scheduledFunctionId": None,
        "authToken": None,
    },
}


@pytest.mark.parametrize("name", NULLARY)
def test_what_a_function_may_know_of_its_call(scripted: World, name: str) -> None:
    result = scripted.call("mutation", "f:write", {"op": name}, ip="10.1.2.3", user_agent="tests")
    assert orjson.loads(result.value) == NULLARY[name]


def test_the_identity_is_the_requests(scripted: World) -> None:
    identity = {"tokenIdentifier": "issuer|ada", "subject": "ada", "issuer": "issuer"}
    result = scripted.call("query", "f:operation", {"op": "1.0/getUserIdentity"}, identity=identity)
    assert orjson.loads(result.value) == identity


def test_metrics_count_what_the_call_did(scripted: World) -> None:
    metrics = scripted.query("f:operation", {"op": "1.0/getTransactionMetrics"})
    assert metrics["documentsRead"]["used"] == 0 < metrics["documentsRead"]["remaining"]
