"""Instructions that this process retires, from the processor's own counter; None where the machine keeps it to itself.

Virtual machines and containers often do. Linux only, by the system call itself: no program has to be installed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from types import TracebackType

_NUMBER = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _INSTRUCTIONS = 0, 1
_SIZE = 112
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


def _open() -> int | None:
    number = _NUMBER.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return None
    flags = _INHERIT | _NO_KERNEL | _NO_HYPERVISOR
    head = struct.pack("=IIQQQQQ", _HARDWARE, _SIZE, _INSTRUCTIONS, 0, 0, 0, flags)
    attributes = ctypes.create_string_buffer(head, _SIZE)
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, attributes, 0, -1, -1, 0)
    return fd if fd >= 0 else None


class Instructions:
    """`taken` after leaving: instructions in user mode of this thread, and of threads that it has started meanwhile."""

    def __init__(self) -> None:
        self._fd = _open()
        self._began = 0
        self.taken: int | None = None

    def _read(self) -> int:
        assert self._fd is not None
        return int(struct.unpack("=Q", os.read(self._fd, 8))[0])

    def __enter__(self) -> Instructions:
        self._began = self._read() if self._fd is not None else 0
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._fd is not None:
            self.taken = self._read() - self._began
            os.close(self._fd)
