"""The environments of the peers: one each, for their requirements do not go together. Made once, below `.peers/`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".peers"
UV = ROOT / ".venv" / "bin" / "uv"
INSTALL_S_MAX = 600.0


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder name and what is installed into it; the first requirement is the peer that is named in tables."""

    name: str
    requirements: tuple[str, ...]


ENVIRONMENTS = (
    Environment("openai_agents", ("openai-agents==0.24.0",)),
    Environment("langgraph", ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2", "langchain-core")),
    Environment("pydantic_ai", ("pydantic-ai-slim==2.68.0",)),
    Environment("nanobot", ("nanobot-ai==0.3.5",)),
    Environment("hermes", ("hermes-agent==0.19.0",)),
    Environment("litellm", ("litellm==1.106.2",)),
    Environment("locks", ("filelock==4.2.11", "portalocker==4.4.2")),
    Environment("dbos", ("dbos==3.4.0",)),
)
NOT_MEASURED = {
    "OpenClaw, pi": "Node programs; this benchmark installs from PyPI only",
    "langgraph's PostgreSQL checkpointer": "needs a PostgreSQL server; its SQLite form is measured",
    "procrastinate": "needs a PostgreSQL server",
}
"""Peers that are not part of the run, and why."""


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment; our own for what needs none."""
    return Path(sys.executable) if name == "" else FOLDER / name / "bin" / "python"


def make(environment: Environment) -> str | None:
    """Make an environment if it is not there yet. Returns why it cannot be had, None if it can."""
    folder = FOLDER / environment.name
    stamp = folder / ".made"
    wanted = "\n".join(environment.requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return None
    FOLDER.mkdir(exist_ok=True)
    for command in (
        [str(UV), "--quiet", "venv", "--allow-existing", "--python", sys.executable, str(folder)],
        [str(UV), "--quiet", "pip", "install", "--python", str(python_of(environment.name)), *environment.requirements],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S_MAX)
        except (OSError, subprocess.TimeoutExpired) as failed:
            return f"could not be installed: {failed}"
        if done.returncode != 0:
            return f"could not be installed: {' '.join(done.stderr.split())[-200:]}"
    stamp.write_text(wanted, encoding="utf-8")
    return None


def versions(name: str) -> dict[str, str]:
    """What is really installed of a peer's own requirements."""
    packages = next(one.requirements for one in ENVIRONMENTS if one.name == name)
    names = [one.partition("==")[0] for one in packages]
    code = f"import importlib.metadata as m; print([m.version(n) for n in {names!r}])"
    done = subprocess.run([str(python_of(name)), "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(names, [one.strip(" '\n") for one in done.stdout.strip("[]\n").split(",")], strict=True))
