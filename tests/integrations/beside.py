"""Frameworks whose pins do not go with ours have environments of their own: `.venv/agents`.

`make` makes one when a test first needs it. Their tests are modules named `beside_….py`, which pytest does not collect
by itself; `run` has an interpreter of that environment run them, in one process.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE_S_MAX = 240.0
UNREACHABLE = ("dns error", "error sending request", "failed to connect", "network is unreachable", "timed out")
"""How uv says that there is no network; anything else is a fault, and so is this where `CI` is set."""


def python_of(name: str) -> Path:
    """The interpreter of an environment; made if it is not there. Fails or skips, with the reason, if it cannot be."""
    folder = Path(sys.prefix) / name
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    with (Path(sys.prefix) / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest processes may want it at once
        command = ["make", "--no-print-directory", f"VENV={sys.prefix}", f"{folder}/.made"]
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=MAKE_S_MAX)
    if made.returncode != 0:
        why = f"make {folder}/.made failed: {' '.join(made.stderr.split())[-600:]}"
        if not os.environ.get("CI") and any(word in why.lower() for word in UNREACHABLE):
            pytest.skip(f"the environment {name!r} needs a network: {why}")
        pytest.fail(why)
    return folder / "bin" / "python"


def environment_of(name: str, state: Path) -> dict[str, str]:
    """What a process of such an environment finds: this source, and a home of its own for what frameworks write."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OPENAI"))}
    home = state / f"home-{name}"
    home.mkdir(exist_ok=True)
    return {
        **kept, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "HOME": str(home),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }  # fmt: skip


def run(name: str, modules: list[str], state: Path, *options: str) -> None:
    """Run test modules in an environment; what fails there fails here, with what it printed."""
    paths = [str(ROOT / "tests" / "integrations" / f"{module}.py") for module in modules]
    command = [
        str(python_of(name)), "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "--confcutdir", str(Path(__file__).parent), "--basetemp", str(state / "tests"), *options, *paths,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment_of(name, state), capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"in the environment {name!r}:\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}", pytrace=False)
