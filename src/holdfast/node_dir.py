"""The folder on this machine that goes with a state: of a state directory itself, of a database one beside it.

A gateway keeps its token and its address there, agents their workspaces. Nothing in it is part of the state: a node may
lose it and is given a new token.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

NODE_DIR_VARIABLE = "HOLDFAST_NODE_DIR"
NODES = ".holdfast/nodes"


def is_url(state: str | os.PathLike[str]) -> bool:
    """Whether a state is a database, and not a folder."""
    return "://" in os.fspath(state)


def without_password(url: str) -> str:
    """For messages, logs and names."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", re.sub(r"password=[^&\s]*", "password=***", url))


def node_dir(state: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Path:
    """A state directory is its own; of a database `HOLDFAST_NODE_DIR`, else a folder in `~/.holdfast/nodes` named after
    the URL, whatever password stands in it. Makes nothing.
    """
    where = os.fspath(state)
    if not is_url(where):
        return Path(where)
    given = environ.get(NODE_DIR_VARIABLE, "").strip()
    if given:
        return Path(given)
    return Path.home() / NODES / hashlib.sha256(without_password(where).encode()).hexdigest()[:16]


def make_node_dir(state: str | os.PathLike[str]) -> Path:
    """The same, there and for nobody else to look into, where it is beside a database."""
    folder = node_dir(state)
    if is_url(state):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    return folder
