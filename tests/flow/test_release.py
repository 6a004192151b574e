"""What is released: wheel and sdist hold what they should, and the wheel works in an environment with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from holdfast.cli.root import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def test_wheel_and_sdist_are_built_and_the_wheel_runs_in_a_bare_environment(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path)
    assert built.returncode == 0, built.stderr
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"holdfast/py.typed", "holdfast/gateway/pages/dashboard.js"} <= names
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".pyc")]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "tests/conftest.py", "requirements/dev.lock"} <= inside

    bare = tmp_path / "bare"
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("not run: uv is not there")
    assert run(uv, "venv", "--python", sys.executable, bare).returncode == 0
    install = [
        uv,
        "pip",
        "install",
        "--python",
        bare / "bin" / "python",
        "--constraint",
        "requirements/run.lock",
        wheel,
    ]
    done = run(*install, "--offline")
    if done.returncode != 0:
        done = run(*install)
    assert done.returncode == 0, done.stderr
    holdfast = bare / "bin" / "holdfast"
    state = tmp_path / "state"
    assert run(holdfast, "--version").stdout.startswith("holdfast ")
    sent = run(holdfast, "--state", state, "send", "agent:main:main", "hello", cwd=tmp_path)
    assert (sent.returncode, sent.stdout.strip()) == (0, "echo #1: hello"), sent.stderr
    refused = run(holdfast, "--state", state, "up", cwd=tmp_path)
    assert refused.returncode != 0
    assert "holdfast[gateway]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_manual_page_has_every_command() -> None:
    drawn = run(sys.executable, "scripts/man.py")
    assert drawn.returncode == 0, drawn.stderr
    assert [name for name in COMMANDS if f'.SS "{name}"' not in drawn.stdout] == []
    assert '.SS "sessions archives"' in drawn.stdout
    known = (".TH", ".SH", ".SS", ".B", ".RI", ".PP", ".TP", "\\&")
    assert [line for line in drawn.stdout.splitlines() if line[0] in ".'" and not line.startswith(known)] == []
