"""Plant each bug of `tests/mutations/patches.py` in a copy of the source, and see the named test find it.

    python scripts/mutations.py [--only WORDS] [--jobs 2]

The named tests are run once on the source as it is, where all must pass. Exit code 1: a bug was not found, or a test
fails without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.mutations.patches import MUTATIONS, Mutation  # noqa: E402  # found from wherever this is started

NO_TESTS_RAN = 5


def plant(mutation: Mutation, source: Path) -> None:
    """Raises ValueError if the text is not there exactly once."""
    path = source / "holdfast" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: its text stands {text.count(mutation.old)} times in {mutation.file}")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def run(tests: list[str], source: Path, folder: Path) -> tuple[int, str]:
    """Run tests against the package in `source`. Returns pytest's exit code and its last words."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *(f"tests/{test}" for test in tests)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, "\n".join(done.stdout.splitlines()[-12:])


def try_one(mutation: Mutation) -> tuple[Mutation, int, str, float]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-mutation-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        plant(mutation, folder / "src")
        code, words = run([mutation.test], folder / "src", folder)
    return mutation, code, words, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="those with this in their names")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [one for one in MUTATIONS if options.only in one.name]
    with tempfile.TemporaryDirectory(prefix="holdfast-mutation-") as name:
        tests = sorted({one.test for one in chosen})
        code, words = run(tests, ROOT / "src", Path(name))
    if code:
        print(f"the tests do not pass without a bug ({code}):\n{words}")
        return 1
    missed = 0
    print(f"{'planted bug':52} {'found by':90} s")
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutation, result, words, seconds in pool.map(try_one, chosen):
            is_found = result == 1  # pytest: some tests failed; anything else is no finding
            missed += not is_found
            by = mutation.test.rsplit("::", 1)[-1] if is_found else f"NOT FOUND (pytest said {result})"
            print(f"{mutation.name:52} {by[:90]:90} {seconds:.0f}", flush=True)
            if result not in (0, 1):
                print(words)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
