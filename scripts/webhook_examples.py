"""Write tests/flow/github_examples.json: one published example payload for each kind of GitHub's events, trimmed.

    python scripts/webhook_examples.py

Needs npm, which fetches the package `@octokit/webhooks-examples` (MIT licence). Run by hand when GitHub adds events;
the tests use the file that is here.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "@octokit/webhooks-examples"
INSIDE = "package/api.github.com/index.json"
OUT = Path(__file__).parent.parent / "tests" / "flow" / "github_examples.json"
DEPTH_MAX, ITEMS_MAX, TEXT_CHARS_MAX = 3, 3, 200


def trim(value: Any, depth: int = 0) -> Any:
    """Without addresses, deep inner objects, long lists and long texts: what is left has the same shape."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if not name.endswith(("url", "_at", "node_id"))}
        return {name: trim(inner, depth + 1) for name, inner in kept.items()} if depth < DEPTH_MAX else {}
    if isinstance(value, list):
        return [trim(inner, depth + 1) for inner in value[:ITEMS_MAX]]
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else value


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)  # npm as it is here
        [archive] = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            inside = packed.extractfile(INSIDE)
            assert inside is not None, f"{archive.name} has no {INSIDE}"
            events = json.load(inside)
        source = archive.stem.removeprefix("octokit-webhooks-examples-")
    payloads = {event["name"]: trim(event["examples"][0]) for event in events}
    told = {"source": f"{PACKAGE} {source}, MIT licence, trimmed", "payloads": payloads}
    OUT.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
