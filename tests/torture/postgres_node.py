"""One node of `postgres_load.py`: `URL CONFIG PLATFORM`. What it delivers is a line of the file PLATFORM."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.config.load import load_config
from holdfast.gateway.app import Parts
from holdfast.gateway.supervise import run_gateway


class FileChannel:
    """A platform that keeps no key and can be asked nothing: the hardest to send to once."""

    name = "file"
    traits = ChannelTraits(reconciles=False, longest_request_s=2.0, text_max=100_000)

    def __init__(self, platform: Path) -> None:
        self._platform = platform

    async def send(self, request: SendRequest) -> Sent:
        line = {"id": request.delivery_id, "target": request.target, "text": request.text, "label": request.label}
        fd = os.open(self._platform, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(fd)
        return Sent(request.delivery_id)

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        raise NotImplementedError(f"{delivery_id} at {target}: `reconciles` is false, so nobody asks")


if __name__ == "__main__":
    url, config, platform = sys.argv[1:]
    parts = Parts(channels=[FileChannel(Path(platform))])
    sys.exit(run_gateway(load_config(Path(config), os.environ), url, port=0, parts=parts))
