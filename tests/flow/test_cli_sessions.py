"""`holdfast sessions …`: listing, titles, archives, retention and routing, as somebody at a terminal meets them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli.main import run

KEY = "agent:main:main"
Holdfast = Callable[..., tuple[int, str, str]]


@pytest.fixture
def holdfast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Holdfast:
    """Runs a command in this process, in an empty folder, without variables of ours. Returns code, output, errors."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(variable)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["--state", "s", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def listed(holdfast: Holdfast) -> dict[str, dict[str, object]]:
    return {view["key"]: view for view in json.loads(holdfast("sessions", "--json")[1])}


def test_a_session_is_renamed_archived_restored_and_deleted(holdfast: Holdfast) -> None:
    assert holdfast("send", KEY, "hello")[0] == 0
    assert holdfast("sessions", "rename", KEY, "Our first talk") == (0, f"{KEY}: Our first talk\n", "")
    assert listed(holdfast)[KEY]["title"] == "Our first talk"
    row = holdfast("sessions")[1].strip().split("\t")
    assert row[:4] == [KEY, "Our first talk", "main", "idle"]

    code, out, _ = holdfast("sessions", "archive", KEY, "--json")
    archive = json.loads(out)
    assert (code, archive["session"], archive["title"], archive["why"]) == (0, KEY, "Our first talk", "asked")
    row = holdfast("sessions")[1].strip().split("\t")
    assert (row[1], row[3].split()[0]) == ("-", "archived")
    code, _, err = holdfast("sessions", "archive", KEY)
    assert code == 1
    assert "there is nothing in it to archive" in err

    assert holdfast("send", KEY, "and again")[0] == 0
    assert holdfast("sessions", "restore", archive["id"])[0] == 0
    assert listed(holdfast)[KEY]["title"] == "Our first talk"
    assert '"hello"' in holdfast("transcript", KEY, "--json")[1]
    [since] = json.loads(holdfast("sessions", "archives", "--json")[1])
    assert since["why"] == "restored over"

    assert holdfast("sessions", "delete", KEY, "--now")[1] == f"{KEY}: deleted with 2 archive(s)\n"
    assert json.loads(holdfast("sessions", "archives", "--json")[1]) == []
    assert holdfast("sessions", "restore", archive["id"])[0] == 1


def test_a_title_is_one_line_and_can_be_taken_away(holdfast: Holdfast) -> None:
    holdfast("send", KEY, "hello")
    for title in ("", "two\nlines", "x" * 201):
        assert holdfast("sessions", "rename", KEY, title)[0] == 1
    assert holdfast("sessions", "rename", KEY)[0] == 2
    assert holdfast("sessions", "rename", KEY, "A title")[0] == 0
    assert holdfast("sessions", "rename", KEY, "--none")[0] == 0
    assert listed(holdfast)[KEY]["title"] is None
    code, _, err = holdfast("sessions", "rename", "agent:main:never", "A title")
    assert code == 1
    assert "no session" in err


def test_a_receipt_that_says_nothing_new_is_not_written_again(holdfast: Holdfast) -> None:
    holdfast("send", KEY, "hello")
    assert holdfast("sessions", "read", KEY, "--by", "alice")[1] == f"{KEY}: noted\n"
    assert holdfast("sessions", "read", KEY, "--by", "alice")[1] == f"{KEY}: was known\n"
    assert holdfast("sessions", "read", KEY, "--by", "bob")[1] == f"{KEY}: noted\n"
    assert holdfast("transcript", KEY, "--json")[1].count("holdfast:read") == 2
    holdfast("send", KEY, "more")
    assert holdfast("sessions", "read", KEY, "--by", "alice")[1] == f"{KEY}: noted\n"


def test_a_reset_begins_anew_in_the_same_transcript(holdfast: Holdfast) -> None:
    holdfast("send", KEY, "hello")
    assert holdfast("sessions", "reset", KEY)[0] == 0
    text = holdfast("transcript", KEY, "--json")[1]
    assert "holdfast:reset" in text


def test_retention_is_told_before_it_is_done(holdfast: Holdfast) -> None:
    """A large transcript of a job is archived past its size; nothing else here is old or large."""
    Path("holdfast.toml").write_text("[retention]\nmachine_mib_max = 0.000001\n", encoding="utf-8")
    holdfast("send", KEY, "hello")
    holdfast("send", "agent:main:cron:report", "hello")
    code, out, _ = holdfast("sessions", "prune", "--dry-run", "--json")
    found = json.loads(out)
    assert (code, [(step["session"], step["step"]["why"]) for step in found["steps"]]) == (
        0, [("agent:main:cron:report", "size")],
    )  # fmt: skip
    assert json.loads(holdfast("sessions", "archives", "--json")[1]) == []
    code, out, _ = holdfast("sessions", "prune")
    assert code == 0
    assert out.strip().endswith("done")
    [archive] = json.loads(holdfast("sessions", "archives", "--json")[1])
    assert (archive["session"], archive["why"]) == ("agent:main:cron:report", "size")
    assert holdfast("sessions", "prune", "--json")[1].count('"steps":[]') == 1


def test_a_budget_that_cannot_be_met_is_told(holdfast: Holdfast) -> None:
    Path("holdfast.toml").write_text("[retention]\ndisk_mib_max = 0.0001\n", encoding="utf-8")
    holdfast("send", KEY, "hello")
    code, out, _ = holdfast("sessions", "prune")
    assert code == 1
    assert "bytes over the budget" in out


def test_where_a_message_would_go_is_told_by_the_configuration(holdfast: Holdfast) -> None:
    Path("holdfast.toml").write_text(
        '[agents.coder]\n[bindings.work]\nagent = "coder"\nchannel = "slack"\n[identities]\n'
        'alice = ["slack:U1", "discord:42"]\n',
        encoding="utf-8",
    )
    code, out, _ = holdfast("sessions", "route", "--channel", "discord", "--peer", "42", "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "agent": "main", "key": "agent:main:discord:direct:42", "home": "agent:main:slack:direct:U1",
            "binding": None, "person": "alice",
        },
    )  # fmt: skip
    out = holdfast("sessions", "route", "--channel", "slack", "--kind", "channel", "--peer", "C1")[1]
    assert out.splitlines()[:2] == ["agent: coder", "session: agent:coder:slack:channel:C1"]
