"""Where a gateway is and what opens it: the socket, the token file, and `gateway.json` for those who look for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ResourceError

TOKEN_BYTES = 32
ADDRESS_FILE = "gateway.json"
BACKLOG = 2048
LOOK_S = 1.0
CONNECT_S = 1.0


class PortTakenError(Exception):
    """Somebody else listens there. `holder` says who, as far as can be seen."""

    def __init__(self, host: str, port: int, holder: str) -> None:
        super().__init__(f"port {port} on {host} is taken by {holder}; end it, or choose another with --port")
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Address:
    """A running gateway, as told in `gateway.json`. `started_at` is for people."""

    address: str
    host: str
    port: int
    pid: int
    store_id: str
    started_at: str


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# ── the socket ───────────────────────────────────────────────────────────────────────────────────────────────────────


def listen(host: str, port: int, state: Path) -> socket.socket:
    """A listening socket. Port 0: one that is free.

    Raises:
        PortTakenError: it is in use; names the holder.
        ResourceError: it cannot be had for another reason (no such address, a port below 1024, …).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise ResourceError(f"cannot listen on {host}: {exc.strerror or exc}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTakenError(host, port, find_holder(port, state)) from exc
        raise ResourceError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    listener.setblocking(False)
    return listener


def find_holder(port: int, state: Path) -> str:
    """Who listens on a port: our own gateway by its address file, else the process as the kernel shows it (Linux)."""
    told = read_address(state)
    if told is not None and told.port == port and os.path.exists(f"/proc/{told.pid}" if _has_proc() else "/"):
        return f"a gateway that is already running on this state, {state} (pid {told.pid}, started {told.started_at})"
    return describe_listener(port) or "another process"


def describe_listener(port: int) -> str | None:
    """The process that listens on a port, as the kernel shows it to us (Linux), for people; None: it cannot be seen."""
    for inode in _listening_inodes(port):
        for pid in _owners(inode):
            return f"pid {pid} ({_command(pid)})"
    return None


def _has_proc() -> bool:
    return os.path.isdir("/proc/self")


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue  # not Linux
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: listening
                yield fields[9]


def _owners(inode: str) -> Iterator[int]:
    """Processes with this socket open, among those we may look into."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(fd) == f"socket:[{inode}]" for fd in folder.iterdir()):
                yield int(folder.parent.name)
        except OSError:
            continue  # another user's, or gone meanwhile


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone meanwhile"
    return " ".join(word.decode(errors="replace") for word in words if word)[:120]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_token(path: Path) -> tuple[str, bool]:
    """The bearer token in `path`, made if there is none, and whether it was made now. Mode 0600, whatever it was.

    Raises:
        ResourceError: not a regular file of ours, empty, or it cannot be written.
    """
    try:
        made = _make_token(path)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ResourceError(f"{path} is not a regular file; move it away")
            os.fchmod(fd, 0o600)
            token = os.read(fd, 4096).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
    except OSError as exc:
        raise ResourceError(f"cannot use {path} as token file: {exc.strerror or exc}") from exc
    if not token:
        raise ResourceError(f"{path} is empty; remove it, and a new token is made")
    return token, made


def _make_token(path: Path) -> bool:
    """Put a token there whole, or leave what is there: of several processes one makes it."""
    if os.path.lexists(path):
        return False
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    _write(draft, secrets.token_urlsafe(TOKEN_BYTES) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def write_address(state: Path, address: Address) -> None:
    """Tell where the gateway is; a reader finds the old file or the new one, never half of one."""
    draft = state / f".{ADDRESS_FILE}-{secrets.token_hex(8)}"
    _write(draft, json.dumps(asdict(address)) + "\n")
    os.replace(draft, state / ADDRESS_FILE)


def read_address(state: Path) -> Address | None:
    """What was told last, or None. The gateway may be gone: ask it before believing."""
    try:
        told: Any = json.loads((state / ADDRESS_FILE).read_text())
        return Address(**told)
    except (OSError, ValueError, TypeError):
        return None


def remove_address(state: Path, address: Address) -> None:
    """Take the file away, unless another gateway has written its own meanwhile."""
    if read_address(state) == address:
        (state / ADDRESS_FILE).unlink(missing_ok=True)


async def keep_told(state: Path, address: Address) -> None:
    """Until cancelled: tell of this gateway again where the one that was told of last has gone.

    Of several gateways on a state the newest is in the file, and takes it away when it leaves; one that was killed
    leaves it behind. Without this, commands would find no gateway and work by themselves, with their own environment.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        told = read_address(state)
        if told == address or (told is not None and await _somebody_listens(told)):
            continue
        with suppress(OSError):  # a disk that is full or read-only for a while: the next look tries again
            write_address(state, address)


async def _somebody_listens(told: Address) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(told.host, told.port)
    except TimeoutError:
        return True  # it is there, and slow or stopped
    except OSError:
        return False
    writer.close()
    return True


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
