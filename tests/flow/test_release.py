"""What is released: wheel and sdist hold what they should, and the wheel works in an environment with nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import holdfast
from holdfast.cli.root import COMMANDS

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    usual = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**usual, **env}, capture_output=True, text=True, check=False
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


def test_the_version_is_a_semantic_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?", holdfast.__version__)


def test_workflow_files_are_what_github_takes_and_leave_no_door_open() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert files
    tools = Path(sys.executable).parent
    known = run(tools / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    assert known.returncode == 0, known.stdout + known.stderr
    safe = run(tools / "zizmor", "--offline", "--quiet", ROOT / ".github" / "workflows")
    assert safe.returncode == 0, safe.stdout + safe.stderr


def test_a_wrong_workflow_file_would_be_found(tmp_path: Path) -> None:
    tools, wrong = Path(sys.executable).parent, tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - runn: make test\n")
    assert run(tools / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", wrong).returncode != 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_what_completes_commands(shell: str) -> None:
    """The script that a shell loads, and what it asks for then: commands, those of a group, options."""
    tool = Path(sys.executable).parent / "holdfast"
    script = run(tool, env={"_HOLDFAST_COMPLETE": f"{shell}_source"})
    assert script.returncode == 0, script.stderr
    assert "_HOLDFAST_COMPLETE" in script.stdout
    asked_for = {"holdfast mod": "model", "holdfast model un": "unpin", "holdfast import openclaw --dr": "--dry-run"}
    for words, wanted in asked_for.items():
        typed = words.split()
        asked = {"_HOLDFAST_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1)}
        if shell == "fish":
            asked["COMP_CWORD"] = typed[-1]
        told = run(tool, env=asked)
        assert told.returncode == 0, told.stderr
        assert wanted in re.split(r"[\s,]+", told.stdout), told.stdout


def test_bash_completes_a_command_with_it(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("not run: bash is not there")
    tools = Path(sys.executable).parent
    asked = (
        f'PATH={tools}:$PATH; eval "$(_HOLDFAST_COMPLETE=bash_source holdfast)"; '
        "COMP_WORDS=(holdfast sess); COMP_CWORD=1; _holdfast_completion holdfast; echo ${COMPREPLY[@]}"
    )
    told = run("bash", "-c", asked, cwd=tmp_path)
    assert told.stdout.split() == ["sessions"], told.stdout + told.stderr


def test_the_manual_page_has_every_command() -> None:
    drawn = run(sys.executable, "scripts/man.py")
    assert drawn.returncode == 0, drawn.stderr
    assert [name for name in COMMANDS if f'.SS "{name}"' not in drawn.stdout] == []
    assert '.SS "sessions archives"' in drawn.stdout
    known = (".TH", ".SH", ".SS", ".B", ".RI", ".PP", ".TP", "\\&")
    assert [line for line in drawn.stdout.splitlines() if line[0] in ".'" and not line.startswith(known)] == []
