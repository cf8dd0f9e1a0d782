"""TLS with an authority of the test's own: names and certificates are verified, and the name goes to the server."""

import asyncio
import datetime
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from skerry.egress import EgressBounds, system_tls
from tests.egress.world import (
    LOOPS,
    OUTSIDE,
    code_of,
    egress,
    fault_of,
    get,
    loaded,
    names,
    redirect,
    reply,
    run,
    serving,
)

NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Authority:
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: x509.Name = field(
        default_factory=lambda: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    )

    def certificate(self) -> x509.Certificate:
        builder = _builder(self.name, self.name, self.key.public_key(), NOT_AFTER)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context(
            cadata=self.certificate().public_bytes(serialization.Encoding.PEM).decode()
        )
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def server(self, *hosts: str, until: datetime.datetime = NOT_AFTER) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [
            x509.DNSName(host) if host[-1].isalpha() else x509.IPAddress(ip_address(host)) for host in hosts
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = (
            _builder(subject, self.name, key.public_key(), until)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        return loaded(context, certificate.public_bytes(serialization.Encoding.PEM), private)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(until)
    )


AUTHORITY = Authority()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_name_is_sent_and_verified(loop: str) -> None:
    async def work() -> None:
        context = AUTHORITY.server("a.test", OUTSIDE)
        asked: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: asked.append(name)
        async with serving(reply(), tls=context) as server, egress(server.port, tls=AUTHORITY.trusting) as way:
            _, body = await get(way, f"https://a.test:{server.port}/")
            assert body == b"hello"
            assert server.seen[0].header("Host") == f"a.test:{server.port}"
            await get(way, f"https://a.test.:{server.port}/")
            await get(way, f"https://{OUTSIDE}:{server.port}/")
            assert asked == ["a.test", "a.test", None]

    run(work(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("url", ["https://b.test:PORT/", f"https://{OUTSIDE}:PORT/"])
def test_a_certificate_for_another_name_is_refused(url: str, loop: str) -> None:
    async def work() -> None:
        context = AUTHORITY.server("a.test")
        async with serving(reply(), tls=context) as server, egress(server.port, tls=AUTHORITY.trusting) as way:
            fault = await fault_of(get(way, url.replace("PORT", str(server.port))))
            assert fault.code == "EgressFailed"
            assert "certificate" in fault.message
            assert not server.seen

    run(work(), loop)


def test_unknown_and_outdated_certificates_are_refused() -> None:
    async def work() -> None:
        yesterday = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
        for context in (Authority().server("a.test"), AUTHORITY.server("a.test", until=yesterday)):
            async with serving(reply(), tls=context) as server, egress(server.port, tls=AUTHORITY.trusting) as way:
                assert await code_of(get(way, f"https://a.test:{server.port}/")) == "EgressFailed"
        async with serving(reply(), tls=AUTHORITY.server("a.test")) as server, egress(server.port) as way:
            assert await code_of(get(way, f"https://a.test:{server.port}/")) == "EgressFailed"

    run(work())


def test_a_redirect_is_verified_under_its_own_name() -> None:
    async def work() -> None:
        context = AUTHORITY.server("a.test")
        async with serving(reply(), tls=context) as server, egress(server.port, tls=AUTHORITY.trusting) as way:
            server.answer = redirect(f"https://b.test:{server.port}/")
            assert await code_of(get(way, f"https://a.test:{server.port}/")) == "EgressFailed"
            assert len(server.seen) == 1

    run(work())


def test_a_connection_for_one_name_is_not_used_for_another() -> None:
    """Both names lead to the same address and port; the certificate was verified for one of them."""

    async def work() -> None:
        context = AUTHORITY.server("a.test", "b.test")
        async with serving(reply(), tls=context) as server, egress(server.port, tls=AUTHORITY.trusting) as way:
            for host in ("a.test", "a.test", "b.test"):
                await get(way, f"https://{host}:{server.port}/")
            first, second, third = (seen.peer for seen in server.seen)
            assert first == second != third

    run(work())


def test_a_server_that_does_not_speak_tls() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async def work() -> None:
        plain = await asyncio.start_server(answering, OUTSIDE, 0)
        port = plain.sockets[0].getsockname()[1]
        async with egress(port, tls=AUTHORITY.trusting) as way:
            assert await code_of(get(way, f"https://a.test:{port}/")) == "EgressFailed"
        plain.close()
        await plain.wait_closed()
        listener = await asyncio.start_server(silent, OUTSIDE, 0)
        port = listener.sockets[0].getsockname()[1]
        async with egress(port, bounds=EgressBounds(connect_seconds=0.1), tls=AUTHORITY.trusting) as way:
            assert await code_of(get(way, f"https://a.test:{port}/")) == "EgressTimedOut"
        listener.close()
        await listener.wait_closed()

    run(work())


def test_http_to_a_tls_port_fails() -> None:
    async def work() -> None:
        async with serving(reply(), tls=AUTHORITY.server("a.test")) as server, egress(server.port) as way:
            assert await code_of(get(way, f"http://a.test:{server.port}/")) == "EgressFailed"

    run(work())


def test_the_contexts_of_the_process_verify() -> None:
    context = system_tls()
    assert context is system_tls()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_large_body_over_tls() -> None:
    async def work() -> None:
        body = bytes(range(256)) * 8000
        resolve = names({"a.test": [OUTSIDE]})
        tls = AUTHORITY.server("a.test")
        async with (
            serving(reply(body), tls=tls) as server,
            egress(server.port, tls=AUTHORITY.trusting, resolve=resolve) as way,
        ):
            assert (await get(way, f"https://a.test:{server.port}/"))[1] == body

    run(work())
