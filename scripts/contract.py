"""`make contract`: a gateway of its own, in a folder of its own, held against its `/openapi.json` by Schemathesis.

Ends with 1 where the two contradict each other, or an answer is 5xx; with 0 and a word where `uvx` cannot have it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
READY_S = 120.0
SCHEMATHESIS = ["schemathesis>=4.32,<5"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    given = parser.parse_args()
    uvx = [str(BIN / "uvx"), "--quiet", "--from", *SCHEMATHESIS, "st"]
    if subprocess.run([*uvx, "--version"], check=False, capture_output=True).returncode:  # our own words
        print("contract: not run: schemathesis cannot be had from the package index here")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        up = [str(BIN / "holdfast"), "--state", str(state), "up", "--port", "0"]
        with subprocess.Popen(up, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as gateway:
            try:
                url = _url(state)
                token = (state / "token").read_text().strip()
                asked = urllib.request.Request(f"{url}/openapi.json", headers={"authorization": f"Bearer {token}"})
                description = Path(folder) / "openapi.json"
                description.write_bytes(urllib.request.urlopen(asked).read())  # a gateway of our own
                held = subprocess.run(
                    [*uvx, "run", str(description), "--url", url, "-H", f"Authorization: Bearer {token}",
                     "--max-time", str(given.seconds), "--continue-on-failure", "--exclude-path", "/api/events",
                     "--generation-database", "none", "--no-color"],
                    cwd=ROOT, check=False,
                )  # fmt: skip
                return held.returncode
            finally:
                gateway.terminate()


def _url(state: Path) -> str:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        try:
            return json.loads((state / "gateway.json").read_text())["address"]
        except (OSError, ValueError):
            time.sleep(0.2)
    raise SystemExit("the gateway did not start")


if __name__ == "__main__":
    sys.exit(main())
