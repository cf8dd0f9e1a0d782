"""`crypto.subtle` in the guest: published vectors, errors by name, and the same programs in Node, answer by answer."""

# ruff: noqa: E501, ISC004 - the long lines are JavaScript and digests in halves

import json
import subprocess
from pathlib import Path

import pytest

from skerry.bundle.node import find_node
from tests.guest.javascript.conftest import Guest

# Node 20 has a name of its own for one of the errors.
HELPERS = r"""
const subtle = crypto.subtle;
const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => new Uint8Array((text.match(/../g) ?? []).map((pair) => parseInt(pair, 16)));
const utf8 = (text) => new TextEncoder().encode(text);
const nameOf = async (promise) => { try { await promise(); return "no error"; } catch (error) { return error.name.replace("InvalidAccessException", "InvalidAccessError"); } };
const raw = (bytes, algorithm, usages, extractable = true) => subtle.importKey("raw", bytes, algorithm, extractable, usages);
"""

# NIST CAVP and FIPS 180 examples, RFC 4231, RFC 6070 (for SHA-1), RFC 5869, RFC 3394, RFC 8032, RFC 7748, RFC 6979.
VECTORS = {
    "digest": (
        """return await Promise.all(["SHA-1", "sha-256", { name: "SHA-384" }, "SHA-512"].map(async (a) => hex(await subtle.digest(a, utf8("abc")))))""",
        [
            "a9993e364706816aba3e25717850c26c9cd0d89d",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ],
    ),
    "hmac": (
        """const key = await raw(utf8("Jefe"), { name: "HMAC", hash: "SHA-256" }, ["sign", "verify"]);
           const mac = await subtle.sign("HMAC", key, utf8("what do ya want for nothing?"));
           return [hex(mac), await subtle.verify("HMAC", key, mac, utf8("what do ya want for nothing?")), await subtle.verify("HMAC", key, mac, utf8("x"))]""",
        ["5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", True, False],
    ),
    "pbkdf2": (
        """const key = await raw(utf8("password"), "PBKDF2", ["deriveBits"], false);
           return hex(await subtle.deriveBits({ name: "PBKDF2", hash: "SHA-1", salt: utf8("salt"), iterations: 4096 }, key, 160))""",
        "4b007901b765489abead49d926f721d065a429c1",
    ),
    "hkdf": (
        """const key = await raw(unhex("0b".repeat(22)), "HKDF", ["deriveBits"], false);
           const algorithm = { name: "HKDF", hash: "SHA-256", salt: unhex("000102030405060708090a0b0c"), info: unhex("f0f1f2f3f4f5f6f7f8f9") };
           return hex(await subtle.deriveBits(algorithm, key, 42 * 8))""",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    "aes-gcm": (
        """const key = await raw(unhex("feffe9928665731c6d6a8f9467308308"), "AES-GCM", ["encrypt", "decrypt"]);
           const algorithm = { name: "AES-GCM", iv: unhex("cafebabefacedbaddecaf888"), additionalData: unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2") };
           const text = unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
           const sealed = await subtle.encrypt(algorithm, key, text), short = await subtle.encrypt({ ...algorithm, tagLength: 96 }, key, text);
           return [hex(sealed).slice(-32), hex(sealed).startsWith(hex(short)), hex(await subtle.decrypt(algorithm, key, sealed)) === hex(text),
                   hex(await subtle.decrypt({ ...algorithm, tagLength: 96 }, key, short)) === hex(text),
                   await nameOf(() => subtle.decrypt({ ...algorithm, additionalData: new Uint8Array() }, key, sealed))]""",
        ["5bc94fbc3221a5db94fae95ae7121a47", True, True, True, "OperationError"],
    ),
    "aes-cbc": (
        """const key = await raw(unhex("2b7e151628aed2a6abf7158809cf4f3c"), "AES-CBC", ["encrypt", "decrypt"]);
           const algorithm = { name: "AES-CBC", iv: unhex("000102030405060708090a0b0c0d0e0f") };
           const sealed = await subtle.encrypt(algorithm, key, unhex("6bc1bee22e409f96e93d7e117393172a"));
           return [hex(sealed).slice(0, 32), hex(await subtle.decrypt(algorithm, key, sealed)), await nameOf(() => subtle.decrypt(algorithm, key, new Uint8Array(5)))]""",
        ["7649abac8119b246cee98e9b12e9197d", "6bc1bee22e409f96e93d7e117393172a", "OperationError"],
    ),
    "aes-ctr": (
        """const key = await raw(unhex("2b7e151628aed2a6abf7158809cf4f3c"), "AES-CTR", ["encrypt"]);
           const whole = { name: "AES-CTR", counter: unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), length: 128 };
           return [hex(await subtle.encrypt(whole, key, unhex("6bc1bee22e409f96e93d7e117393172a"))),
                   await nameOf(() => subtle.encrypt({ ...whole, length: 1 }, key, new Uint8Array(33)))]""",
        ["874d6191b620e3261bef6864990db6ce", "OperationError"],
    ),
    "aes-kw": (
        """const wrapping = await raw(unhex("000102030405060708090a0b0c0d0e0f"), "AES-KW", ["wrapKey", "unwrapKey"]);
           const key = await raw(unhex("00112233445566778899aabbccddeeff"), "AES-GCM", ["encrypt"]);
           const wrapped = await subtle.wrapKey("raw", key, wrapping, "AES-KW");
           const back = await subtle.unwrapKey("raw", wrapped, wrapping, "AES-KW", "AES-GCM", true, ["encrypt"]);
           return [hex(wrapped), hex(await subtle.exportKey("raw", back)), await nameOf(() => subtle.unwrapKey("raw", unhex("00".repeat(24)), wrapping, "AES-KW", "AES-GCM", true, ["encrypt"]))]""",
        [
            "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5",
            "00112233445566778899aabbccddeeff",
            "OperationError",
        ],
    ),
    "ed25519": (
        """const seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
           const key = await subtle.importKey("pkcs8", unhex("302e020100300506032b657004220420" + seed), "Ed25519", true, ["sign"]);
           const open = await raw(unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"), "Ed25519", ["verify"]);
           const signature = await subtle.sign("Ed25519", key, unhex("72"));
           return [hex(signature), await subtle.verify("Ed25519", open, signature, unhex("72")), await subtle.verify("Ed25519", open, signature, unhex("73"))]""",
        [
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            True,
            False,
        ],
    ),
    "x25519": (
        """const scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4";
           const key = await subtle.importKey("pkcs8", unhex("302e020100300506032b656e04220420" + scalar), "X25519", false, ["deriveBits"]);
           const open = await raw(unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"), "X25519", []);
           return hex(await subtle.deriveBits({ name: "X25519", public: open }, key, 256))""",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    "ecdsa, RFC 6979 A.2.5": (
        """const b64 = (text) => btoa(String.fromCharCode(...unhex(text))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
           const jwk = { kty: "EC", crv: "P-256", d: b64("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"),
             x: b64("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"), y: b64("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299") };
           const key = await subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
           return hex(await subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, utf8("sample")))""",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("kind", ("query", "action"))
def test_vectors(guest: Guest, name: str, kind: str) -> None:
    code, expected = VECTORS[name]
    assert guest.run(kind, HELPERS + code) == expected


# Programs whose answers must be the same here and in Node. Each returns JSON.
DIFFERENTIAL = {
    "errors of algorithms and usages": """
      const key = await raw(new Uint8Array(16), "AES-GCM", ["encrypt"], false), hmac = await raw(new Uint8Array(5), { name: "HMAC", hash: "SHA-1" }, ["sign"]);
      return [
        await nameOf(() => subtle.digest("MD5", new Uint8Array())), await nameOf(() => subtle.digest("SHA-256", "text")),
        await nameOf(() => subtle.decrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, key, new Uint8Array(16))),
        await nameOf(() => subtle.encrypt({ name: "AES-CBC", iv: new Uint8Array(16) }, key, new Uint8Array(16))),
        await nameOf(() => subtle.encrypt({ name: "AES-GCM", iv: new Uint8Array(12), tagLength: 33 }, key, new Uint8Array(16))),
        await nameOf(() => subtle.exportKey("raw", key)),
        await nameOf(() => raw(new Uint8Array(15), "AES-GCM", ["encrypt"])), await nameOf(() => raw(new Uint8Array(16), "AES-GCM", ["sign"])),
        await nameOf(() => raw(new Uint8Array(16), "AES-GCM", [])), await nameOf(() => raw(new Uint8Array(16), "AES-XYZ", ["encrypt"])),
        await nameOf(() => subtle.sign("HMAC", key, new Uint8Array())), await nameOf(() => raw(new Uint8Array(8), "HKDF", ["deriveBits"], true)),
        await nameOf(() => subtle.importKey("spki", new Uint8Array(8), { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"])),
        await nameOf(() => subtle.importKey("raw", new Uint8Array(65), { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"])),
        await nameOf(() => subtle.importKey("jwk", { kty: "oct", k: "AAAA", alg: "HS1" }, { name: "HMAC", hash: "SHA-256" }, true, ["sign"])),
        await nameOf(() => subtle.importKey("jwk", { kty: "RSA", k: "AAAA" }, { name: "HMAC", hash: "SHA-256" }, true, ["sign"])),
        [key.type, key.extractable, key.algorithm.name, key.algorithm.length, [...key.usages]], [hmac.algorithm.length, hmac.algorithm.hash.name],
      ]""",
    "secret keys as JSON Web Keys": """
      const out = [];
      for (const [algorithm, usages] of [[{ name: "HMAC", hash: "SHA-512" }, ["verify", "sign"]], ["AES-GCM", ["decrypt"]], ["AES-KW", ["wrapKey"]]]) {
        const jwk = await subtle.exportKey("jwk", await raw(new Uint8Array(24).fill(0xfb), algorithm, usages));
        out.push(Object.entries(jwk).sort().map(([k, v]) => [k, Array.isArray(v) ? [...v].sort() : v]));
        out.push(hex(await subtle.exportKey("raw", await subtle.importKey("jwk", jwk, algorithm, true, usages))));
      }
      return out""",
    "derived keys": """
      const base = await raw(utf8("secret"), "PBKDF2", ["deriveKey", "deriveBits"], false), out = [];
      for (const target of [{ name: "AES-GCM", length: 256 }, { name: "HMAC", hash: "SHA-256" }, { name: "HMAC", hash: "SHA-512", length: 256 }]) {
        const usages = target.name === "HMAC" ? ["sign"] : ["encrypt"];
        const key = await subtle.deriveKey({ name: "PBKDF2", hash: "SHA-256", salt: utf8("s"), iterations: 3 }, base, target, true, usages);
        out.push(hex(await subtle.exportKey("raw", key)), key.algorithm.length);
      }
      return out""",
    "counter that wraps": """
      const key = await raw(new Uint8Array(32).fill(7), "AES-CTR", ["encrypt"]), out = [];
      for (const length of [1, 4, 8, 64, 128])
        out.push(hex(await subtle.encrypt({ name: "AES-CTR", counter: new Uint8Array(16).fill(255), length }, key, new Uint8Array(length === 1 ? 30 : 100).fill(length))));
      return out""",
}

# Keys that one side makes and the other uses. `make` runs in Node, `use` in the guest; the result of `use` must be `true`s.
EXCHANGE = {
    "RSASSA-PKCS1-v1_5": (
        "{ name: N, modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' }",
        "N",
    ),
    "RSA-PSS": (
        "{ name: N, modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-384' }",
        "{ name: N, saltLength: 0 }",
    ),
    "ECDSA": ("{ name: N, namedCurve: 'P-256' }", "{ name: N, hash: 'SHA-256' }"),
    "ECDSA P-384": ("{ name: N, namedCurve: 'P-384' }", "{ name: N, hash: 'SHA-512' }"),
    "ECDSA P-521": ("{ name: N, namedCurve: 'P-521' }", "{ name: N, hash: 'SHA-1' }"),
    "Ed25519": ("{ name: N }", "N"),
}


def run_in_node(code: str, tmp_path: Path) -> object:
    script = tmp_path / "program.mjs"
    # Node 18 does not have `crypto` as a global.
    header = 'import { webcrypto } from "node:crypto"; globalThis.crypto ??= webcrypto;'
    script.write_text(
        f"{header}\n{HELPERS}\nconst program = async () => {{{code}\n}};\nconsole.log(JSON.stringify(await program()));"
    )
    done = subprocess.run(
        [find_node(print).executable, str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", DIFFERENTIAL)
def test_the_same_as_node(guest: Guest, tmp_path: Path, name: str) -> None:
    assert guest.query(HELPERS + DIFFERENTIAL[name]) == run_in_node(DIFFERENTIAL[name], tmp_path)


@pytest.mark.parametrize("name", EXCHANGE)
def test_signature_keys_travel_both_ways(guest: Guest, tmp_path: Path, name: str) -> None:
    generation, use = EXCHANGE[name]
    prelude = f"const N = {name.split()[0]!r}, use = {use}, algorithm = {generation}, data = utf8('data');"
    make = f"""{prelude}
      const pair = await subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const out = {{ signature: hex(await subtle.sign(use, pair.privateKey, data)), jwk: await subtle.exportKey("jwk", pair.privateKey), open: await subtle.exportKey("jwk", pair.publicKey),
        pkcs8: hex(await subtle.exportKey("pkcs8", pair.privateKey)), spki: hex(await subtle.exportKey("spki", pair.publicKey)) }};
      for (const jwk of [out.jwk, out.open]) delete jwk.alg;
      return out;"""
    made = run_in_node(make, tmp_path)
    assert isinstance(made, dict)
    there = f"""{prelude} const given = {json.dumps(made)};
      const priv = await subtle.importKey("pkcs8", unhex(given.pkcs8), algorithm, true, ["sign"]), pub = await subtle.importKey("spki", unhex(given.spki), algorithm, true, ["verify"]);
      const priv2 = await subtle.importKey("jwk", given.jwk, algorithm, true, ["sign"]), pub2 = await subtle.importKey("jwk", given.open, algorithm, true, ["verify"]);
      const one = await subtle.sign(use, priv, data), two = await subtle.sign(use, priv2, data);
      const jwk = await subtle.exportKey("jwk", priv); delete jwk.alg;
      const same = (a, b) => JSON.stringify(Object.entries(a).sort()) === JSON.stringify(Object.entries(b).sort());
      return {{ checks: [await subtle.verify(use, pub, unhex(given.signature), data), await subtle.verify(use, pub2, one, data), hex(one) === hex(two),
        await subtle.verify(use, pub, one, utf8("other")) === false, same(jwk, given.jwk), hex(await subtle.exportKey("spki", pub2)) === given.spki], one: hex(one) }}"""
    answer = guest.query(HELPERS + there)
    assert answer["checks"] == [True] * 6
    back = f"""{prelude} const pub = await subtle.importKey("spki", unhex({made["spki"]!r}), algorithm, true, ["verify"]);
      return await subtle.verify(use, pub, unhex({answer["one"]!r}), data)"""
    assert run_in_node(back, tmp_path) is True


@pytest.mark.parametrize("curve", ("P-256", "P-384", "P-521", "X25519"))
def test_agreement_with_node(guest: Guest, tmp_path: Path, curve: str) -> None:
    algorithm = "{ name: 'X25519' }" if curve == "X25519" else f"{{ name: 'ECDH', namedCurve: {curve!r} }}"
    make = f"""const a = await subtle.generateKey({algorithm}, true, ["deriveBits"]), b = await subtle.generateKey({algorithm}, true, ["deriveBits"]);
      const bits = await subtle.deriveBits({{ ...{algorithm}, public: b.publicKey }}, a.privateKey, {256 if curve == "X25519" else "null"});
      return {{ key: hex(await subtle.exportKey("pkcs8", b.privateKey)), open: hex(await subtle.exportKey("raw", a.publicKey)), bits: hex(bits) }}"""
    made = run_in_node(make, tmp_path)
    assert isinstance(made, dict)
    use = f"""const key = await subtle.importKey("pkcs8", unhex({made["key"]!r}), {algorithm}, true, ["deriveBits", "deriveKey"]);
      const open = await subtle.importKey("raw", unhex({made["open"]!r}), {algorithm}, true, []);
      const derived = await subtle.deriveKey({{ ...{algorithm}, public: open }}, key, {{ name: "AES-GCM", length: 128 }}, true, ["encrypt"]);
      return [hex(await subtle.deriveBits({{ ...{algorithm}, public: open }}, key)), hex(await subtle.exportKey("raw", derived)), hex(await subtle.exportKey("raw", open))]"""
    bits, derived, open_ = guest.query(HELPERS + use)
    assert (bits, open_) == (made["bits"], made["open"])
    assert derived == made["bits"][:32]


def test_generated_keys_in_actions(guest: Guest) -> None:
    code = """
      const out = [];
      for (const [algorithm, usages] of [["Ed25519", ["sign", "verify"]], [{ name: "ECDSA", namedCurve: "P-256" }, ["sign", "verify"]]]) {
        const { privateKey, publicKey } = await subtle.generateKey(algorithm, false, usages);
        const use = { name: privateKey.algorithm.name, hash: "SHA-256" }, signature = await subtle.sign(use, privateKey, utf8("x"));
        out.push(await subtle.verify(use, publicKey, signature, utf8("x")), publicKey.extractable, privateKey.extractable, [...publicKey.usages]);
      }
      const rsa = await subtle.generateKey({ name: "RSA-OAEP", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, ["encrypt", "decrypt"]);
      const sealed = await subtle.encrypt({ name: "RSA-OAEP", label: utf8("l") }, rsa.publicKey, utf8("secret"));
      out.push(new TextDecoder().decode(await subtle.decrypt({ name: "RSA-OAEP", label: utf8("l") }, rsa.privateKey, sealed)), rsa.publicKey.algorithm.modulusLength);
      out.push(await nameOf(() => subtle.decrypt({ name: "RSA-OAEP" }, rsa.privateKey, sealed)));
      const aes = await subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["wrapKey"]), inner = await subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, true, ["sign"]);
      out.push((await subtle.wrapKey("jwk", inner, aes, { name: "AES-GCM", iv: new Uint8Array(12) })).byteLength > 100, inner.algorithm.length);
      out.push(await nameOf(() => subtle.generateKey("PBKDF2", false, ["deriveBits"])), await nameOf(() => subtle.generateKey("Ed25519", false, ["verify"])));
      return out"""
    assert guest.run("action", HELPERS + code) == [
        True, True, False, ["verify"], True, True, False, ["verify"], "secret", 2048, "OperationError", True, 512,
        "NotSupportedError", "SyntaxError",
    ]  # fmt: skip


def test_randomized_operations_are_refused_in_queries(guest: Guest, tmp_path: Path) -> None:
    make = """const pair = await subtle.generateKey({ name: "RSA-OAEP", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, ["encrypt", "decrypt"]);
      return [hex(await subtle.exportKey("spki", pair.publicKey)), hex(await subtle.exportKey("pkcs8", pair.privateKey)), hex(await subtle.encrypt({ name: "RSA-OAEP" }, pair.publicKey, utf8("t")))]"""
    made = run_in_node(make, tmp_path)
    assert isinstance(made, list)
    spki, pkcs8, sealed = made
    oaep = f"""await subtle.encrypt("RSA-OAEP", await subtle.importKey("spki", unhex({spki!r}), {{ name: "RSA-OAEP", hash: "SHA-256" }}, true, ["encrypt"]), utf8("x"))"""
    pss = f"""const key = await subtle.importKey("pkcs8", unhex({pkcs8!r}), {{ name: "RSA-PSS", hash: "SHA-256" }}, true, ["sign"]);
      await subtle.sign({{ name: "RSA-PSS", saltLength: 32 }}, key, utf8("x"))"""
    for code in (oaep, pss):
        assert guest.error("query", HELPERS + code)["message"].startswith(
            "Can't use cryptographic randomness in queries"
        )
        guest.run("action", HELPERS + code)
    opened = f"""const key = await subtle.importKey("pkcs8", unhex({pkcs8!r}), {{ name: "RSA-OAEP", hash: "SHA-256" }}, true, ["decrypt"]);
      return new TextDecoder().decode(await subtle.decrypt("RSA-OAEP", key, unhex({sealed!r})))"""
    assert guest.query(HELPERS + opened) == "t"


def test_keys_show_nothing(guest: Guest) -> None:
    code = """const key = await raw(new Uint8Array(16), "AES-GCM", ["encrypt"], false);
      try { key.algorithm.name = "AES-KW"; } catch {}
      return [Object.keys(key), JSON.stringify(key), key.algorithm.name, await nameOf(() => structuredClone(key)), await nameOf(() => new CryptoKey())]"""
    assert guest.query(HELPERS + code) == [[], "{}", "AES-GCM", "DataCloneError", "TypeError"]
