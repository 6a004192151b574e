"""Check the formal models of formal/ with SPIN: the right protocol within bounds, and that planted bugs are found.

python scripts/model.py                 every promise of the models and every planted bug (35 s on two cores)
python scripts/model.py --ci            CI's part: fewer bounds of the right protocol, every planted bug
python scripts/model.py --long          wider bounds as well (some minutes, up to 12 GB)
python scripts/model.py --only outbox   runs whose model or name contains that word
python scripts/model.py --list          what there is to run; --json prints one object per run instead of a table

Exit 1: a run of the right protocol found an error or did not finish, or a planted bug was not found. A trace of each
error of the right protocol is kept and its place printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

PROMISES_HELD = {
    "make model": ("P1", "P2", "P3", "P4", "P5", "P9", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9", "I10", "I13"),
}
FORMAL = Path(__file__).parent.parent / "formal"
TOOLS = ("spin", "gcc")
DEPTH_MAX = 400_000
RUN_S, RUN_LONG_S = 900, 3_600
"""For a search that does not end, not for one on a slow machine: in CI's bounds it takes seconds."""
STATES_MIN = 1_000_000
"""The runs of the right protocol visit at least this many states, or the bounds have become too narrow to mean much."""


Scope = Literal["ci", "usual", "long"]
SCOPES: tuple[Scope, ...] = ("ci", "usual", "long")
"""Each has all that the ones before it have."""


@dataclass(frozen=True)
class Run:
    """One search.

    Args:
        bounds: macros of the model.
        planted: the bug that must be found; None: the right protocol, which must hold.
        live: liveness under weak fairness; else safety and absence of deadlock.
        scope: "ci": in `make test`, too; "usual": `make model`; "long": with `--long` only.
    """

    model: str
    name: str
    bounds: str = ""
    planted: str | None = None
    live: bool = False
    scope: Scope = "ci"


@dataclass(frozen=True)
class Result:
    """What came of a run. `ok`: it holds, or the planted bug was found. `said`: the property that was broken."""

    model: str
    name: str
    planted: str | None
    ok: bool
    states: int
    seconds: float
    said: str


_POWER = "POWER=1 KILLS=0 LAPSES=0"
_POWER_AND_GUEST = f"{_POWER} GUEST=1"
_PAST = "KILLS=1 POWER=0 FINDS=0 REFUSALS=0 PASTS=1"
RIGHT = (
    Run("ownership", "two kills and a lapse", "KILLS=2"),
    Run("ownership", "the record is removed", "CLEANS=1", scope="usual"),
    Run("ownership", "somebody cancels, somebody waits", "CANCEL=1 ASK=1", scope="usual"),
    Run("ownership", "inputs fail in the end", "CHARGES=1 ASK=1 FAILS=1 KILLS=2", scope="usual"),
    Run("ownership", "a metadata writer", "MIRROR=1", scope="usual"),
    Run("ownership", "several lines of several attempts", "LINES=2", scope="usual"),
    Run("ownership", "a kill, then the power fails", "POWER=1 LAPSES=0 ASK=1", scope="usual"),
    Run("ownership", "a lapse, then the power fails", "POWER=1 KILLS=0 ASK=1", scope="usual"),
    Run("ownership", "the power fails, somebody cancels", f"{_POWER} CANCEL=1 ASK=1", scope="usual"),
    Run("ownership", "the power fails under a program's turn", _POWER_AND_GUEST),
    Run("ownership", "two inputs", "INPUTS=2 KILLS=1 LAPSES=0", scope="usual"),
    Run("ownership", "in the end everything is answered and delivered", live=True),
    Run("ownership", "the same when the power fails", "POWER=1 KILLS=0 LAPSES=0", live=True, scope="usual"),
    Run("inbox", "kills and a power loss"),
    Run("inbox", "only the opener syncs", "NETS=1", scope="usual"),
    Run("inbox", "only a duplicate is synced", "NETS=2", scope="usual"),
    Run("outbox", "a platform that can be asked", "KILLS=1"),
    Run("outbox", "one that cannot", "KILLS=1 POWER=0 FINDS=0", scope="usual"),
    Run("outbox", "past a sender that stands still", _PAST, scope="usual"),
    Run("outbox", "in the end it is sent or reported", "KILLS=1 POWER=0 REFUSALS=0", live=True),
    Run("beat", "stopped owners, stopped watchers", "TICKS=20"),
    Run("ownership", "the power fails twice", "POWER=2 KILLS=0 LAPSES=0 ASK=1", scope="long"),
    Run("ownership", "the power fails under a program's lines", f"{_POWER} GUEST=1 LINES=1", scope="long"),
    Run("ownership", "two inputs, a kill, a lapse", "INPUTS=2", scope="long"),
    Run("ownership", "two inputs, the power fails", "INPUTS=2 KILLS=0 LAPSES=0 POWER=1", scope="long"),
    Run("ownership", "metadata and a removed record", "CLEANS=1 MIRROR=1", scope="long"),
    Run("ownership", "lines of a program's turn and of others", "LINES=2 GUEST=1", scope="long"),
    Run("ownership", "cancelled under two kills", "CANCEL=1 ASK=1 KILLS=2", scope="long"),
    Run("ownership", "the power fails under lines", "POWER=1 KILLS=0 LINES=2 ASK=1", scope="long"),
    Run("ownership", "a program's turn, a lapse, the power fails", "POWER=1 KILLS=0 ASK=1 GUEST=1", scope="long"),
    Run("ownership", "a kill, a lapse, the power fails", "POWER=1 ASK=1", scope="long"),
    Run("outbox", "two kills and a power loss", scope="long"),
    Run("outbox", "one that cannot be asked, and a power loss", "KILLS=1 FINDS=0", scope="long"),
    Run("outbox", "the same for refusals and a power loss", "KILLS=1", live=True, scope="long"),
    Run("inbox", "three kills, two power losses", "KILLS=3 POWER=2", scope="long"),
    Run("beat", "three stops", "STOPS=3", scope="long"),
)

