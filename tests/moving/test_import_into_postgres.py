"""The same import into a state in PostgreSQL: as much, as often, and with the same branches."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import holdfast
from holdfast.moving import openclaw_tree
from holdfast.moving.bringing import bring_in
from holdfast.moving.conversation import Report
from holdfast.session.branch import active_branch
from tests.conformance import postgres_server
from tests.moving import trees
from tests.moving.test_import import MAIN, texts

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="not run: the server of the tests is for Linux"),
    pytest.mark.xdist_group("postgres"),
]


async def test_conversations_come_into_a_database_once(tmp_path: Path) -> None:
    root = trees.openclaw_database(trees.openclaw(tmp_path / "theirs"))
    with postgres_server.running() as server, postgres_server.database(server) as url:

        async def run() -> Report:
            with ExitStack() as copies:
                found = openclaw_tree.look(root, openclaw_tree.Wanted(), copies)
                async with holdfast.open(url) as hf:
                    return await bring_in(hf, found, str(root), dry=False)

        assert {one.state for one in (await run()).conversations} == {"new"}
        assert {one.state for one in (await run()).conversations} == {"unchanged"}
        async with holdfast.open(url) as hf:
            branch = active_branch(await hf.session(MAIN).lines())
            assert texts(branch.lines) == ["kept", "yes"]
            async with hf.turn(MAIN) as turn:
                await turn.append(holdfast.user("go on"))
                assert [message["role"] for message in await turn.context()] == ["user", "assistant", "user"]
