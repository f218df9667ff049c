"""Servers that the tests of sharing start on this machine: files with ranges, a bucket, and a line that misbehaves.

The bucket speaks as much of S3 as pushing and pulling need. Real servers are in programs.py.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEYS = {"AWS_ACCESS_KEY_ID": "LABKEY", "AWS_SECRET_ACCESS_KEY": "LABSECRET", "AWS_REGION": "us-east-1"}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes, and the second waited 40 ms for the first

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give(self, data: bytes, **headers: object) -> None:
        """A file, or the range of it that is asked for."""
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked or not self.server.ranges:  # pyright: ignore[reportAttributeAccessIssue]
            self.answer(200, data, **headers)
            return
        first, last = asked.split("-")
        start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            self.answer(416)
            return
        self.answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}", **headers)


class _Files(_Handler):
    def do_GET(self) -> None:
        server: Any = self.server
        name = unquote(urlsplit(self.path).path).lstrip("/")
        server.asked.append(name)
        if server.before is not None and server.before(self, name):
            return
        path = server.root / name
        if path.is_file():
            self.give(path.read_bytes(), Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")
        else:
            self.answer(404)


class _Bucket(_Handler):
    def handle_any(self) -> None:
        server: Any = self.server
        split = urlsplit(self.path)
        name, query = unquote(split.path), parse_qs(split.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append(f"{self.command} {name}")
        if server.before is not None and server.before(self, name):
            return
        checksum = self.headers.get("x-amz-checksum-sha256")
        if checksum and base64.b64decode(checksum) != hashlib.sha256(body).digest():
            self.answer(400, b"<Error><Code>BadDigest</Code></Error>")
            return
        with server.lock:
            getattr(self, f"_{self.command.lower()}")(server, name, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def _get(self, server: Any, name: str, query: dict, body: bytes) -> None:
        if name not in server.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        data = server.objects[name]
        self.give(data, ETag=f'"{hashlib.md5(data).hexdigest()}"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT")

    _head = _get

    def _put(self, server: Any, name: str, query: dict, body: bytes) -> None:
        if "uploadId" in query:
            server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        elif self.headers.get("If-None-Match") == "*" and name in server.objects and server.exclusive:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        else:
            server.objects[name] = body
        self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def _post(self, server: Any, name: str, query: dict, body: bytes) -> None:
        if "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                server.objects.pop(f"{name.rstrip('/')}/{key}", None)
            text = "<DeleteResult></DeleteResult>"
        elif "uploads" in query:
            key = str(len(server.uploads))
            server.uploads[key] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{key}</UploadId></InitiateMultipartUploadResult>"
        else:
            parts = server.uploads.pop(query["uploadId"][0])
            server.objects[name] = b"".join(parts[number] for number in sorted(parts))
            text = '<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>'
        self.answer(200, text.encode())

    def _delete(self, server: Any, name: str, query: dict, body: bytes) -> None:
        if "uploadId" in query:
            server.uploads.pop(query["uploadId"][0], None)
        else:
            server.objects.pop(name, None)
        self.answer(204)


HANDLER = _Handler  # for servers in other files


class Server(http.server.ThreadingHTTPServer):
    """`asked` is what was asked for; `before(handler, name)` may answer itself and then returns True."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[_Handler], root: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.root, self.objects, self.uploads = root, {}, {}
        self.asked: list[str] = []
        self.before: Callable[[_Handler, str], bool] | None = None
        self.ranges = self.exclusive = True
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Clients that were killed leave broken lines."""

    @property
    def port(self) -> int:
        return self.server_address[1]


@contextlib.contextmanager
def files(root: Path, certificate: Path | None = None) -> Iterator[Server]:
    """A web server that shows a folder; with a certificate (and its key in one file) by TLS."""
    server = Server(_Files, root)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def bucket() -> Iterator[Server]:
    """An empty store; every bucket is there."""
    server = Server(_Bucket)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Line:
    """A line to a server on this machine, in which things happen: `fault(number, sent, piece)` is asked for each.

    `number` counts connections, `sent` the bytes that came from the server on this one. It answers None (nothing),
    "cut" (both ends are dropped), "stall" (nothing comes any more), or "flip" (a bit of the piece is another). `up` is
    asked the same of what goes to the server.
    """

    def __init__(
        self,
        port: int,
        fault: Callable[[int, int, bytes], str | None],
        up: Callable[[int, int, bytes], str | None] = lambda number, sent, piece: None,
    ) -> None:
        self._to, self.fault, self.up, self.count, self.struck = port, fault, up, 0, 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = self._socket.accept()
                self.count += 1
                up = socket.create_connection(("127.0.0.1", self._to))
                for one, other, fault in ((down, up, self.up), (up, down, self.fault)):
                    threading.Thread(target=self._pump, args=(one, other, fault, self.count), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, fault: Callable, number: int) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                what = fault(number, sent, piece)
                self.struck += what is not None
                if what == "cut":
                    break
                if what == "stall":
                    time.sleep(3600)
                if what == "flip":
                    piece = piece[:-1] + bytes([piece[-1] ^ 1])
                target.sendall(piece)
                sent += len(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