PLANTED = (
    Run("ownership", "no fence", "KILLS=2", planted="NO_FENCE"),
    Run("ownership", "the fence is looked at before the lock is taken", "KILLS=2", planted="FENCE_BEFORE_LOCK"),
    Run("ownership", "no write lock", "KILLS=2", planted="NO_WRITE_LOCK"),
    Run("ownership", "no tail repair", "KILLS=2", planted="NO_TAIL_REPAIR"),
    Run("ownership", "no intent", "MIRROR=1", planted="NO_INTENT"),
    Run("ownership", "the baseline is read without the lock", "KILLS=2", planted="BASELINE_WITHOUT_LOCK"),
    Run("ownership", "a claim ignores the final line", _POWER_AND_GUEST, planted="IGNORE_FINAL"),
    Run("ownership", "the predecessor is not closed", "KILLS=2", planted="PREDECESSOR_NOT_CLOSED"),
    Run("ownership", "the record before the ledger", "KILLS=2", planted="RECORD_FIRST"),
    Run("ownership", "an absent record means mine", "CLEANS=1", planted="TRUST_ABSENT_RECORD"),
    Run("ownership", "the record of another boot counts", _POWER_AND_GUEST, planted="TRUST_OLD_BOOT"),
    Run("ownership", "salvage settles unasked", "KILLS=2", planted="SALVAGE_UNASKED"),
    Run("ownership", "salvage asks in two steps", "KILLS=2", planted="SALVAGE_IN_TWO_STEPS"),
    Run("ownership", "salvage counts as final", "KILLS=2", planted="SALVAGE_IS_FINAL"),
    Run("ownership", "ids are reused across attempts", "LINES=2", planted="IDS_REUSED"),
    Run("ownership", "a ledger is rebuilt under live owners", "KILLS=2", planted="REBUILD_UNDER_OWNERS"),
    Run("ownership", "a canceller settles", "CANCEL=1 ASK=1", planted="CANCEL_SETTLES"),
    Run("ownership", "a canceller ends what has run", f"{_POWER} CANCEL=1 ASK=1", planted="CANCEL_UNSEEN"),
    Run("ownership", "delivery without a sync of the final line", "POWER=1 KILLS=0 ASK=1", planted="SETTLE_UNSYNCED"),
    Run("ownership", "a takeover settles without a sync", "POWER=1 LAPSES=0 ASK=1", planted="TAKEOVER_UNSYNCED"),
    Run("ownership", "a takeover that ends inputs is not durable", "POWER=1 ASK=1 CHARGES=1 LAPSES=0",
        planted="CLOSE_UNSYNCED"),
    Run("ownership", "a lost claim is forgotten", _POWER_AND_GUEST, planted="RAN_FORGOTTEN"),
    Run("ownership", "epochs exceed the ledger's only", f"{_POWER} GUEST=1 LINES=1", planted="ANY_NUMBER"),
    Run("ownership", "the old record stays in force", "CHARGES=1 ASK=1 FAILS=1 KILLS=2", planted="RECORD_IN_FORCE"),
    Run("ownership", "an offset outlives the file", "POWER=1 KILLS=0 GUEST=1", planted="OFFSET_KEPT", scope="long"),
    Run("inbox", "early acknowledgement", planted="EARLY_ACKNOWLEDGEMENT"),
    Run("inbox", "a duplicate is acknowledged without a sync", planted="DUPLICATE_UNSYNCED"),
    Run("inbox", "no dedupe", planted="NO_DEDUPE"),
    Run("inbox", "dedupe outside the transaction", planted="DEDUPE_OUTSIDE"),
    Run("outbox", "reconciling while the sender lives", "KILLS=1", planted="RECONCILE_WHILE_SENDER_LIVES"),
    Run("outbox", "reconciling within the request's time", "KILLS=1", planted="RECONCILE_WITHIN_REQUEST_TIME"),
    Run("outbox", "started after the send", "KILLS=1", planted="STARTED_AFTER_SEND"),
    Run("outbox", "started without a sync", "KILLS=1", planted="STARTED_UNSYNCED"),
    Run("outbox", "resent without a label", "KILLS=1 POWER=0 FINDS=0", planted="RESEND_UNLABELLED"),
    Run("outbox", "no compare-and-set", "KILLS=1", planted="NO_COMPARE_AND_SET"),
    Run("outbox", "silence counts as refusal", "KILLS=1", planted="SILENCE_IS_REFUSAL"),
    Run("outbox", "no label past a sender that stands still", _PAST, planted="UNLABELLED_PAST_STALLED"),
    Run("beat", "a watcher trusts a gap", "TICKS=20", planted="GAP_TRUSTED"),
    Run("beat", "a former owner goes on beating", "TICKS=20", planted="SUPERSEDED_BEATS"),
    Run("beat", "beats by the wall clock", "TICKS=20", planted="WALL_CLOCK"),
    Run("beat", "a term shorter than a beat", "TICKS=20", planted="SHORT_TERM"),
)  # fmt: skip


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def check(runs: Sequence[Run], kept: Path) -> Iterator[Result]:
    """Generate and compile the verifier that these runs share, then search with it once for each.

    Traces of errors of the right protocol are copied to `kept`. A verifier that has only planted bugs to find is done
    sooner than it would be optimised.
    """
    with _folder() as folder:
        level = "-O1" if any(run.planted is None or run.scope == "long" for run in runs) else "-O0"
        trouble = _said_by(lambda: _compile(runs[0], folder, level))
        for run in runs:
            began = time.monotonic()
            said = trouble or _said_by(lambda run=run: _search(run, folder))
            result = judge(run, said, time.monotonic() - began)
            if not result.ok and run.planted is None:
                _keep_trace(run, folder, kept)
            yield result


