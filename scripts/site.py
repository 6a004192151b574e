"""What the documentation site (`make site`) does to the pages: the README is its home, links out of docs/ are names.

MkDocs calls these functions by their names (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]  # in the site's environment only

ROOT = Path(__file__).parents[1]
GENERATED = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}
"""Pages of the site that are files beside docs/."""
_LINK = re.compile(r"(!?)\[(?P<text>[^\]]*)\]\((?P<to>[^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Every design note is in the navigation, in its order."""
    notes = [{_title_of(note): f"design/{note.name}"} for note in sorted((ROOT / "docs" / "design").glob("*.md"))]
    config["nav"].insert(-1, {"Design notes": notes})
    return config


def _title_of(note: Path) -> str:
    return note.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def on_files(files: Any, config: Any) -> Any:
    """Add the README as the home, and the changelog."""
    for name, page in GENERATED.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link to a file that is not part of the site becomes its name."""
    docs = ROOT / "docs"
    folder = (docs / page.file.src_path).parent

    def told(link: re.Match[str]) -> str:
        to = link["to"].partition("#")[0]
        if not to or "://" in to or ((folder / to).resolve().is_relative_to(docs) and (folder / to).exists()):
            return link[0]
        if Path(to).name in GENERATED:
            return link[0].replace(link["to"], ("" if folder == docs else "../") + GENERATED[Path(to).name])
        return link["text"] if link["text"].startswith("`") else f"{link['text']} (`{Path(to).name}` in the sources)"

    return _LINK.sub(told, markdown)
