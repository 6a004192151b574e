"""The screen of `holdfast top`, drawn by Textual, which is imported nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Input, Static, Tab, Tabs

import holdfast
from holdfast.cli.glance import COLUMNS, TABS, Glance, Row, TabName, look
from holdfast.cli.output import local_time
from holdfast.cli.stop import ask_to_stop
from holdfast.errors import HoldfastError
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from textual.binding import BindingType

    from holdfast.cli.settings import Settings
    from holdfast.store.views import WhyReport

WAIT_AFTER_FAULT_S = 5.0


class Top(App[None]):
    """One table of the chosen view, a pane for `why` below it, looked at anew every `every_s` seconds.

    Whatever people, models and tools wrote is handed to Textual as text, never as markup.
    """

    TITLE = "holdfast top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; padding: 0 1; }
    #fault { height: auto; padding: 0 1; color: $error; display: none; }
    #table { height: 1fr; }
    #filter { display: none; }
    #detail { height: 45%; border-top: solid $primary; display: none; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(index), f"view('{tab}')", tab, show=False) for index, tab in enumerate(TABS, 1)),
        Binding("tab", "next_view", "Next view"),
        Binding("enter,w", "why", "Why", priority=False),
        Binding("slash", "filter", "Filter"),
        Binding("s", "stop", "Stop"),
        Binding("p", "pause", "Pause"),
        Binding("escape", "close", "Close"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, settings: Settings, *, every_s: float) -> None:
        super().__init__()
        self._settings = settings
        self._every_s = every_s
        self._view: TabName = "sessions"
        self._glance: Glance | None = None
        self._wanted = ""
        self._paused = False
        self._cannot_read = False
        self._stopping: str | None = None
        self._told_of: str | None = None
        self.looks = 0

    def compose(self) -> ComposeResult:
        yield Static("", id="head", markup=False)
        yield Static("", id="fault", markup=False)
        yield Tabs(*(Tab(tab, id=tab) for tab in TABS))
        yield Input(placeholder="part of a row", id="filter")
        table: DataTable[Text] = DataTable(id="table", cursor_type="row", zebra_stripes=True)
        yield table
        with VerticalScroll(id="detail"):
            yield Static("", id="story", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#table").focus()
        self.run_worker(self._follow(), exclusive=True, group="follow")

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """Look until the end. What cannot be read now is said, and tried again."""
        while True:
            pause_s = self._every_s
            if not self._paused:
                try:
                    await self.look()
                except HoldfastError as fault:
                    self._cannot_read = True
                    self._say(f"cannot be read: {fault}")
                    pause_s = WAIT_AFTER_FAULT_S
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """One look, and what follows from it on the screen. The state is opened anew each time: one that nobody uses is
        read as files that do not change, and would stay as it was.
        """
        async with holdfast.open_reader(self._settings.existing_state()) as hf:
            glance = await look(hf)
            story = await hf.why(self._told_of) if self._told_of is not None else None
        self._glance = glance
        if self._cannot_read:
            self._cannot_read = False
            self._say(None)
        self._draw()
        if story is not None and self._told_of is not None:
            self._tell(story)
        self.looks += 1

    def _draw(self) -> None:
        glance = self._glance
        if glance is None:
            return
        held = f"\nwork is held back: {glance.held}" if glance.held else ""
        paused = "  [paused]" if self._paused else ""
        self.query_one("#head", Static).update(f"{local_time(glance.at_ms)}  {glance.head}{paused}{held}")
        for tab in TABS:
            bad = sum(row.is_bad for row in glance.rows[tab])
            label = f"{tab} {len(glance.rows[tab])}" + (f" ({bad}!)" if bad else "")
            self.query_one(f"#{tab}", Tab).label = label
        self._fill()

    def _fill(self) -> None:
        """The rows of the view, with the cursor on the row it was on."""
        table = self.query_one("#table", DataTable)
        before, scrolled = self._row(), table.scroll_y
        if [str(column.label) for column in table.columns.values()] != list(COLUMNS[self._view]):
            table.clear(columns=True)
            table.add_columns(*COLUMNS[self._view])
        else:
            table.clear()
        for row in self._rows():
            style = "bold red" if row.is_bad else ""
            table.add_row(*(Text(cell, style=style, no_wrap=True) for cell in row.cells), key=row.key)
        if before is not None and any(row.key == before.key for row in self._rows()):
            table.move_cursor(row=table.get_row_index(before.key), scroll=False)
            table.scroll_to(y=scrolled, animate=False)

    def _rows(self) -> list[Row]:
        rows = self._glance.rows[self._view] if self._glance is not None else []
        shown = {row.key: row for row in rows if self._wanted in " ".join(row.cells).lower()}
        return list(shown.values())

    def _row(self) -> Row | None:
        """The one under the cursor."""
        table = self.query_one("#table", DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        rows = self._glance.rows[self._view] if self._glance is not None else []
        return next((row for row in rows if row.key == key), None)

    def _say(self, fault: str | None) -> None:
        shown = self.query_one("#fault", Static)
        shown.display = fault is not None
        shown.update(fault or "")

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def action_view(self, name: TabName) -> None:
        self.query_one(Tabs).active = name

    def action_next_view(self) -> None:
        self.action_view(TABS[(TABS.index(self._view) + 1) % len(TABS)])

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        self._view = next(tab for tab in TABS if tab == event.tab.id)
        self.query_one("#table").focus()
        self._fill()

    async def on_data_table_row_selected(self) -> None:
        await self.action_why()

    async def action_why(self) -> None:
        """Tell of the row in the pane below, and go on telling while it is open."""
        row = self._row()
        if row is None or row.why is None:
            return
        try:
            async with holdfast.open_reader(self._settings.existing_state()) as hf:
                story = await hf.why(row.why)
        except HoldfastError as fault:
            self._say(str(fault))
            return
        self._told_of = row.why
        self._tell(story)
        self.query_one("#detail").display = True

    def _tell(self, story: WhyReport) -> None:
        lines = [f"{story.kind} {story.id} of {on_one_line(story.session)}: {story.state}"]
        lines += [f"{local_time(one.at_ms)}  {on_one_line(one.text)}  [{one.evidence}]" for one in story.lines]
        self.query_one("#story", Static).update("\n".join(lines))

    def action_filter(self) -> None:
        shown = self.query_one("#filter", Input)
        shown.display = True
        shown.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value.lower()
        self._fill()

    def on_input_submitted(self) -> None:
        self.query_one("#table").focus()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()

    async def action_stop(self) -> None:
        """Ask the input or turn of the row to end, as `holdfast stop` does; the key must be pressed twice."""
        row = self._row()
        if row is None or row.stop is None:
            return
        if self._stopping != row.stop:
            self._stopping = row.stop
            self._say(f"press s again to ask {row.stop} to end, Escape to leave it")
            return
        self._stopping = None
        try:
            self._say(f"{row.stop}: {await ask_to_stop(self._settings, row.stop)}")
        except HoldfastError as fault:
            self._say(str(fault))

    def action_close(self) -> None:
        """Close what is open: the pane, a question, the filter."""
        self._stopping = self._told_of = None
        self._say(None)
        self.query_one("#detail").display = False
        self.query_one("#story", Static).update("")
        shown = self.query_one("#filter", Input)
        shown.display = False
        shown.value = ""
        self.query_one("#table").focus()
