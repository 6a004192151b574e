"""`make audit`: known holes in locked packages (pip-audit), in our code (bandit), in workflow files (zizmor), by uvx.

Ends with 1 where something is found. What cannot be had here, tool or data, is said as not run, never as clean.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
UVX = str(Path(sys.executable).parent / "uvx")
UNREACHABLE = ("ConnectionError", "Connection refused", "Max retries", "timed out", "Name or service", "ServiceError")
UNKNOWN = "could not be audited"
"""What pip-audit says of each package that the index it asks does not tell of; it still ends as if all were well."""
BANDIT = ["bandit", "-q", "-r", "src", "-ll", "-ii", "--skip", "B608,B104,B108"]
"""Medium and worse. SQL from our own words, addresses and temporary folders are marked one by one for ruff (`S`), which
`make check` runs with bandit's other rules."""


def main() -> int:
    found = [
        _run("bandit", BANDIT),
        _run("pip-audit", ["pip-audit", "--disable-pip", "--require-hashes", "-r", "requirements/run.lock"]),
    ]
    workflows = ROOT / ".github" / "workflows"
    if workflows.is_dir():
        found.append(_run("zizmor", ["zizmor", "--offline", str(workflows)]))
    else:
        print("zizmor: there are no workflow files")
    return 1 if any(found) else 0


def _run(name: str, command: list[str]) -> bool:
    """Whether it found something."""
    there = subprocess.run([UVX, "--quiet", name, "--version"], cwd=ROOT, check=False, capture_output=True)
    if there.returncode:
        print(f"{name}: not run: it cannot be had from the package index here")
        return False
    ended = subprocess.run([UVX, "--quiet", *command], cwd=ROOT, check=False, capture_output=True, text=True)
    if ended.returncode and any(word in ended.stderr for word in UNREACHABLE):
        print(f"{name}: not run: its data cannot be reached from here; nothing is known of holes in packages")
        return False
    skipped = ended.stdout.count(UNKNOWN)
    if skipped:
        print(f"{name}: data on {skipped} packages cannot be reached from here; nothing is known of holes in them")
        return False
    print(ended.stdout + ended.stderr, end="")
    print(f"{name}: {'nothing found' if not ended.returncode else 'see above'}")
    return bool(ended.returncode)


if __name__ == "__main__":
    sys.exit(main())