def by_verifier(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one model within the same bounds share a verifier: which bug is planted is told when it starts."""
    groups: dict[tuple[str, str, bool], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.bounds, run.live), []).append(run)
    return list(groups.values())


def _said_by(act: Callable[[], str]) -> str:
    """What it said, or that it failed, in words that `judge` takes for neither."""
    try:
        return act()
    except subprocess.TimeoutExpired as slow:
        return f"pan: not finished after {slow.timeout:.0f} s"
    except subprocess.CalledProcessError as failed:
        return f"pan: {failed.cmd[0]} failed: {(failed.stdout or '')[-500:]} {(failed.stderr or '')[-500:]}"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-model-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(run: Run, folder: Path, level: str) -> str:
    """Nothing, if it went well."""
    model = f"{run.model}.pml"
    shutil.copy(FORMAL / model, folder)
    macros = [f"-D{bound}" for bound in run.bounds.split()] + (["-DLIVE"] if run.live else [])
    _ask(folder, ["spin", *macros, "-a", model], limit_s=RUN_S)
    how = ["-DNFAIR=8"] if run.live else ["-DSAFETY", "-DNOCLAIM"]
    _ask(folder, ["gcc", level, "-w", *how, *_COMPILED_WITH], limit_s=RUN_S)
    return ""


def _search(run: Run, folder: Path) -> str:
    """What the verifier printed."""
    options = ["-a", "-f"] if run.live else []
    hashed = "-w26" if run.scope == "long" else "-w22"
    limit_s = RUN_LONG_S if run.scope == "long" else RUN_S
    search = [str(folder / "pan"), "-n", f"-m{DEPTH_MAX}", hashed, *options]
    return _ask(folder, search, limit_s=limit_s, may_fail=True, planted=number_of(run))


def number_of(run: Run) -> int:
    """By which number the model knows the bug; 0: none."""
    if run.planted is None:
        return 0
    found = re.search(rf"^#define {run.planted} (\d+) ", (FORMAL / f"{run.model}.pml").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{run.model}.pml knows no bug {run.planted}")
    return int(found.group(1))


_COMPILED_WITH = ("-DCOLLAPSE", "-DVECTORSZ=2048", "-o", "pan", "pan.c")


def _ask(folder: Path, command: Sequence[str], *, limit_s: float, may_fail: bool = False, planted: int = 0) -> str:
    """What a tool said. Raises as `subprocess.run` does."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=not may_fail, timeout=limit_s,
        env={**os.environ, "PLANTED": str(planted)},
    )  # fmt: skip
    return done.stdout + done.stderr


