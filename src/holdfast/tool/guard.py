"""Runs one program for a gateway and sees to it that nothing of it stays behind. Started as a script of its own, with
nothing but the standard library: `python -I -S guard.py '["ls", "-l"]' 256`.

Its standard input is the lifeline: the gateway holds the other end, so its death, however it comes, closes it. When it
is closed, or the program has ended, every process that the program has left is killed, also those that made a session
of their own: on Linux they become this process's children when their parents die (`PR_SET_CHILD_SUBREAPER`). Elsewhere
the program's process group is killed. It ends as the program did: with its exit code, or by the same signal.

`… 0 serve` is for a program that talks with the gateway over standard input and output, for as long as both live. The
lifeline is the same, but what comes over it is the program's to read: that it is closed is seen by polling.

Source: prctl(2), proc(5), poll(2) on POLLHUP.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

LOOK_S = 0.1
GRACE_S = 1.0
"""How long what is asked to end (SIGTERM) may take for it before it is killed."""
SERVE_GRACE_S = 0.7
"""The same for a server, once after its input has been closed and once after SIGTERM. The MCP client library kills
after 2 s, and whatever the program has started would then be left.
"""
ROUNDS_MAX = 200
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NOT_FOUND, NOT_ALLOWED = 127, 126  # as shells say it


def main(argv: list[str], processes_max: int) -> int:
    """The exit status to end with; negative: by that signal."""
    sees_all = _set(PR_SET_CHILD_SUBREAPER, 1)
    woken = _wake_on_signals()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)  # it ends with its program, or with its lifeline
    program = _start(argv)
    status: int | None = None
    asked_at: float | None = None
    too_many = False
    while status is None:
        ready, _, _ = select.select([0, woken] if asked_at is None else [woken], [], [], LOOK_S)
        if woken in ready:
            os.read(woken, 4096)
        status = _reaped(program, status)
        if status is not None:
            break
        if asked_at is None and 0 in ready and not os.read(0, 4096):
            asked_at = time.monotonic()
            _kill_group(program, signal.SIGTERM)
        if not too_many and len(_descendants(sees_all)) > processes_max:
            too_many = True
            os.write(2, f"\n[more than {processes_max} processes at once: all were killed]\n".encode())
            break
        if asked_at is not None and time.monotonic() - asked_at > GRACE_S:
            break
    _kill_all(program, sees_all)
    found = _reaped(program, status)
    return -signal.SIGKILL if found is None else found


def serve(argv: list[str]) -> int:
    """The same for a program that talks over this process's standard input and output. SIGTERM asks it to end, too."""
    sees_all = _set(PR_SET_CHILD_SUBREAPER, 1)
    woken = _wake_on_signals()
    told: list[int] = []
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    program = _start(argv, keeps_input=True)
    watch = select.poll()
    watch.register(0, 0)  # nothing is asked for: that the other end is closed is always told
    watch.register(woken, select.POLLIN)
    status: int | None = None
    asked_at: float | None = None
    is_termed = False
    while status is None:
        ready = dict(watch.poll(None if asked_at is None else LOOK_S * 1000))
        if woken in ready:
            os.read(woken, 4096)
        status = _reaped(program, status)
        if asked_at is None and (0 in ready or told):
            asked_at = time.monotonic()
            watch.unregister(0)
        if asked_at is None or status is not None:
            continue
        waited = time.monotonic() - asked_at
        if not is_termed and (told or waited > SERVE_GRACE_S):
            is_termed = True
            _kill_group(program, signal.SIGTERM)
        if waited > 2 * SERVE_GRACE_S:
            break
    _kill_all(program, sees_all)
    found = _reaped(program, status)
    return -signal.SIGKILL if found is None else found


def _wake_on_signals() -> int:
    """A descriptor that can be read from once a signal has come, the end of a child among them."""
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def _start(argv: list[str], *, keeps_input: bool = False) -> int:
    program = os.fork()
    if program:
        return program
    try:
        os.setpgid(0, 0)
        _set(PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(one, signal.SIG_DFL)
        if not keeps_input:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606  # that is what it is for
    except OSError as exc:
        os.write(2, f"{argv[0]}: {exc.strerror}\n".encode("utf-8", "replace"))
        os._exit(NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_ALLOWED)
    finally:
        os._exit(NOT_ALLOWED)


def _reaped(program: int, status: int | None) -> int | None:
    """Reap whatever has ended; the program's own status once it has, `status` before."""
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            status = os.waitstatus_to_exitcode(found)


def _kill_all(program: int, sees_all: bool) -> None:
    """Until nothing is left. What is found is stopped first, so that it cannot go on multiplying meanwhile."""
    for _ in range(ROUNDS_MAX):
        _kill_group(program, signal.SIGKILL)
        found = _descendants(sees_all)
        if not found:
            return
        for one in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, one)
        if sees_all:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        time.sleep(0.005)


def _kill_group(program: int, how: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(program, how)


def _descendants(sees_all: bool) -> list[int]:
    """Processes below this one that have not ended."""
    if not sees_all:
        return []
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                parents.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    frontier = [os.getpid()]
    while frontier:
        below = parents.get(frontier.pop(), [])
        found += below
        frontier += below
    return found


def _set(option: int, value: int) -> bool:
    """Whether the kernel has this option, and it is set."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


if __name__ == "__main__":
    given = [os.fsdecode(one.encode("utf-8", "surrogateescape")) for one in json.loads(sys.argv[1])]
    code = serve(given) if sys.argv[3:] == ["serve"] else main(given, int(sys.argv[2]))
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL and SIGSTOP nobody can say what they do
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)
