"""What is thrown away in PostgreSQL goes in batches, so that nobody else's commit waits for all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from holdfast.clock import SystemClock
from holdfast.session import entries as made
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.lives import BATCH_LINES
from holdfast.store.postgres.store import PostgresStore
from holdfast.store.views import ArchiveView
from holdfast.testing.store_suite.words import SESSION, claim
from tests.conformance import postgres_server

LINES = 2 * BATCH_LINES + 500


@pytest.fixture
def url() -> Iterator[str]:
    with postgres_server.running() as server, postgres_server.database(server) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore.open(url, SystemClock(), PostgresOptions())
    yield store
    await store.close()


async def archive_of_many_lines(store: PostgresStore, url: str) -> ArchiveView:
    owned = await claim(store)
    await owned.append(made.user("hello"))
    archive = await store.archive(owned.owned, SESSION, why="asked", by="a test")
    await owned.done()
    assert isinstance(archive, ArchiveView)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            b"insert into holdfast.lines select %s, n, null, '{}', true from generate_series(3, %s) n",
            (archive.name, LINES),
        )
    return archive


def lines_left(url: str, archive: ArchiveView) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(b"select count(*) from holdfast.lines where transcript=%s", (archive.name,)).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_deletion_takes_a_commit_for_each_batch(store: PostgresStore, url: str) -> None:
    archive = await archive_of_many_lines(store, url)
    before = store.writer.figures.commits
    await store.delete_archive(archive.id)
    assert lines_left(url, archive) == 0
    assert store.writer.figures.commits - before == 1 + LINES // BATCH_LINES + 1, "noted, full batches, the rest"
    assert await store.finish_deletions() == 0


async def test_a_deletion_that_a_node_left_half_done_is_carried_on_by_another(store: PostgresStore, url: str) -> None:
    archive = await archive_of_many_lines(store, url)
    await store.begin_delete(archive.id)
    with psycopg.connect(url, autocommit=True) as conn:  # what the first batch of a node that was killed has done
        conn.execute(b"delete from holdfast.lines where transcript=%s and seq<=%s", (archive.name, BATCH_LINES))
    other = PostgresStore.open(url, SystemClock(), PostgresOptions())
    try:
        assert await other.finish_deletions() == 1
    finally:
        await other.close()
    assert lines_left(url, archive) == 0
