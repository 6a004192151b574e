"""A real PgBouncer in transaction mode in front of a tests' server, where its program is found."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
START_S = 60.0
_INI = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
logfile = {folder}/log
{more}
"""


def program() -> str | None:
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


@contextmanager
def bouncer(url: str, *, pool: int = 3, more: str = "") -> Iterator[str]:
    """The URL of the same database through a pooler of so many connections.

    Args:
        more: lines of its configuration.
    """
    found = program()
    assert found is not None
    facts: dict[str, Any] = conninfo_to_dict(url)
    host, name = str(facts.get("host", "localhost")), str(facts["dbname"])
    server = f"host={host} port={facts.get('port', 5432)} user={facts.get('user', 'postgres')}"
    server += f" password={facts['password']}" if facts.get("password") else ""
    # It refuses to run as root: then as whoever may enter the server's folder.
    user = pwd.getpwuid(os.stat(host).st_uid).pw_name if host.startswith("/") else "nobody"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="holdfast-bouncer-") as place:
        folder = Path(place)
        folder.chmod(0o755)
        ini = folder / "pgbouncer.ini"
        ini.write_text(_INI.format(server=server, port=port, pool=pool, folder=folder, more=more))
        as_user = ["-u", user] if os.getuid() == 0 else []
        if os.getuid() == 0:
            shutil.chown(folder, user)
        with (folder / "out").open("wb") as out:
            process = subprocess.Popen([found, *as_user, str(ini)], stdout=out, stderr=out)
        through = f"postgresql://{facts.get('user', 'postgres')}@127.0.0.1:{port}/{name}"
        try:
            _until_it_answers(through, process, folder)
            yield through
        finally:
            process.terminate()
            process.wait()


def _until_it_answers(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                said = [(folder / name).read_text() for name in ("out", "log") if (folder / name).exists()]
                raise RuntimeError(f"PgBouncer did not start: {said}") from None
            time.sleep(0.05)
