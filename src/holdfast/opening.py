"""The library's way in: picks the backend by the state's name, and nothing else."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from holdfast.clock import Clock, SystemClock, epoch_ms
from holdfast.errors import ConfigError, InputError
from holdfast.kernel import Holdfast
from holdfast.lane.policy import LaneLimits
from holdfast.recovery.watching import WatchSettings

if TYPE_CHECKING:
    from holdfast.doctor.facts import StateFacts
    from holdfast.session.lock_file import ProcessFacts
    from holdfast.store.copying.carried import Copied
    from holdfast.store.embedded.faults import Faults
    from holdfast.store.embedded.openclaw_lock import LockFiles
    from holdfast.store.protocol import Store
    from holdfast.store.views import Saved

ACQUIRE_TIMEOUT_MS = 60_000
MAX_HOLD_MS = 300_000
STALE_MS = 1_800_000


@asynccontextmanager
async def open(  # noqa: A001  # `holdfast.open` is the name people look for
    state: str | os.PathLike[str],
    *,
    fence_mode: str = "strict",
    clock: Clock | None = None,
    limits: LaneLimits | None = None,
    acquire_timeout_ms: int | None = None,
    max_hold_ms: int | None = None,
    lock_protocol: str | None = None,
    stale_ms: int | None = None,
    beat_s: float = 15.0,
    beat_term_s: float = 90.0,
    turn_max_s: float = 172_800.0,
    disk_patience_s: float | None = None,
    keep_days: float = 90.0,
    kind: str = "library",
    watch: WatchSettings | None = None,
    faults: Faults | None = None,
    processes: Callable[[int], ProcessFacts] | None = None,
) -> AsyncIterator[Holdfast]:
    """Open a state directory (made if needed) and yield the handle.

    Args:
        state: a folder on a local disk, or the URL of a PostgreSQL database.
        fence_mode: "strict": a foreign turn found in a prompt window stops ours; "warn": we go on after it, loudly.
        limits: lane widths and depths; all processes of a state should use the same.
        acquire_timeout_ms: longest wait for the write lock; None: `HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS`,
        else 60,000.
        max_hold_ms: a holder past it is reported; None: `HOLDFAST_SESSION_WRITE_LOCK_MAX_HOLD_MS`, else 300,000.
        lock_protocol: "openclaw": each append also takes OpenClaw's lock file beside the transcript, by its rules; all
            processes of a state should. "none" does not. None: `HOLDFAST_SESSION_LOCK_PROTOCOL`, else "none".
        stale_ms: a lock file of OpenClaw's created longer ago is taken over; as its `session.writeLock.staleMs`. None:
            `HOLDFAST_SESSION_WRITE_LOCK_STALE_MS`, else 1,800,000.
        beat_s, beat_term_s: how often turns show life; how long a beat must be watched standing still to count as
        lapsed.
        disk_patience_s: for how long an append is tried again that the disk refuses for a reason that may pass (busy,
            full); 0: not at all; None: 15.
        keep_days: for how long the stories of ended turns are kept, for `why` and lists; 0: for ever. Messages, answers
            and dedupe keys are kept in any case.
        kind: what this process is, for people ("library", "gateway", "cli").
        watch: how turns that stand still are told of, and for which sessions recovery is left to somebody outside.
            None: told of after 2 minutes, and none.
        faults: called at the named points of `store/embedded/faults.py`; for tests of what survives a crash.
        processes: tells about process ids, for the rules of OpenClaw's lock files; for tests.

    Raises:
        ResourceError: the folder cannot be used; the message says why. StateVersionError: written by a newer release.
        InputError, ConfigError: an argument or environment variable that makes no sense; or `lock_protocol` is
            "openclaw" in a process that OpenClaw would not take for one of its own (the message says what to do).
    """
    if fence_mode not in ("strict", "warn"):
        raise InputError(f'fence_mode is "strict" or "warn", not {fence_mode!r}')
    where = os.fspath(state)
    clock, watch = clock or SystemClock(), watch or WatchSettings()
    if "://" in where:
        refuse_address(where)
        from holdfast.store.postgres.core import PostgresOptions
        from holdfast.store.postgres.store import PostgresStore

        tried = PostgresOptions(
            limits=limits or LaneLimits(), beat_s=beat_s, beat_term_s=beat_term_s, turn_max_s=turn_max_s,
            keep_days=keep_days, kind=kind, faults=faults or (lambda _: None), is_left=watch.is_left,
        )  # fmt: skip
        store = PostgresStore.open(where, clock, tried)
        made = Holdfast(store, clock=clock, fence_mode=fence_mode, watch=watch, beat_term_s=beat_term_s)
        async with _opened(made) as hf:
            yield hf
        return
    from holdfast.store.embedded.faults import no_faults
    from holdfast.store.embedded.patience import PATIENCE_S
    from holdfast.store.embedded.sections import defer_terminal_stops
    from holdfast.store.embedded.store import EmbeddedStore, StoreOptions

    if kind != "library":  # our own commands: Ctrl-Z stops them only between two holdings of a lock
        defer_terminal_stops()

    hold_ms = _milliseconds("MAX_HOLD_MS", max_hold_ms, MAX_HOLD_MS, os.environ)
    lock_files = _lock_files(lock_protocol, stale_ms, hold_ms, processes, os.environ)
    options = StoreOptions(
        limits=limits or LaneLimits(),
        acquire_timeout_ms=_milliseconds("ACQUIRE_TIMEOUT_MS", acquire_timeout_ms, ACQUIRE_TIMEOUT_MS, os.environ),
        max_hold_ms=hold_ms,
        beat_s=beat_s,
        beat_term_s=beat_term_s,
        turn_max_s=turn_max_s,
        disk_patience_s=PATIENCE_S if disk_patience_s is None else disk_patience_s,
        keep_days=keep_days,
        kind=kind,
        lock_files=lock_files,
        faults=faults or no_faults,
        is_left=watch.is_left,
    )
    store = EmbeddedStore.open(Path(where), clock, options)
    async with _opened(Holdfast(store, clock=clock, fence_mode=fence_mode, watch=watch, beat_term_s=beat_term_s)) as hf:
        yield hf


@asynccontextmanager
async def _opened(hf: Holdfast) -> AsyncIterator[Holdfast]:
    await hf.start()
    try:
        yield hf
    finally:
        await hf.close()


def refuse_address(url: str) -> None:
    """Raises InputError: no engine is known by that name, or its library is not installed."""
    scheme = url.split("://", maxsplit=1)[0]
    if scheme not in ("postgres", "postgresql"):
        raise InputError(f"{scheme}:// states are not supported by this release; give a folder or a postgres:// URL")
    if importlib.util.find_spec("psycopg") is None:
        raise InputError(f"{scheme}:// states need the extra `postgres`: pip install 'holdfast[postgres]'")


@asynccontextmanager
async def open_reader(state: str | os.PathLike[str], *, clock: Clock | None = None) -> AsyncIterator[Holdfast]:
    """Open a state for looking only: sessions, transcripts, inputs, turns, deliveries, `why`. Nothing in it changes,
    not even a time stamp, whether somebody uses it or not. What would write raises AttributeError.

    Raises:
        InputError: there is no state. ResourceError: it cannot be read. StateVersionError: written by a newer release.
    """
    where, clock = os.fspath(state), clock or SystemClock()
    if "://" in where:
        refuse_address(where)
        from holdfast.store.postgres.reading import ReadOnlyStore

        store = ReadOnlyStore(where, clock)
    else:
        from holdfast.store.embedded.reader import open_to_look

        store = open_to_look(Path(where), clock)
    try:
        yield Holdfast(cast("Store", store), clock=clock)  # the reading half of one
    finally:
        await store.close()


def examine(
    state: str | os.PathLike[str],
    *,
    clock: Clock | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> StateFacts:
    """What `holdfast doctor` judges of a state: its ledger, files and disk, as they are. Nothing in it changes. Blocks.

    Args:
        progress: told what is looked at, how much of it is done, and how much there is (bytes of transcripts).

    Raises:
        InputError: there is no state. ResourceError: it cannot be read. StateVersionError: written by a newer release.
    """
    where = os.fspath(state)
    if "://" in where:
        refuse_address(where)
        from holdfast.store.postgres import examining

        return examining.examine(where, clock or SystemClock(), progress)
    if not Path(where).exists():
        raise InputError(f"no state at {where}: start with `holdfast up` or `send`, or name another with --state")
    from holdfast.store.embedded.examining import examine

    return examine(Path(where), epoch_ms((clock or SystemClock()).now()), progress)


def _lock_files(
    protocol: str | None,
    stale_ms: int | None,
    max_hold_ms: int,
    processes: Callable[[int], ProcessFacts] | None,
    environ: Mapping[str, str],
) -> LockFiles | None:
    """How OpenClaw's lock files are taken; None: they are not, and nothing of it is loaded."""
    protocol = protocol or environ.get("HOLDFAST_SESSION_LOCK_PROTOCOL", "").strip() or "none"
    if protocol == "none":
        return None
    if protocol != "openclaw":
        raise InputError(f'lock_protocol is "none" or "openclaw", not {protocol!r}')
    from holdfast.store.embedded.openclaw_lock import LockFiles, facts_of

    stale = _milliseconds("STALE_MS", stale_ms, STALE_MS, environ)
    lock_files = LockFiles(stale, max_hold_ms, processes or facts_of)
    lock_files.refuse_if_not_taken_for_openclaw()
    return lock_files


