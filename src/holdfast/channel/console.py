"""The console: answers as text on a stream, for `holdfast chat` and `holdfast up`."""

from __future__ import annotations

import asyncio
import sys
from typing import TextIO

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.text import escape_controls


class ConsoleChannel:
    """Writes each answer to a text stream, its own control sequences made visible. A terminal keeps no keys.

    Args:
        stream: where to; None: standard output as it is when the message is written.
    """

    usual_name = "console"

    def __init__(self, stream: TextIO | None = None, *, name: str = usual_name) -> None:
        self._stream = stream
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> ChannelTraits:
        return ChannelTraits(reconciles=False, longest_request_s=10.0, text_max=1_000_000, on_unknown="resend_labelled")

    async def send(self, request: SendRequest) -> Sent:
        """Write and flush, on a thread: a reader that has stopped reading must not stop everybody else."""
        heading = f"{request.target}> " if request.target else ""
        await asyncio.to_thread(self._write, escape_controls(f"{heading}{request.labelled_text}") + "\n")
        return Sent()

    async def find(self, delivery_id: str, target: str) -> Sent | None:  # noqa: ARG002  # the contract's shape
        raise SendUnknownError("a terminal cannot be asked what it has shown")

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        if stream.closed:
            raise ChannelRefusedError("the output is closed", permanent=True)
        encoding = stream.encoding or "utf-8"
        try:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except BrokenPipeError as exc:
            raise ChannelRefusedError("nobody reads the output any more", permanent=True) from exc
        except OSError as exc:
            raise SendUnknownError(f"the output failed: {exc}") from exc
