"""Moving in: what is over there is here afterwards, line for line; over there nothing has changed; twice is once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.config.load import read_config
from holdfast.moving import openclaw_config, openclaw_tree, plain
from holdfast.moving.bringing import IMPORTED_TYPE, bring_in
from holdfast.moving.conversation import Conversation, Found, Report
from holdfast.moving.toml_text import as_toml
from holdfast.session.branch import active_branch
from tests.moving import trees

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOATIME"), reason="not run: access times are kept on Linux only")
MAIN = "agent:main:main"


async def run(state: Path, root: Path, *, dry: bool = False, agent: str | None = None) -> Report:
    with ExitStack() as copies:
        found = openclaw_tree.look(root, openclaw_tree.Wanted(agent=agent), copies)
        if dry and not state.exists():
            return await bring_in(None, found, str(root), dry=True)
        async with holdfast.open(state) as hf:
            return await bring_in(hf, found, str(root), dry=dry)


def texts(lines: Any) -> list[str]:
    said = [json.loads(line.raw)["message"]["content"] for line in lines if line.type == "message"]
    return [one if isinstance(one, str) else "".join(part.get("text", "") for part in one) for one in said]


async def lines_of(state: Path, key: str) -> list[Any]:
    async with holdfast.open_reader(state) as hf:
        return await hf.session(key).lines()


async def test_a_state_directory_comes_in_whole_and_stays_as_it_was(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    before = trees.fingerprint(root)
    report = await run(state, root)
    assert trees.fingerprint(root) == before
    assert {one.key: one.state for one in report.conversations} == dict.fromkeys((
        MAIN, "agent:main:telegram:group:-100:thread:7", "agent:main:discord:direct:42",
        "agent:main:imported:s-nameless", "agent:main:imported:s-was.reset.2026-05-01T10-00-00.000Z",
    ), "new")  # fmt: skip
    assert texts(await lines_of(state, MAIN)) == ["hello", "hi", "hi", "more", "so be it"]
    theirs = {json.loads(raw)["id"] for raw in (root / "agents/main/sessions/s-main.jsonl").read_bytes().splitlines()
              if b"torn" not in raw}  # fmt: skip
    assert theirs - {"s-main"} <= {line.id for line in await lines_of(state, MAIN)}
    async with holdfast.open_reader(state) as hf:
        views = {view.key: view for view in await hf.sessions()}
        assert views[MAIN].title == "At home"
        pins = {pin.session: pin for pin in await hf.store.pin_facts()}
    async with holdfast.open(state) as hf:
        queue = await hf.queue_settings(MAIN)
    assert (pins[MAIN].model, pins[MAIN].source, pins[MAIN].origin) == ("anthropic/claude-opus-4-6", "user", None)
    auto = pins["agent:main:telegram:group:-100:thread:7"]
    assert (auto.model, auto.source, auto.origin) == ("openai/gpt-5", "auto", "anthropic/claude")
    assert (queue.mode, queue.debounce_ms) == ("collect", 900)


async def test_a_bad_line_is_named_and_kept(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    report = await run(state, root)
    [main] = [one for one in report.conversations if one.key == MAIN]
    assert [one.partition(":")[0] for one in main.bad] == ["line 5"]
    assert any(b'{\\"type\\":\\"message\\",\\"id\\":\\"torn' in line.raw for line in await lines_of(state, MAIN))
    assert [one.bad for one in report.conversations if one.key != MAIN] == [()] * 4


async def test_a_second_run_changes_nothing_and_a_dry_one_neither(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    looked = await run(state, root, dry=True)
    assert not state.exists()
    first = await run(state, root)
    assert [(one.key, one.state, one.lines) for one in looked.conversations] == [
        (one.key, one.state, one.lines) for one in first.conversations
    ]
    transcripts = {path: path.read_bytes() for path in state.rglob("*.jsonl")}
    for dry in (False, True):
        again = await run(state, root, dry=dry)
        assert {one.state for one in again.conversations} == {"unchanged"}
        assert {path: path.read_bytes() for path in state.rglob("*.jsonl")} == transcripts


async def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """However many lines of it had been written: the whole is the same as of a run that was not cut off."""
    root = trees.openclaw(tmp_path / "theirs")
    whole = tmp_path / "whole"
    await run(whole, root)
    wanted = [line.id for line in await lines_of(whole, MAIN) if line.kind != "header" and _is_theirs(line)]
    raws = (root / "agents/main/sessions/s-main.jsonl").read_bytes().splitlines()
    for cut in (1, 3, len(wanted) - 1):
        state = tmp_path / f"cut-{cut}"
        broken = Found((Conversation(MAIN, "x", BreaksOff(raws, cut)),))
        async with holdfast.open(state) as hf:
            with pytest.raises(OSError, match="the disk"):
                await bring_in(hf, broken, "", dry=False, batch_bytes=1)
        assert [line.id for line in await lines_of(state, MAIN) if line.kind != "header"] == wanted[:cut]
        report = await run(state, root)
        [main] = [one for one in report.conversations if one.key == MAIN]
        assert main.state == "continued"
        found = [line.id for line in await lines_of(state, MAIN) if line.kind != "header" and _is_theirs(line)]
        assert found == wanted


class BreaksOff:
    """Lines that can be read twice, for looking; the third time the disk fails behind some of them."""

    def __init__(self, raws: list[bytes], cut: int) -> None:
        self._raws = raws
        self._cut = cut
        self._times = 0

    def __call__(self) -> Iterator[bytes]:
        self._times += 1
        for number, raw in enumerate(self._raws):
            if self._times == 3 and number > self._cut:
                raise OSError("the disk")
            yield raw


def _is_theirs(line: Any) -> bool:
    return line.type not in ("session_info",) and line.custom_type != IMPORTED_TYPE


async def test_what_was_said_there_since_is_added_unless_somebody_spoke_here(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    await run(state, root)
    path = root / "agents/main/sessions/s-main.jsonl"
    trees.append(path, trees.user("aaaa0006", "aaaa0005", "and then"))
    report = await run(state, root)
    assert [(one.state, one.lines) for one in report.conversations if one.key == MAIN] == [("continued", 1)]
    branch = active_branch(await lines_of(state, MAIN))
    assert texts(branch.lines)[-2:] == ["so be it", "and then"]
    async with holdfast.open(state) as hf, hf.turn(MAIN) as turn:
        await turn.append(holdfast.user("said here"))
        await turn.append(holdfast.assistant("heard here", model="demo/demo"))
    trees.append(path, trees.user("aaaa0007", "aaaa0006", "said there"))
    report = await run(state, root)
    assert [one.state for one in report.conversations if one.key == MAIN] == ["gone on"]
    assert report.has_findings
    assert "said there" not in texts(await lines_of(state, MAIN))


async def test_another_conversation_under_the_same_key_is_left_alone(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    async with holdfast.open(state) as hf, hf.turn(MAIN) as turn:
        await turn.append(holdfast.user("mine"))
        await turn.append(holdfast.assistant("yours", model="demo/demo"))
    report = await run(state, root)
    assert [one.state for one in report.conversations if one.key == MAIN] == ["another"]
    assert texts(await lines_of(state, MAIN)) == ["mine", "yours"]
    moved = await run(state, root, agent="claw")
    assert [one.state for one in moved.conversations if one.key == "agent:claw:main"] == ["new"]


async def test_an_imported_conversation_goes_on_with_its_context(tmp_path: Path) -> None:
    root, state = trees.openclaw(tmp_path / "theirs"), tmp_path / "state"
    await run(state, root)
    async with holdfast.open(state) as hf, hf.turn(MAIN) as turn:
        await turn.append(holdfast.user("do you remember"))
        shown = [message["role"] for message in await turn.context()]
    assert shown == ["user", "assistant", "user", "assistant", "user"]


async def test_a_database_of_a_newer_release_comes_in_with_its_active_branch(tmp_path: Path) -> None:
    root, state = trees.openclaw_database(tmp_path / "theirs"), tmp_path / "state"
    before = trees.fingerprint(root)
    report = await run(state, root)
    assert trees.fingerprint(root) == before
    assert {one.key: one.state for one in report.conversations} == {MAIN: "new", "agent:main:imported:w1": "new"}
    lines = await lines_of(state, MAIN)
    assert texts(lines) == ["kept", "yes", "taken back", "oh"]
    assert texts(active_branch(lines).lines) == ["kept", "yes"]
    assert any("waited for their turn" in remark for remark in report.remarks)
    assert {one.state for one in (await run(state, root)).conversations} == {"unchanged"}


async def test_sessions_of_nanobot_and_hermes_come_in(tmp_path: Path) -> None:
    state = tmp_path / "state"
    nanobot, hermes = trees.nanobot(tmp_path / "nanobot"), trees.hermes(tmp_path / "hermes")
    before = trees.fingerprint(nanobot), trees.fingerprint(hermes)
    states = list[str]()
    for _ in range(2):
        with ExitStack() as copies:
            found = (
                plain.look_at_nanobot(nanobot, agent="main"),
                plain.look_at_hermes(hermes, agent="main", copies=copies),
            )
            async with holdfast.open(state) as hf:
                states = [
                    one.state for each in found for one in (await bring_in(hf, each, "", dry=False)).conversations
                ]
    assert states == ["unchanged", "unchanged"]
    assert (trees.fingerprint(nanobot), trees.fingerprint(hermes)) == before
    roles = [json.loads(line.raw)["message"]["role"] for line in await lines_of(state, "agent:main:telegram:direct:42")
             if line.type == "message"]  # fmt: skip
    assert roles == ["user", "assistant", "toolResult", "assistant"]
    old = await lines_of(state, "agent:main:telegram:dm:7")
    assert texts(old) == ["long ago", "indeed", "summary: we met", "and now?", "now it goes on"]
    assert texts(active_branch(old).lines) == ["summary: we met", "and now?", "now it goes on"]


async def test_chat_messages_as_json_lines_come_in(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    trees.write(file, [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}, b"no json at all",
        {"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "bye"}]},
    ])  # fmt: skip
    found = plain.look_at_jsonl(file, session="agent:main:old", agent="main")
    async with holdfast.open(tmp_path / "state") as hf:
        await bring_in(hf, found, "", dry=False)
    lines = await lines_of(tmp_path / "state", "agent:main:old")
    assert texts(lines) == ["hello", "hi", "bye"]
    assert sum(line.custom_type == plain.NOTE_TYPE for line in lines) == 2
    assert any(b"no json at all" in line.raw for line in lines)


def test_a_configuration_becomes_one_of_ours_without_its_secrets(tmp_path: Path) -> None:
    found = openclaw_config.translate(openclaw_config.read_json5(trees.CONFIG))
    text = as_toml(found.tables, head="x")
    assert "secret" not in text
    file = tmp_path / "holdfast.toml"
    file.write_text(text)
    config = read_config(file, {}).config
    assert (config.models.default, config.models.fallbacks) == ("anthropic/claude-sonnet-4-6", ("openai/gpt-5.4",))
    assert config.heartbeat.target == "telegram:1234"
    assert config.session.reset.daily_at == "04:00"
    assert config.queue.channels["discord"].mode == "collect"
    assert config.channels["telegram"].allow_from == ("123456789",)
    assert dict(found.secrets) == {
        "PROXY_API_KEY": "models.providers.proxy.apiKey", "TELEGRAM_BOT_TOKEN": "channels.telegram.botToken",
    }  # fmt: skip
    left = [path.partition(":")[0] for path in found.left]
    assert left == ["agents.defaults.thinkingDefault", "messages.ackReaction", "channels.whatsapp", "gateway",
                    "agents.list[quick].skills"]  # fmt: skip


@pytest.mark.parametrize(
    "value", ["a", 'quote " and \\ slash', "line\nbreak", "ünï 🦞", "\x7f", 3, 1.5, True, ["a", 1], ""]
)
def test_what_is_written_as_toml_is_read_back(value: Any) -> None:
    tables = {"table": {"a key": {"plain": value, "x.y": value}}}
    assert tomllib.loads(as_toml(tables)) == tables


def test_the_command_tells_people_and_programs(tmp_path: Path) -> None:
    root = trees.openclaw(tmp_path / "theirs")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / "holdfast", "--state", str(tmp_path / "state"), "import", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = command("openclaw", str(root), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [one["state"] for one in said["conversations"]] == ["new"] * 5
    assert said["config"]["written"] == str(tmp_path / "state" / "holdfast.toml")
    assert (tmp_path / "state" / "holdfast.toml").stat().st_mode & 0o777 == 0o600
    again = command("openclaw", str(root))
    assert again.returncode == 0
    assert "(5 unchanged): 0 lines, 0 bytes written" in again.stdout
    nothing = command("openclaw", str(tmp_path / "state"))
    assert nothing.returncode == 1
    assert "name OpenClaw's state directory" in nothing.stderr
