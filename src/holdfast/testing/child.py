"""The other process of `World.crash_at`: opens a world on the state it is told, lives a story, and dies on the way.

Started by the nursery; exit code 0 means that the story came to its end.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.testing.faults import kill_at
from holdfast.testing.world import World


def load(place: list[str]) -> Callable[..., Any]:
    """A function by the file it is in and its name."""
    file, name = place
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


async def live(spec: dict[str, Any]) -> None:
    make = load(spec["make"]) if spec["make"] else World
    world: World = make(Path(spec["path"]))
    world.faults = kill_at(*([spec["point"]] if spec["point"] else []), nth=spec["nth"])
    async with world:
        if spec["story"]:
            await load(spec["story"])(world)
        await world.idle()


def main(spec: str) -> None:
    """In a process of the nursery."""
    asyncio.run(live(json.loads(spec)))
