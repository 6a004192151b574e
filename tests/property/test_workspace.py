"""Whatever a path is made of, a workspace reads and writes nothing outside of itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError
from holdfast.tool.workspace import Workspace

PIECES = [
    "..",
    ".",
    "",
    "a",
    "b",
    "link",
    "folder",
    "hard",
    "outside",
    "secret",
    "space",
    "~",
    "...",
    "\\",
    "a\0b",
    "é",
]
PATHS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map("/".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map(lambda names: "/" + "/".join(names)),
    st.lists(st.sampled_from(PIECES), max_size=4).map(lambda names: "ROOT/" + "/".join(names)),
    st.text(max_size=40),
)
ACTS = st.lists(st.tuples(st.sampled_from(["read", "write", "change", "list"]), PATHS), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(ACTS)
def test_no_path_of_any_kind_leads_out(acts: list[tuple[str, str]]) -> None:
    top = Path(tempfile.mkdtemp(prefix="holdfast-space-"))
    try:
        outside, root = top / "outside", top / "space"
        (root / "a").mkdir(parents=True)
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (root / "link").symlink_to(outside / "secret")
        (root / "folder").symlink_to(outside)
        (root / "a" / "link").symlink_to("../../outside/secret")
        os.link(outside / "secret", root / "hard")
        space = Workspace(str(root))
        for act, named in acts:
            path = named.replace("ROOT", str(root), 1)
            with suppress(HoldfastError):  # a refusal; anything else is a fault
                if act == "read":
                    assert b"secret" not in space.read(path)
                elif act == "write":
                    space.write(path, b"written")
                elif act == "change":
                    space.change(path, "secret", "changed")
                else:
                    found, _ = space.list(path, 3)
                    above = {parent for one in found for parent in Path(one.path).parents}
                    assert not any((root / parent).is_symlink() for parent in above), "a link is shown, not followed"
        assert (outside / "secret").read_text() == "secret"
        assert os.listdir(outside) == ["secret"]
        assert sorted(os.listdir(top)) == ["outside", "space"]
        assert not [one for one in root.rglob("*") if one.name.startswith(".holdfast-")]
    finally:
        shutil.rmtree(top)
