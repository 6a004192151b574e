"""`make fuzz`: broken input for every reader of what others have written, for some seconds of CPU each.

A crash is printed with its seed and its bytes; put them into tests/property/test_fuzz.py, then mend the reader.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterator

from holdfast.testing.fuzz import TARGETS, run, seeds_for


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of CPU, for each reader")
    parser.add_argument("--from", dest="first", type=int, default=1_000_000, help="first seed")
    given = parser.parse_args()
    crashes = 0
    for target in TARGETS:
        read = 0

        def counted(first: int = given.first) -> Iterator[int]:
            nonlocal read
            for seed in seeds_for(given.seconds, first):
                read += 1
                yield seed

        crash = run(target, counted())
        print(f"{target.name}: {read} cases, {'no crash' if crash is None else 'a crash'}", flush=True)
        if crash is not None:
            crashes += 1
            print(f"seed {crash.seed}: {crash.case!r}")
            traceback.print_exception(crash.error)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