def judge(run: Run, said: str, seconds: float) -> Result:
    """A right run holds if the search ended and found nothing; a planted bug counts as found only by a broken property
    of the model, not by a search that failed in some other way.
    """
    states = re.search(r"^\s*([\d.e+]+) states, stored", said, re.MULTILINE)
    count = int(float(states.group(1))) if states else 0
    broken = re.search(r"pan:\d+: (assertion violated .*|acceptance cycle|invalid end state)", said)
    finished = re.search(r"errors: 0\b", said) is not None and "max search depth too small" not in said
    if run.planted is None:
        ok = finished and broken is None and count > 0
        trouble = broken.group(1) if broken else "" if ok else _last_words(said)
    else:
        ok = broken is not None
        trouble = re.sub(r" \(at depth \d+\)", "", broken.group(1)) if broken else "not found"
    return Result(run.model, run.name, run.planted, ok, count, round(seconds, 2), trouble)


def _last_words(said: str) -> str:
    words = [line for line in said.splitlines() if line.startswith(("pan:", "error:")) and "elapsed" not in line]
    return words[-1][:400] if words else "the search did not end"


def _keep_trace(run: Run, folder: Path, kept: Path) -> None:
    trail = folder / f"{run.model}.pml.trail"
    if not trail.exists():
        return
    shown = subprocess.run(
        [str(folder / "pan"), "-r"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PLANTED": "0"},
    )  # fmt: skip
    kept.mkdir(parents=True, exist_ok=True)
    place = kept / f"{run.model}-{re.sub(r'[^a-z]+', '-', run.name)}.txt"
    place.write_text(shown.stdout)
    print(f"  trace: {place}", file=sys.stderr)


def chosen(only: str, scope: Scope) -> list[Run]:
    widest = SCOPES.index(scope)
    runs = [run for run in (*RIGHT, *PLANTED) if SCOPES.index(run.scope) <= widest]
    return [run for run in runs if only.lower() in f"{run.model} {run.name} {run.planted or ''}".lower()]


def show(result: Result) -> str:
    verdict = ("found" if result.ok else "NOT FOUND") if result.planted else ("holds" if result.ok else "BROKEN")
    why = f"  {result.said}" if result.said and not (result.planted and result.ok) else ""
    return (
        f"model  {result.model:<9}  {result.name:<52}  {result.states:>10,} states {result.seconds:>6.1f} s"
        f"  {verdict}{why}"
    )


def summary(results: Sequence[Result], seconds: float) -> str:
    right = [result for result in results if result.planted is None]
    planted = [result for result in results if result.planted is not None]
    return (
        f"model: {sum(r.ok for r in right)} of {len(right)} runs hold, {sum(r.states for r in right):,} states; "
        f"{sum(r.ok for r in planted)} of {len(planted)} planted bugs found; {seconds:.0f} s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--long", action="store_true", help="wider bounds as well")
    scope.add_argument("--ci", action="store_true", help="what `make test` runs")
    parser.add_argument("--only", default="", help="runs whose model or name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object per run")
    parser.add_argument("--list", action="store_true", help="print what there is and run nothing")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--traces", type=Path, default=FORMAL.parent / ".cache" / "model", help="where traces are kept")
    options = parser.parse_args(argv)
    runs = chosen(options.only, "long" if options.long else "ci" if options.ci else "usual")
    if options.list:
        for run in runs:
            print(f"{run.model:<9}  {run.planted or 'right':<30}  {run.name}  {run.bounds}")
        return 0
    if missing := missing_tools():
        print(f"not run: {' and '.join(missing)} for the formal models (apt install spin gcc)")
        return 0
    began = time.monotonic()
    results: list[Result] = []
    with ThreadPoolExecutor(options.workers) as pool:
        for found in pool.map(lambda group: list(check(group, options.traces)), by_verifier(runs)):
            for result in found:
                results.append(result)
                print(json.dumps(asdict(result)) if options.json else show(result), flush=True)
    if not options.json:
        print(summary(results, time.monotonic() - began))
    states = sum(result.states for result in results if result.planted is None)
    if not options.only and states < STATES_MIN:
        print(f"model: only {states:,} states; the bounds have become too narrow", file=sys.stderr)
        return 1
    return 0 if results and all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
