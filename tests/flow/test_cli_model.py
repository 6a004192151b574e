"""`holdfast model` as an operator uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import holdfast as library
from holdfast.cli.main import run

SESSION = "agent:main:main"


@dataclass
class Said:
    """What a command said."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def holdfast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


async def make_state(path: Path) -> None:
    async with library.open(path):
        pass


@pytest.fixture
async def state(tmp_path: Path) -> str:
    await make_state(tmp_path / "state")
    return str(tmp_path / "state")


def test_a_pin_is_set_shown_and_taken_away(holdfast: Run, state: str) -> None:
    assert json.loads(holdfast("--state", state, "--json", "model", "status").out)["pins"] == []
    assert holdfast("--state", state, "model", "pin", SESSION, "demo/backup").out == f"{SESSION}: demo/backup\n"
    again = holdfast("--state", state, "model", "pin", SESSION, "demo/fast", "--for", "60")
    assert again.out == f"{SESSION}: demo/fast (was demo/backup)\n"
    shown = json.loads(holdfast("--state", state, "--json", "model", "status").out)
    [pin] = shown["pins"]
    assert (pin["session"], pin["model"], pin["source"]) == (SESSION, "demo/fast", "user")
    assert pin["expires_at_ms"] is not None
    assert holdfast("--state", state, "model", "unpin", SESSION).out == f"{SESSION}: no longer demo/fast\n"
    gone: Said = holdfast("--state", state, "model", "unpin", SESSION)
    assert (gone.code, gone.out) == (1, f"{SESSION}: was not pinned\n")


def test_a_model_that_leads_nowhere_and_a_key_that_is_not_there_are_refused(holdfast: Run, state: str) -> None:
    nowhere: Said = holdfast("--state", state, "model", "pin", SESSION, "nosuch/model")
    assert (nowhere.code, "nosuch" in nowhere.err) == (1, True), nowhere
    keyless: Said = holdfast("--state", state, "model", "pin", SESSION, "demo/fast", "--key", "MINE")
    assert (keyless.code, "no key 'MINE'" in keyless.err) == (1, True), keyless
    assert json.loads(holdfast("--state", state, "--json", "model", "status").out)["pins"] == []


def test_a_model_in_a_cool_down_is_named_with_why_and_until_when(
    holdfast: Run,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOLDFAST_MODELS_RETRY_S", "0")
    failed: Said = holdfast("--state", state, "send", SESSION, "/fail 429")
    assert failed.code == 1, failed
    shown: Said = holdfast("--state", state, "--json", "model", "status")
    [row] = json.loads(shown.out)["cooldowns"]
    assert (shown.code, row["provider"], row["reason"], row["errors"]) == (1, "demo", "rate_limit", 1)
    assert 0 < row["left_s"] <= 30
    table = holdfast("--state", state, "model", "status").out
    assert "demo" in table
    assert "1 failure in a row" in table
