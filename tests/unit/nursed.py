"""What the nursery is told to run in its own tests."""

from __future__ import annotations

import os
import sys


def main(argument: str) -> int:
    match argument:
        case "echo":
            for line in sys.stdin:
                sys.stdout.write(line.upper())
                sys.stdout.flush()
            return 0
        case "fail":
            raise LookupError("it was told to")
        case "open":
            print(*sorted(os.listdir("/dev/fd")), os.getcwd(), os.environ["NURSED"], os.getppid())
            return 3
        case _:
            raise AssertionError(argument)
