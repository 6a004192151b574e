"""TLS to a database, with real handshakes: libpq on our side, OpenSSL on the other, certificates made for the test.

The server from pip is built without TLS, so what answers is a proxy that does the server's half of it (`SSLRequest`,
then TLS) and hands everything on to the server, as poolers and managed databases do.
"""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

import holdfast
from holdfast.errors import StateAwayError
from holdfast.opening import examine
from tests.conformance import postgres_server

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a certificate for `localhost`, and another root that has signed nothing here."""
    folder = tmp_path_factory.mktemp("tls")
    for root in ("root", "stranger"):
        _openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                 "2", "-subj", f"/CN={root}", "-keyout", f"{root}.key", "-out", f"{root}.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    _openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
             "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")  # fmt: skip
    _openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
             "-days", "2", "-extfile", "names", "-out", "server.pem")  # fmt: skip
    return folder


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@contextmanager
def behind_tls(socket_path: str, certificates: Path) -> Iterator[int]:
    """The port of a proxy in front of a server's socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_answer, args=(client, context, socket_path), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _answer(client: socket.socket, context: ssl.SSLContext, socket_path: str) -> None:
    with suppress(OSError, ssl.SSLError), client, socket.socket(socket.AF_UNIX) as server:
        if client.recv(8, socket.MSG_WAITALL) != SSL_REQUEST:
            return
        client.sendall(b"S")
        server.connect(socket_path)
        with context.wrap_socket(client, server_side=True) as safe:
            _pass_on(safe, server)


def _pass_on(safe: ssl.SSLSocket, server: socket.socket) -> None:
    """Both ways, on one thread: OpenSSL's connections are not for two. Until either side ends."""
    while True:
        ready = [safe] if safe.pending() else select.select([safe, server], [], [])[0]
        for one in ready:
            data = one.recv(65536)
            if not data:
                return
            (server if one is safe else safe).sendall(data)


@pytest.fixture
def address(certificates: Path) -> Iterator[str]:
    """A URL of a database behind the proxy, up to its options."""
    with postgres_server.running() as server, postgres_server.database(server) as url:
        facts = conninfo_to_dict(url)
        folder = str(facts.get("host", ""))
        if not folder.startswith("/"):
            pytest.skip("the server that was given is not reached by a socket")
        path = f"{folder}/.s.PGSQL.{facts.get('port') or 5432}"
        with behind_tls(path, certificates) as port:
            yield f"postgresql://{facts.get('user', 'postgres')}@localhost:{port}/{facts['dbname']}?hostaddr=127.0.0.1"


async def test_a_state_is_used_over_tls_that_knows_its_server(address: str, certificates: Path) -> None:
    url = f"{address}&sslmode=verify-full&sslrootcert={certificates / 'root.pem'}"
    async with holdfast.open(url) as hf, hf.turn("agent:main:main") as turn:
        await turn.append(holdfast.user("over TLS"))
    async with holdfast.open_reader(url) as hf:
        assert len(await hf.session("agent:main:main").entries()) == 1
    database = examine(url).database
    assert database is not None
    assert (database.is_encrypted, database.ssl_mode) == (True, "verify-full")


@pytest.mark.parametrize(
    ("root", "host", "told"),
    [
        ("stranger", "localhost", "certificate verify failed"),
        ("root", "database.example", 'server certificate for "localhost" does not match host name "database.example"'),
    ],
)
async def test_a_server_that_is_not_who_it_should_be_is_refused_in_words(
    address: str, certificates: Path, root: str, host: str, told: str
) -> None:
    url = address.replace("@localhost:", f"@{host}:")
    with pytest.raises(StateAwayError) as refused:
        async with holdfast.open(f"{url}&sslmode=verify-full&sslrootcert={certificates / f'{root}.pem'}"):
            pass
    assert told in str(refused.value)
    assert host in str(refused.value)


async def test_a_server_that_takes_only_tls_is_not_talked_to_in_the_clear(address: str) -> None:
    with pytest.raises(StateAwayError):
        async with holdfast.open(f"{address}&sslmode=disable"):
            pass
