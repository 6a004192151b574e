"""The write lock: its settings, its errors, and that it is not taken twice.

Most of these cases speak of a lock file beside the transcript with a process id in it. Ours is a kernel lock: it cannot
be stale, and nothing is cleaned up after its holder. They wait for the protocol that takes OpenClaw's lock file beside
ours.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.config.load import load_config
from holdfast.store.embedded.store import EmbeddedStore
from tests.cases.given import NOT_UNDERSTOOD, WAITING, Case, SetAside, check_set_aside, check_words, each

FILE = "session_lock_cases.json"
KEY = "agent:main:main"
LOCK_FILE = "the protocol of OpenClaw's lock file is not there yet"
AREAS_WAITING = dict.fromkeys(
    ("canonical", "stale", "malformed", "cleanup", "max_hold", "recycled_pid", "signals"), LOCK_FILE
)
CASES_WAITING = dict.fromkeys(("sl-002", "sl-054", "sl-055"), LOCK_FILE)
COMPARED = frozenset(
    ["acquire", "acquire_again", "acquire_timeout_ms", "fields", "max_hold_ms", "message", "message_contains", "name"]
)
NOT_COMPARED = {
    "stale_ms": "a kernel lock is never stale",
    "code": "OpenClaw's own; what failover makes of it is in failover_classification.json",
}


def set_aside(case: Case) -> SetAside | None:
    if case.id in CASES_WAITING:
        return SetAside(WAITING, CASES_WAITING[case.id])
    if case.data["area"] in AREAS_WAITING:
        return SetAside(WAITING, AREAS_WAITING[case.data["area"]])
    known = case.data["area"] in ("config", "errors") or case.id in ("sl-001", "sl-003")
    return None if known else SetAside(NOT_UNDERSTOOD, f"area {case.data['area']!r}")


@contextmanager
def lock_held(path: Path) -> Iterator[None]:
    """Somebody of this process holds the write lock through a handle of his own."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match case.data["area"]:
        case "config":
            must_compose(case, tmp_path)
            await must_open_with(case, tmp_path / "state", monkeypatch)
        case "errors":
            must_tell(case)
        case _:
            await must_wait_for_the_holder(case, tmp_path / "state")


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(case: Case) -> tuple[dict[str, int], dict[str, str]]:
    """What the case sets, by our names: the keys of holdfast.toml, and environment variables."""
    names = {"acquireTimeoutMs": "acquire_timeout_ms", "maxHoldMs": "max_hold_ms"}
    keys = {names[name]: value for name, value in case.setup["config"].items() if name in names}
    variables = {
        f"HOLDFAST_SESSION_WRITE_LOCK_{name}": value
        for name, value in case.setup.get("env", {}).items()
        if name in ("ACQUIRE_TIMEOUT_MS", "MAX_HOLD_MS")
    }
    return keys, variables


def compared(case: Case) -> dict[str, Any]:
    return {name: value for name, value in case.expected.items() if name not in NOT_COMPARED}


def must_compose(case: Case, folder: Path) -> None:
    """Of the gateway's configuration: file, then environment."""
    keys, variables = settings_of(case)
    file = folder / "holdfast.toml"
    file.write_text("[session.write_lock]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items()))
    write_lock = load_config(file, variables).session.write_lock
    assert {name: getattr(write_lock, name) for name in compared(case)} == compared(case)


async def must_open_with(case: Case, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the library: argument, then environment."""
    keys, variables = settings_of(case)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with holdfast.open(state, **keys) as hf:  # pyright: ignore[reportArgumentType]  # both keys are numbers
        assert isinstance(hf.store, EmbeddedStore)
        options = hf.store.options
    assert {name: getattr(options, name) for name in compared(case)} == compared(case)


# ── errors and holders ───────────────────────────────────────────────────────────────────────────────────────────────


def must_tell(case: Case) -> None:
    given, expected = case.setup, case.expected
    error = holdfast.SessionWriteLockTimeoutError(given["lockPath"], given["timeoutMs"], given["owner"])
    assert type(error).__name__ == expected["name"]
    assert str(error).startswith(expected["message"])
    # Their fields are timeoutMs, owner and lockPath.
    assert (error.timeout_ms, error.holder, error.path) == (given["timeoutMs"], given["owner"], given["lockPath"])


async def must_wait_for_the_holder(case: Case, state: Path) -> None:
    """A second taker gets a timeout that says so, and the lock once it is released."""
    timeout_ms = case.setup["acquire"]["timeoutMs"] if isinstance(case.setup["acquire"], dict) else 5
    async with holdfast.open(state, acquire_timeout_ms=timeout_ms) as hf:
        async with hf.turn(KEY) as turn:
            path = Path(turn.transcript.path)
        with lock_held(path):
            with pytest.raises(holdfast.SessionWriteLockTimeoutError) as caught:
                await hf.session(KEY).append_metadata(holdfast.session_info("late"))
            assert case.expected.get("message_contains", "") in str(caught.value)
            assert "late" not in path.read_text()
        if case.expected.get("acquire_again") == "ok":
            await hf.session(KEY).append_metadata(holdfast.session_info("in time"))
            assert "in time" in path.read_text()


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside, AREAS_WAITING, CASES_WAITING)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, NOT_COMPARED)
