"""Reading a HEARTBEAT.md from the disk."""

from __future__ import annotations

import logging
import os

from holdfast.inbound.heartbeat_file import FILE_BYTES_MAX

log = logging.getLogger("holdfast.timers")


def read_heartbeat_file(path: str) -> str | None:
    """Its text; None if there is none, or none that can be read (which is told in the log). What is past
    `FILE_BYTES_MAX` is left out.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place must not hold us up
        with os.fdopen(fd, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1) or b""
    except FileNotFoundError:
        return None
    except OSError as wrong:
        log.error("%s cannot be read: %s", path, wrong.strerror)
        return None
    if len(raw) > FILE_BYTES_MAX:
        log.warning("%s: only its first %d bytes are used", path, FILE_BYTES_MAX)
    return raw[:FILE_BYTES_MAX].decode("utf-8", "replace")
