"""`ConvexProviderWithAuth` and `useConvexAuth` of the unmodified npm client, with tokens that the test signs itself."""

import json
import shutil
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from tests.client.browser import chromium_or_skip
from tests.client.stand import Stand, standing
from tests.client.test_hooks import APP, bundle_page, does, shown, shows
from tests.http.apps import build

ISSUER = "https://tokens.test"
AUDIENCE = "hooks"
ASKED_MAX = 8  # a client that begins anew without an end asks more often than this within a second


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """An issuer of tokens, whose key the app names in its `auth.config.ts`."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        x, y = (_text(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        key = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "one", "alg": "ES256", "use": "sig"}
        jwks = f"data:application/json;base64,{b64encode(json.dumps({'keys': [key]}).encode()).decode()}"
        provider = {
            "type": "customJwt",
            "issuer": ISSUER,
            "applicationID": AUDIENCE,
            "jwks": jwks,
            "algorithm": "ES256",
        }
        self.config = f"export default {json.dumps({'providers': [provider]})};\n"

    def token(self, subject: str, *, issuer: str = ISSUER, seconds: int = 3600) -> str:
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "name": subject.upper(),
            "iat": now,
            "exp": now + seconds,
        }
        signed = ".".join(_text(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "one"}, claims))
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def stand(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    chromium = chromium_or_skip()
    folder = tmp_path_factory.mktemp("signing")
    shutil.copytree(APP, folder / "app")
    (folder / "app" / "convex" / "auth.config.ts").write_text(signer.config)
    with standing(Stand, chromium, folder, build(folder / "app", folder / "app.skerry")) as stand:
        yield stand


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bundle_page(tmp_path_factory.mktemp("page")).as_uri()


def state(who: str | None) -> dict[str, object]:
    return {"isAuthenticated": who is not None, "isLoading": False, "who": who}


def test_who_signs_in_is_known_until_they_sign_out(stand: Stand, address: str, signer: Signer) -> None:
    page = stand.open_page(f"{address}?server={stand.server.url}&scene=account&list=none")
    shows(page, state(None))
    for who in ("ada", "grace"):
        does(page, "signIn", signer.token(who))
        shows(page, state(who))
        assert does(page, "whoWrites", {}) == who.upper()
    does(page, "signIn", None)
    shows(page, state(None))
    assert does(page, "whoWrites", {}) is None
    # Nobody is shown as somebody else, nor as signed in while the server does not know them.
    assert all(each["who"] is not None for each in shown(page) if each and each["isAuthenticated"] and "who" in each)
    stand.close_pages()


def test_they_are_known_after_the_server_was_killed(stand: Stand, address: str, signer: Signer) -> None:
    page = stand.open_page(f"{address}?server={stand.server.url}&scene=account&list=none")
    shows(page, state(None))
    does(page, "signIn", signer.token("ada"))
    shows(page, state("ada"))
    stand.kill()
    stand.start()
    assert does(page, "whoWrites", {}) == "ADA"
    shows(page, state("ada"))
    stand.close_pages()


@pytest.mark.parametrize("wrong", [{"issuer": "https://other.test"}, {"seconds": -60}])
def test_a_token_that_is_refused_signs_nobody_in_and_ends_in_peace(
    stand: Stand, address: str, signer: Signer, wrong: dict[str, object]
) -> None:
    page = stand.open_page(f"{address}?server={stand.server.url}&scene=account&list=none")
    shows(page, state(None))
    does(page, "signIn", signer.token("mallory", **wrong))  # type: ignore[arg-type]  # by name
    page.until("document.body.dataset.asked >= 2")  # it was refused, and the client has asked for a better one
    assert does(page, "whoWrites", {}) is None
    shows(page, state(None))
    assert int(page.evaluate("document.body.dataset.asked")) <= ASKED_MAX
    assert not any(each and each["isAuthenticated"] for each in shown(page))
    stand.close_pages()
