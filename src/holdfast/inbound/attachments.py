"""Files that come with a message: what of them the model gets to see, within bounds.

Pictures are shown, short texts are put into the message, everything else is named only. A file that cannot be had does
not hold its message back: the message says so.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.channel.listening import Attachment
from holdfast.errors import ChannelError
from holdfast.text import on_one_line

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What all providers read."""
TEXT_TYPES = ("text/", "application/json", "application/xml", "application/toml", "application/yaml")
TEXT_BYTES_MAX = 64 * 1024
TOTAL_BYTES_MAX = 10 * 1024 * 1024
"""Of all files of a message: as base64 they have to fit into one line of a transcript (16 MiB) with what was said."""
log = logging.getLogger("holdfast.channels")


@dataclass(frozen=True, slots=True)
class AttachmentLimits:
    """How many files of a message are read, and how large one may be. What is beyond is only named."""

    count_max: int = 4
    bytes_max: int = 5 * 1024 * 1024


async def read_attachments(files: Sequence[Attachment], limits: AttachmentLimits) -> list[dict[str, Any]]:
    """Parts of a message, in the order of the files."""
    parts: list[dict[str, Any]] = []
    left = TOTAL_BYTES_MAX
    for number, file in enumerate(files):
        if number >= limits.count_max:
            parts.append(_named(file, f"only {limits.count_max} files of a message are read"))
            continue
        part, used = await _read(file, min(limits.bytes_max, left))
        parts.append(part)
        left -= used
    return parts


async def _read(file: Attachment, bytes_max: int) -> tuple[dict[str, Any], int]:
    media_type = file.media_type.partition(";")[0].strip().lower()
    is_image = media_type in IMAGE_TYPES
    if not is_image and not media_type.startswith(TEXT_TYPES):
        return _named(file, "files of this kind are not read"), 0
    most = bytes_max if is_image else min(bytes_max, TEXT_BYTES_MAX)
    if file.size_bytes is not None and file.size_bytes > most:
        return _named(file, "it is too large to be read"), 0
    try:
        data = await file.fetch(most)
    except ChannelError as exc:
        log.warning("a file could not be fetched: %s", on_one_line(str(exc)))
        return _named(file, "it could not be fetched"), 0
    if len(data) > most:
        return _named(file, "it is too large to be read"), 0
    if is_image:
        return {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": media_type}, len(data)
    text = data.decode("utf-8", "replace").replace("\0", "\ufffd")
    return {"type": "text", "text": f"[file {_name(file)}]\n{text}\n[end of {_name(file)}]"}, len(data)


def _named(file: Attachment, why: str) -> dict[str, Any]:
    kind = on_one_line(file.media_type)[:100] or "unknown kind"
    size = "" if file.size_bytes is None else f", {file.size_bytes:,} bytes"
    return {"type": "text", "text": f"[file {_name(file)} ({kind}{size}): {why}]"}


def _name(file: Attachment) -> str:
    return on_one_line(file.name)[:200].replace("[", "(").replace("]", ")") or "without a name"
