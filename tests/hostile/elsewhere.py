"""A server that actions fetch from, on a port that the policy allows: each path is one kind of bad peer."""

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIB = 1 << 20


class _Peer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        try:
            PATHS.get(path, _plain)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the library asks for this name

    def send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.wfile.write(piece)
        self.close_connection = True


def _plain(peer: _Peer) -> None:
    peer.rfile.read(int(peer.headers.get("Content-Length", "0")))
    peer.close_connection = peer.headers.get("Transfer-Encoding") is not None
    peer.send(200, b"plain")


def _heads(peer: _Peer) -> None:
    names = sorted(name.lower() for name in peer.headers)
    peer.send(200, f"{peer.command} {','.join(names)} {peer.headers.get_all('Host')}".encode())


def _to(location: str, status: int = 302) -> Callable[[_Peer], None]:
    return lambda peer: peer.send(status, b"", ("Location", location))


def _bomb(peer: _Peer) -> None:
    body = gzip.compress(bytes(200 * MIB), 6)
    peer.send(200, body, ("Content-Encoding", "gzip"))


def _endless(peer: _Peer) -> None:
    peer.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(4096):
        peer.wfile.write(chunk)


def _silent(peer: _Peer) -> None:
    peer.rfile.read(1)


OK = b"HTTP/1.1 200 OK\r\n"
PATHS: dict[str, Callable[[_Peer], None]] = {
    "/heads": _heads,
    "/to-loopback": _to("http://127.0.0.1:22/"),
    "/to-name": _to("http://localhost:9/"),
    "/to-metadata": _to("http://169.254.169.254/latest/meta-data/", 307),
    "/to-six": _to("http://[::ffff:127.0.0.1]:9/"),
    "/to-file": _to("file:///etc/passwd"),
    "/to-itself": _to("/to-itself"),
    "/to-crooked": _to("http://[:::1/"),
    "/to-user": _to("http://user:secret@127.0.0.1:9/"),
    "/bomb": _bomb,
    "/endless": _endless,
    "/silent": _silent,
    "/two-lengths": lambda peer: peer.raw(OK, b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello"),
    "/length-and-chunks": lambda peer: peer.raw(
        OK, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "/length-too-long": lambda peer: peer.raw(OK, b"Content-Length: 500\r\n\r\nshort"),
    "/chunk-crooked": lambda peer: peer.raw(OK, b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n"),
    "/head-endless": lambda peer: peer.raw(OK, *[b"X-%d: " % i + b"y" * 1000 + b"\r\n" for i in range(200)], b"\r\n"),
    "/head-no-http": lambda peer: peer.raw(b"\x16\x03\x01\x00 nothing like it\r\n\r\n"),
    "/gzip-broken": lambda peer: peer.send(200, b"\x1f\x8b\x08nothing", ("Content-Encoding", "gzip")),
    "/set-cookie": lambda peer: peer.send(200, b"cookie", ("Set-Cookie", "owned=1; Domain=.com")),
}


class Elsewhere:
    """The server on a thread. Close it."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Peer)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
