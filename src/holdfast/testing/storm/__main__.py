"""`python -m holdfast.testing.storm`: one storm in a fresh folder; prints one JSON object."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from holdfast.testing.storm.weather import Counts, Forecast, Storm, new_seed


def main() -> int:
    """Exit code 1: a promise broke, or too few faults were planted. The folder is then kept."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills-per-s", type=float, default=Forecast().kills_per_s)
    parser.add_argument("--stops-per-s", type=float, default=Forecast().stops_per_s)
    parser.add_argument("--edits-per-s", type=float, default=Forecast().edits_per_s)
    parser.add_argument("--gateways", type=int, default=1, help="real ones, with their sockets")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where a fresh folder is made [the system's own]")
    parser.add_argument("--progress", action="store_true", help="counts as JSON lines on standard error")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    options = parser.parse_args()
    cast = {**Forecast().cast, "gateway": options.gateways}
    forecast = Forecast(options.seconds, options.kills_per_s, options.stops_per_s, options.edits_per_s, cast)
    root = Path(tempfile.mkdtemp(prefix="holdfast-storm-", dir=options.folder))
    seed = new_seed() if options.seed is None else options.seed

    def tell(counts: Counts) -> None:
        if options.progress:
            sys.stderr.write(json.dumps(asdict(counts)) + "\n")

    found = Storm(root, seed, forecast, tell).run()
    found["broken"] += too_little(found, forecast)
    if found["broken"] or options.keep:
        found["kept"] = str(root)
    else:
        shutil.rmtree(root)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 1 if found["broken"] else 0


def too_little(found: dict[str, object], forecast: Forecast) -> list[str]:
    """What was planted and seen too seldom for the storm to prove anything."""
    counts: dict[str, float] = found["counts"]  # pyright: ignore[reportAssignmentType]
    seen: dict[str, int] = found["seen"]  # pyright: ignore[reportAssignmentType]
    missing = [
        f"planted only {counts[name]} {name} of {least:.0f}"
        for name, least in forecast.least().items()
        if counts[name] < least
    ]
    needed = ("input answered", "op take", "op append", "arrived", "turn died")
    return missing + [f"never seen: {name}" for name in needed if not seen.get(name)]


if __name__ == "__main__":
    sys.exit(main())
