"""The entry point: run a command, turn what it raised into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from holdfast.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `holdfast` with these arguments (None: those of the process) and exit with its code."""
    is_own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        open_standard_streams()
        if arguments in (["--version"], ["-V"]):
            print(f"holdfast {__version__}")  # asked often, by scripts: answered before anything else is loaded
            sys.exit(0)
        code = run(arguments, is_own_process=is_own_process)
    except KeyboardInterrupt:  # while the program was still being loaded, or at its very end
        code = 128 + signal.SIGINT
    sys.exit(code)


def run(arguments: Sequence[str], *, is_own_process: bool = False) -> int:
    """Run a command and return its exit code. A fault of the program itself stays an exception with its traceback.

    Args:
        is_own_process: the process was started for this command alone, with these arguments, and may be started again.
    """
    import click

    from holdfast.cli import exit_codes
    from holdfast.cli.output import OutputError, flush_output
    from holdfast.cli.root import root
    from holdfast.cli.settings import Settings
    from holdfast.errors import HoldfastError

    try:
        settings = Settings(is_own_process=is_own_process)
        code = root.main(args=list(arguments), prog_name="holdfast", standalone_mode=False, obj=settings)
        flush_output()
        return code if isinstance(code, int) else exit_codes.DONE
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    except HoldfastError as failed:
        for line in exit_codes.explain(failed):
            print(f"holdfast: {line}", file=sys.stderr)
        if isinstance(failed, OutputError):
            _leave_output()
        return exit_codes.exit_code_of(failed)
    except BrokenPipeError:
        # The reader (`| head`) has gone before our last words; click does the same for those before.
        _leave_output()
        return exit_codes.FAILED


def open_standard_streams() -> None:
    """Give a process that was started with closed standard streams (`<&- >&- 2>&-`) empty ones.

    Otherwise the first files that we open get their numbers, and what a library writes to standard error lands in the
    ledger.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _leave_output() -> None:
    """Let what is left to be printed go nowhere: Python would complain when it flushes at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
