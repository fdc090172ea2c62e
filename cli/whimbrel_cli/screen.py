"""Shows resources while they change: live in a terminal, as lines elsewhere. What is shown stands in live and plain."""

import threading
import time
from collections.abc import Sequence
from math import ceil
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

from whimbrel_api.validation import Validation
from whimbrel_cli import live
from whimbrel_cli.drawing import ENDLESS, PLAIN, Glyphs
from whimbrel_cli.observed import Observed
from whimbrel_cli.plain import PlainView
from whimbrel_cli.watcher import Watcher
from whimbrel_operator.errors import OperatorError

_EVERY: Final = 0.4
_LINES_BESIDE_TABLES: Final = 16


def glyphs(console: Console) -> Glyphs:
    """Signs that the terminal's encoding has."""
    return Glyphs() if console.encoding.lower().startswith("utf") else PLAIN


def picture(console: Console, seen: Sequence[Observed]) -> RenderableType:
    """One view under the other; on a terminal with about as many tables as fit, else with all."""
    fitting = max(1, (console.height - _LINES_BESIDE_TABLES * len(seen)) // max(1, len(seen)))
    return _group(console, seen, ENDLESS if console.width == ENDLESS else fitting)


def fitted(console: Console, seen: Sequence[Observed]) -> RenderableType:
    """The same, no higher than the terminal, which would cut off the end: there it says what to do next.

    Tables go first, then events, then the gates that are open.
    """
    tables, events = console.height, live.EVENTS
    whole = _group(console, seen, tables)
    if over := _over(console, whole, seen):
        tables = max(1, min(tables, max(map(_tables, seen))) - over - 1)
        whole = _group(console, seen, tables)
    if over := _over(console, whole, seen):
        events = max(0, min(events, max(len(one.events) for one in seen)) - over)
        whole = _group(console, seen, tables, events)
    return _group(console, seen, tables, events, brief=True) if _over(console, whole, seen) else whole


def _tables(one: Observed) -> int:
    return 0 if isinstance(one.resource, Validation) else len(one.resource.status.tables)


def _over(console: Console, whole: RenderableType, seen: Sequence[Observed]) -> int:
    """How many lines each view has too many."""
    return max(0, ceil((len(console.render_lines(whole, pad=False)) - console.height) / max(1, len(seen))))


def _group(
    console: Console, seen: Sequence[Observed], tables: int, events: int = live.EVENTS, *, brief: bool = False
) -> Group:
    signs, width = glyphs(console), console.width
    views = [live.view(one, width=width, tables=tables, events=events, brief=brief, glyphs=signs) for one in seen]
    parts: list[RenderableType] = []
    for number, one in enumerate(views):
        parts += ["", one] if number else [one]
    return Group(*parts)


class Screen:
    """A context in which a thread of its own shows resources until it ends; the last state is shown for sure.

    `every`: seconds between two looks.
    """

    def __init__(self, console: Console, watchers: Sequence[Watcher], every: float = _EVERY) -> None:
        self._console = console
        self._watchers = watchers
        self._every = every
        self._plain = [PlainView() for _ in watchers]
        self._seen: list[Observed] = []
        self._failure = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="screen", daemon=True)
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._refresh()
        if self._live:
            self._live.stop()

    def _work(self) -> None:
        while not self._end.is_set():
            self._refresh()
            self._end.wait(self._every)

    def _refresh(self) -> None:
        try:
            self._seen = [watcher.look() for watcher in self._watchers]
        except (OperatorError, OSError) as error:
            # A view must not end the work; the command itself reports what is wrong with the store.
            if str(error) != self._failure:
                self._console.print(f"The view could not be refreshed: {error}", markup=False, highlight=False)
            self._failure = str(error)
            return
        self._failure = ""
        if self._live:
            self._live.update(fitted(self._console, self._seen), refresh=True)
        else:
            self._say()

    def _say(self) -> None:
        for view, seen in zip(self._plain, self._seen, strict=True):
            for line in view.lines(seen, time.monotonic()):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
