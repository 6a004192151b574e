"""Text of others, made safe to show: on a terminal, in a log."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal acts upon or what turns text around: C0 (but newline and tab), DEL, C1, bidirectional marks; and lone
surrogates, which cannot be written.
"""


_FOLDERS = re.compile(r"(?<![\w/:.~-])~?/(?:[^\s/'\"`,;:()]+/)+(?=[^\s/'\"`,;:()])")
"""The folders before a file's name; addresses (`https://…`) are none."""


def without_folders(text: str) -> str:
    """Text for people who are not the operator: of each absolute path only the file's name is left."""
    return _FOLDERS.sub("…/", text)


def escape_controls(text: str) -> str:
    r"""Text that is only shown: each control character becomes its `\x1b` or `\u202e` form. Newline and tab stay."""
    return _CONTROL.sub(lambda match: _visible(ord(match[0])), text.replace("\r\n", "\n"))


def on_one_line(text: str) -> str:
    """The same for a log line or a table's cell."""
    return escape_controls(text).replace("\n", " ")


def _visible(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
