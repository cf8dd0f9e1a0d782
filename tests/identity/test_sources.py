"""Where keys come from: a provider on loopback, asked through the deployment's real way out."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from skerry import limits
from skerry.errors import SystemFault
from skerry.identity import User, sources
from skerry.identity.sources import fresh_seconds
from tests.identity import signing
from tests.identity.court import NOW_S, Court, run
from tests.identity.scripted_provider import DISCOVERY, ScriptedProvider, scripted_provider

AGAIN_S = limits.AUTH_KEYS_AGAIN_SECONDS_MIN


def oidc(provider: ScriptedProvider) -> dict[str, Any]:
    return {"domain": provider.domain, "applicationID": signing.AUDIENCE}


def token_of(provider: ScriptedProvider, number: int = 0, **changes: Any) -> bytes:
    return signing.sign(signing.claims(NOW_S, iss=provider.domain, **changes), "RS256", number)


def test_many_tokens_that_come_at_once_ask_once() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            court = Court(oidc(provider), way_out=way_out)
            tokens = [token_of(provider, sub=f"user-{number}") for number in range(20)]
            found = await asyncio.gather(*[court.ask(token) for token in tokens])
            assert [user.identity["subject"] for user in found if isinstance(user, User)] == [
                f"user-{number}" for number in range(20)
            ]
            assert provider.asked == {DISCOVERY: 1, "/keys": 1}
            assert court.charged_ns > 0, "what a verification takes is the deployment's"

    run(work())


def test_a_token_is_verified_once_until_it_expires_or_the_keys_change() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"), cache_control="max-age=100000")
            court = Court(oidc(provider), way_out=way_out)
            token = token_of(provider)
            for _ in range(5):
                await court.identity(token)
            assert court.authority.verifications == 1
            court.now_s += 600 + limits.AUTH_CLOCK_SKEW_SECONDS
            assert await court.refusal(token) == (
                "Unauthenticated", "Could not verify OIDC token claim. Check the token: it has expired."
            )  # fmt: skip
            court.now_s -= 300
            await court.identity(token)
            court.authority.use(())
            assert (await court.refusal(token))[0] == "NoAuthProvider"

    run(work())


def test_keys_that_a_provider_has_taken_back_end_with_their_time() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"), cache_control="public, max-age=120, must-revalidate")
            court = Court(oidc(provider), way_out=way_out)
            token = token_of(provider)
            await court.identity(token)
            provider.serve_keys(signing.public_jwk("RS256", 1))
            court.now_s += 119
            await court.identity(token)
            court.now_s += 1
            assert "unknown kid 'key-0'" in (await court.refusal(token))[1]
            assert provider.asked["/keys"] == 2
            await court.identity(token_of(provider, 1))

    run(work())


def test_an_unknown_kid_asks_again_and_not_for_each_token() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            court = Court(oidc(provider), way_out=way_out)
            await court.identity(token_of(provider))
            provider.serve_keys(signing.public_jwk("RS256", 1))
            court.now_s += AGAIN_S - 0.5
            for _ in range(10):
                assert "unknown kid 'key-1'" in (await court.refusal(token_of(provider, 1)))[1]
            assert provider.asked["/keys"] == 1
            court.now_s += 0.5
            assert (await court.identity(token_of(provider, 1)))["subject"] == "ada"
            for number in range(2, 12):
                await court.refusal(token_of(provider, number))
            assert provider.asked["/keys"] == 2

    run(work())


def test_a_provider_that_is_down_is_done_without_for_a_while() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"), cache_control="max-age=60")
            court = Court(oidc(provider), way_out=way_out)
            holds = {"exp": NOW_S + 10**6}
            await court.identity(token_of(provider, **holds))
            provider.answer(DISCOVERY, {}, 503)
            court.now_s += 60 + limits.AUTH_KEYS_STALE_SECONDS_MAX - 1
            await court.identity(token_of(provider, **holds))
            court.now_s += 1
            code, message = await court.refusal(token_of(provider, **holds))
            assert code == "AuthProviderDiscoveryFailed" and "status 503" in message
            asked = provider.asked[DISCOVERY]
            for _ in range(10):
                await court.refusal(token_of(provider, **holds))
            assert provider.asked[DISCOVERY] == asked, "it is not asked for each token"
            provider.serve_keys(signing.public_jwk("RS256"))
            court.now_s += AGAIN_S
            await court.identity(token_of(provider, **holds))

    run(work())


def test_so_many_tokens_wait_and_no_more() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            provider.held.clear()
            court = Court(oidc(provider), way_out=way_out)
            token = token_of(provider)
            waiting = [court.ask(token) for _ in range(limits.AUTH_TOKENS_WAITING_MAX)]
            refused = await court.ask(token)
            assert isinstance(refused, SystemFault) and refused.code == "TooManyConcurrentRequests"
            provider.held.set()
            assert all(isinstance(user, User) for user in await asyncio.gather(*waiting))
            assert court.authority.verifications < 3 + len(waiting)

    run(work())


def test_who_waits_hears_that_the_deployment_closes() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.held.clear()
            court = Court(oidc(provider), way_out=way_out)
            waiting = court.ask(token_of(provider))
            await provider.came.wait()
            court.authority.close()
            assert (await court.refusal(token_of(provider)))[0] == "ShuttingDown"
            outcome = await waiting
            assert isinstance(outcome, SystemFault) and outcome.code == "ShuttingDown"

    run(work())


def test_verified_tokens_are_kept_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from skerry.identity import authority

    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            court = Court(oidc(provider), way_out=way_out)
            tokens = [token_of(provider, sub=f"user-{number}") for number in range(4)]
            size = 3 * len(tokens[0]) + 512
            monkeypatch.setattr(authority, "AUTH_VERIFIED_BYTES_MAX", 3 * size)
            for token in tokens[:3] + tokens[:3]:
                await court.identity(token)
            assert court.authority.verifications == 3
            await court.identity(tokens[3])
            for token in tokens[1:]:
                await court.identity(token)
            assert court.authority.verifications == 4, "the one that was not asked for longest made room"
            await court.identity(tokens[0])
            assert court.authority.verifications == 5

    assert limits.AUTH_VERIFIED_BYTES_MAX > 100 * limits.AUTH_TOKEN_BYTES_MAX
    run(work())


def _too_many(count: int) -> bytes:
    return signing.jwks(*[signing.public_jwk("ES256", kid=f"key-{number}") for number in range(count)])


def _padded(size: int) -> bytes:
    raw = signing.jwks(signing.public_jwk("RS256"))
    return raw + b" " * (size - len(raw))


def test_keys_at_their_bounds() -> None:
    async def work() -> None:
        for body in (_too_many(limits.AUTH_KEYS_MAX), _padded(limits.AUTH_KEYS_BYTES_MAX)):
            async with scripted_provider() as (provider, way_out):
                provider.serve_keys()
                provider.answer("/keys", body)
                court = Court(oidc(provider), way_out=way_out)
                algorithm = "RS256" if b"RSA" in body else "ES256"
                await court.identity(signing.sign(signing.claims(NOW_S, iss=provider.domain), algorithm))

    run(work())


Change = Callable[[ScriptedProvider], None]
FAULTS: dict[str, tuple[Change, str]] = {
    "not found": (lambda p: p.answers.clear(), "status 404"),
    "an error": (lambda p: p.answer("/keys", {}, 500), "status 500"),
    "a redirect inward": (
        lambda p: p.answer("/keys", {}, 302, location="http://169.254.169.254/latest/meta-data"),
        "EgressFailed",
    ),
    "a redirect to itself": (lambda p: p.answer("/keys", {}, 307, location="/keys"), "EgressFailed"),
    "a page": (lambda p: p.answer("/keys", b"<html>", content_type="text/html"), "content type text/html"),
    "garbage": (lambda p: p.answer("/keys", b"\x00\xff{"), "Invalid JWKS response body: not valid JSON"),
    "nothing": (lambda p: p.answer("/keys", b""), "Invalid JWKS response body: not valid JSON"),
    "half of it": (lambda p: p.answer("/keys", signing.jwks(signing.public_jwk("RS256"))[:-9]), "not valid JSON"),
    "too deep": (lambda p: p.answer("/keys", b'{"keys":' + b"[" * 9000 + b"]" * 9000 + b"}"), "nested more than"),
    "a list": (lambda p: p.answer("/keys", []), "a list of keys"),
    "keys in an object": (lambda p: p.answer("/keys", {"keys": {}}), "a list of keys"),
    "no keys": (lambda p: p.answer("/keys", {"keys": []}), "no key for"),
    "shared secrets": (
        lambda p: p.answer("/keys", {"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}]}),
        "no key for",
    ),
    "keys of other kinds": (
        lambda p: p.answer("/keys", {"keys": [1, None, {}, {"kty": []}, {"kty": "RSA"}]}),
        "no key",
    ),
    "one key too many": (lambda p: p.answer("/keys", _too_many(limits.AUTH_KEYS_MAX + 1)), "more than"),
    "one byte too many": (lambda p: p.answer("/keys", _padded(limits.AUTH_KEYS_BYTES_MAX + 1)), "more than"),
    "a hundred megabytes": (lambda p: p.answer("/keys", b" " * 100_000_000), "more than"),
    "another issuer": (
        lambda p: p.answer(DISCOVERY, {"issuer": signing.ISSUER, "jwks_uri": p.domain + "/keys"}),
        "another issuer",
    ),
    "no issuer": (lambda p: p.answer(DISCOVERY, {"jwks_uri": p.domain + "/keys"}), "another issuer"),
    "no address of keys": (lambda p: p.answer(DISCOVERY, {"issuer": p.domain}), "names no jwks_uri"),
    "keys inside": (
        lambda p: p.answer(DISCOVERY, {"issuer": p.domain, "jwks_uri": "http://169.254.169.254/keys"}),
        "EgressRefused",
    ),
    "keys in a file": (
        lambda p: p.answer(DISCOVERY, {"issuer": p.domain, "jwks_uri": "file:///etc/passwd"}),
        "must be an https address",
    ),
    "keys over plain http elsewhere": (
        lambda p: p.answer(DISCOVERY, {"issuer": p.domain, "jwks_uri": "http://example.com/keys"}),
        "https address",
    ),
    "keys with a password": (
        lambda p: p.answer(DISCOVERY, {"issuer": p.domain, "jwks_uri": "https://a:b@example.com/"}),
        "https address",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_provider_that_answers_otherwise(name: str) -> None:
    change, words = FAULTS[name]

    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            change(provider)
            court = Court(oidc(provider), way_out=way_out)
            code, message = await court.refusal(token_of(provider))
            assert code == "AuthProviderDiscoveryFailed" and words in message, message

    run(work())


def test_a_provider_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "AUTH_FETCH_SECONDS_MAX", 0.05)

    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.held.clear()
            court = Court(oidc(provider), way_out=way_out)
            code, message = await court.refusal(token_of(provider))
            assert code == "AuthProviderDiscoveryFailed" and "no answer within" in message

    assert limits.AUTH_FETCH_SECONDS_MAX < limits.EGRESS_TOTAL_SECONDS_MAX
    run(work())


def test_a_provider_that_the_policy_does_not_allow() -> None:
    async def work() -> None:
        async with scripted_provider(allow=False) as (provider, way_out):
            provider.serve_keys(signing.public_jwk("RS256"))
            code, message = await Court(oidc(provider), way_out=way_out).refusal(token_of(provider))
            assert code == "AuthProviderDiscoveryFailed" and "EgressRefused" in message
            assert not provider.asked
            code, message = await Court(oidc(provider)).refusal(token_of(provider))
            assert code == "AuthProviderDiscoveryFailed" and "reaches no network" in message

    run(work())


def test_a_custom_provider_over_the_network() -> None:
    async def work() -> None:
        async with scripted_provider() as (provider, way_out):
            provider.answer("/keys", signing.jwks(signing.public_jwk("ES256")), content_type="application/jwk-set+json")
            trusted = {
                "type": "customJwt", "issuer": signing.ISSUER, "jwks": provider.domain + "/keys", "algorithm": "ES256"
            }  # fmt: skip
            court = Court(trusted, way_out=way_out)
            token = signing.sign(signing.claims(NOW_S, aud=None), "ES256")
            assert (await court.identity(token))["issuer"] == signing.ISSUER
            assert provider.asked == {"/keys": 1}

    run(work())


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        (None, limits.AUTH_KEYS_FRESH_SECONDS),
        ("max-age=300", 300),
        ("s-maxage=5, max-age=300", 300),
        ("max-age=0", limits.AUTH_KEYS_FRESH_SECONDS_MIN),
        (f"max-age={limits.AUTH_KEYS_FRESH_SECONDS_MIN - 1}", limits.AUTH_KEYS_FRESH_SECONDS_MIN),
        (f"max-age={limits.AUTH_KEYS_FRESH_SECONDS_MAX + 1}", limits.AUTH_KEYS_FRESH_SECONDS_MAX),
        ("max-age=99999999999999999999", limits.AUTH_KEYS_FRESH_SECONDS_MAX),
        ("No-Store", limits.AUTH_KEYS_FRESH_SECONDS_MIN),
        ("max-age=-5", limits.AUTH_KEYS_FRESH_SECONDS),
    ],
)
def test_how_long_keys_are_fresh(control: str | None, seconds: float) -> None:
    assert fresh_seconds([] if control is None else [("cache-control", control)]) == seconds
