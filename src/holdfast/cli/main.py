"""The entry point: run a command, turn what it raised into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from holdfast.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `holdfast` with these arguments (None: those of the process) and exit with its code."""
    is_own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"holdfast {__version__}")  # asked often, by scripts: answered before anything else is loaded
        sys.exit(0)
    sys.exit(run(arguments, is_own_process=is_own_process))


def run(arguments: Sequence[str], *, is_own_process: bool = False) -> int:
    """Run a command and return its exit code. A fault of the program itself stays an exception with its traceback.

    Args:
        is_own_process: the process was started for this command alone, with these arguments, and may be started again.
    """
    import click

    from holdfast.cli import exit_codes
    from holdfast.cli.root import root
    from holdfast.cli.settings import Settings
    from holdfast.errors import HoldfastError

    try:
        settings = Settings(is_own_process=is_own_process)
        code = root.main(args=list(arguments), prog_name="holdfast", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        return code if isinstance(code, int) else exit_codes.DONE
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    except HoldfastError as failed:
        for line in exit_codes.explain(failed):
            print(f"holdfast: {line}", file=sys.stderr)
        return exit_codes.exit_code_of(failed)
    except BrokenPipeError:
        # The reader (`| head`) has gone before our last words; click does the same for those before. Python would
        # complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.FAILED
