"""The API keys of a provider: several, each with a name for people and an id that says nothing of it.

Keys come from the environment (`OPENAI_API_KEY`, then `OPENAI_API_KEY_2` to `_9`), from a file that only its owner can
read, or from the configuration. Their values are in nobody's repr, log, ledger or configuration dump: what is written
down is the name and the id, which is a digest, so that a new key under an old name begins without the old one's past.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.errors import InputError

NUMBERED_MAX = 9
FILE_BYTES_MAX = 64 * 1024
KEYS_MAX = 32


@dataclass(frozen=True, slots=True)
class Credential:
    """One key. `label`: where it comes from, such as `OPENAI_API_KEY_2` or `keys.txt:1`."""

    id: str
    label: str
    secret: str = field(repr=False)


def gather(named: Iterable[tuple[str, str]]) -> tuple[Credential, ...]:
    """Credentials of (label, key), each key once, at most `KEYS_MAX`."""
    found: dict[str, Credential] = {}
    for label, secret in named:
        one = Credential(id_of(secret), label, secret)
        found.setdefault(one.id, one)
    return tuple(found.values())[:KEYS_MAX]


def id_of(secret: str) -> str:
    """48 bits of a digest: enough to tell a few keys apart, and none of a key's own characters."""
    return hashlib.sha256(f"holdfast key {secret}".encode()).hexdigest()[:12]


def from_environment(names: Iterable[str], env: Mapping[str, str]) -> list[tuple[str, str]]:
    """The first of these variables that is set, and those numbered after it; as (name, key)."""
    first = next((name for name in names if env.get(name)), None)
    if first is None:
        return []
    every = [first, *(f"{first}_{number}" for number in range(2, NUMBERED_MAX + 1))]
    return [(name, env[name]) for name in every if env.get(name)]


def read_keys_file(path: str) -> list[tuple[str, str]]:
    """One key per line as (file:line, key); empty lines and lines that begin with `#` are left out.

    Raises:
        InputError: it cannot be read, is no plain file of ours, or others may read it. Nothing is taken from it then.
    """
    try:
        fd = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as wrong:
        raise InputError(f"{path}: cannot be read: {wrong.strerror}") from wrong
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: not a plain file")
        if found.st_uid not in (os.getuid(), 0):
            raise InputError(f"{path}: belongs to another user")
        if found.st_mode & 0o077:
            raise InputError(
                f"{path}: others may read it (mode {stat.S_IMODE(found.st_mode):04o}); make it yours alone: "
                f"chmod 600 {path}"
            )
        raw = os.read(fd, FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(raw) > FILE_BYTES_MAX:
        raise InputError(f"{path}: over {FILE_BYTES_MAX} bytes; this is no list of keys")
    try:
        lines = raw.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: holds something else than keys") from None
    name = os.path.basename(path)
    keys = [(f"{name}:{number}", line.strip()) for number, line in enumerate(lines, 1)]
    return [(label, key) for label, key in keys if key and not key.startswith("#")]


def in_order_for(session: str, credentials: Iterable[Credential]) -> list[Credential]:
    """A provider's keys in the order in which a session uses them: always the same, so that its provider's cache stays
    warm, over restarts and processes; different sessions spread over the keys (rendezvous hashing, Thaler and
    Ravishankar 1998).
    """
    return sorted(credentials, key=lambda one: hashlib.sha256(f"{session}\0{one.id}".encode()).digest())