def _milliseconds(name: str, given: int | None, default: int, environ: Mapping[str, str]) -> int:
    """Environment first, then the argument, then the default; zero or less falls back to the default."""
    variable = f"HOLDFAST_SESSION_WRITE_LOCK_{name}"
    text = environ.get(variable, "").strip()
    if text:
        try:
            value = int(text)
        except ValueError:
            raise ConfigError([f"{variable}: {text!r} is not a whole number of milliseconds"]) from None
        return value if value > 0 else default
    return given if given is not None and given > 0 else default


def backup(
    state: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    with_token: bool = False,
    clock: Clock | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Saved:
    """Copy a state, which may be in use, into the new file `to`, mode 0600, compressed if its name ends in `.gz`. It is
    there whole or not at all; nothing in the state changes. Blocks.

    Args:
        with_token: put the gateway's token in as well.
        progress: told what is copied, bytes so far, bytes in all.

    Raises:
        InputError: something is at `to` already, or it lies in the state. ResourceError: no state, or the disk refused.
    """
    _refuse_url(state)
    from holdfast.store.embedded.backup import make_backup

    return make_backup(Path(state), Path(to), clock or SystemClock(), with_token=with_token, progress=progress)


def restore(
    backup: str | os.PathLike[str],
    state: str | os.PathLike[str],
    *,
    hold: bool = True,
    clock: Clock | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Saved:
    """Make a state directory from a backup, whole or not at all. Blocks.

    Args:
        state: must not be there, or be empty.
        hold: work is held back until `release`: the state that was backed up may have gone on since.

    Raises:
        InputError: `state` is in use; the file is no backup, incomplete or changed. ResourceError: the disk refused.
    """
    _refuse_url(state)
    from holdfast.store.embedded.backup import restore_backup

    return restore_backup(Path(backup), Path(state), clock or SystemClock(), hold=hold, progress=progress)


def copy(
    source: str,
    target: str,
    *,
    hold: bool = True,
    clock: Clock | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
    faults: Callable[[str], None] = lambda _: None,
) -> Copied:
    """Copy a state between a folder and a PostgreSQL database: the same rows, the same bytes in each transcript. The
    source stays as it is. Killed at any point, the same call goes on; before it has ended nobody can open the target.
    Blocks.

    Args:
        source, target: a folder and a URL, or a URL and a folder. The target must be empty.
        hold: work is held back in the target until `release`: the source may go on by mistake.
        progress: told what is copied, how much of it is done, and how much there is.
        faults: called at named points; for tests.

    Raises:
        InputError: both are of one kind; a process lives in one of them; the target is in use; there is no source.
        ResourceError: the database or the disk refused.
    """
    clock = clock or SystemClock()
    if ("://" in source) == ("://" in target):
        with_what = "pg_dump and pg_restore" if "://" in source else "`holdfast backup` and `holdfast restore`"
        raise InputError(f"copy goes between a folder and a postgres:// URL; between two alike use {with_what}")
    refuse_address(source if "://" in source else target)
    if "://" in target:
        from holdfast.store.copying import into_database

        return into_database.copy(Path(source), target, clock, hold=hold, progress=progress, faults=faults)
    from holdfast.store.copying import into_folder

    return into_folder.copy(source, Path(target), clock, hold=hold, progress=progress, faults=faults)


def _refuse_url(state: str | os.PathLike[str]) -> None:
    kind, is_url, _ = os.fspath(state).partition("://")
    if is_url:
        raise InputError(
            f"{kind}:// states are backed up with their database's own tools: `pg_dump --schema=holdfast` and"
            " `pg_restore`; `holdfast copy --from URL --to FOLDER` makes a state directory of one, which `holdfast"
            " backup` packs"
        )
