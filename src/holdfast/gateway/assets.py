"""What pages are made of: scripts and styles that hold no secrets, read once, served to anybody. No build step."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "pages"
_TYPES = {".css": "text/css", ".js": "text/javascript"}
ASSETS = {f"/assets/{path.name}": path for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}
"""Files by the path at which browsers find them."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
)
"""The Content-Security-Policy of our pages: nothing inline, nothing from elsewhere, no text that becomes a script."""
PAGE_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "referrer-policy": "same-origin",  # with "no-referrer" browsers say `Origin: null` in forms, to ourselves, too
}


def media_type(path: str) -> str:
    return _TYPES[Path(path).suffix]
