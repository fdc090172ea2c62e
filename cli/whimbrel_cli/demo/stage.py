"""What a demo plays on: two servers, the data, the Secrets and the manifest. Which servers: in the pairs' modules."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

from rich.console import Console
from rich.syntax import Syntax

from whimbrel_cli.figures import clock, span
from whimbrel_cli.overlay import applied

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Side(Enum):
    """Where an application writes."""

    SOURCE = "source"
    TARGET = "target"


class Done(Protocol):
    """What an application has done; its first and last accepted write in seconds of time.monotonic()."""

    @property
    def changes(self) -> int:
        """Changed rows."""

    @property
    def first_write(self) -> float | None:
        """When the first one was answered."""

    @property
    def last_write(self) -> float | None:
        """When the last one was answered."""


class Application(Protocol):
    """An application that goes on writing."""

    @property
    def counts(self) -> Done:
        """What it did up to about a second ago."""

    def raise_failure(self) -> None:
        """Raises TestbedError where it has failed."""

    def stop(self) -> Done:
        """End it; tells what it did. May be called again."""


@dataclass(frozen=True)
class Stage(ABC):
    """What the demo plays on: both servers, and a private folder for Secrets, manifest and state."""

    folder: Path
    tables: tuple[str, ...]

    @property
    @abstractmethod
    def source(self) -> str:
        """What the source is called."""

    @property
    @abstractmethod
    def target(self) -> str:
        """What the target is called."""

    def name(self, side: Side) -> str:
        """What a side is called."""
        return self.source if side is Side.SOURCE else self.target

    @abstractmethod
    def application(self, side: Side, *, rate: float, seed: int) -> AbstractContextManager[Application]:
        """An application that writes to one side, `rate` rows a second."""

    @abstractmethod
    def told(self, done: Done) -> str:
        """What the application did, for a reader."""

    @abstractmethod
    def secrets(self) -> dict[str, dict[str, str]]:
        """The Secrets that the example names, by name and key."""

    @abstractmethod
    def patch(self) -> dict[str, Any]:
        """What is changed in the example: where the servers are."""

    @property
    @abstractmethod
    def must_rest(self) -> bool:
        """Whether nothing may be written while a comparison reads."""

    @abstractmethod
    def as_they_are(self) -> Callable[[], list[str]]:
        """Both sides as they are now; gives what compares them and shares no code with the product.

        That tells the differences in words. Unless both `must_rest` until it ends, the target may be written to from
        now on.
        """

    def left_behind(self) -> list[str]:
        """What a way back has made and not taken away, in words."""
        return []

    @abstractmethod
    def places(self) -> Sequence[tuple[str, str]]:
        """How to look at both servers: pairs of what and command. Writes the scripts that they need."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP all end the demo in one way: what it started goes, and its exit code is 130."""
    before = {number: signal.signal(number, leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """Ends the demo. A second signal must not break off the cleaning up."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def say(console: Console, text: str) -> None:
    """Prints what people and applications do around the migration, with the time."""
    console.print(f"» {clock(datetime.now(UTC))} {text}", style="bold magenta", highlight=False, soft_wrap=True)


@contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """Says what is done now, and how long it took."""
    started = time.monotonic()
    console.print(f"{what} …", highlight=False, soft_wrap=True)
    yield
    console.print(f"  done in {span(time.monotonic() - started)}", style="dim", highlight=False)


def write_secrets(folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Writes Secrets as Kubernetes mounts them: FOLDER/NAME/KEY, for their owner alone."""
    for name, keys in secrets.items():
        (folder / name).mkdir(mode=0o700, parents=True)
        for key, value in keys.items():
            file = folder / name / key
            file.touch(mode=0o600)
            file.write_text(value, encoding="utf-8")


def write_manifest(stage: Stage, console: Console, example: Path) -> Path:
    """Puts the servers' addresses into the example, shows it, and writes it into the stage's folder."""
    text = applied(example.read_text(encoding="utf-8"), stage.patch())
    manifest = stage.folder / "migration.yaml"
    manifest.write_text(text, encoding="utf-8")
    more = " and a way back" if "reverseSync" in stage.patch()["spec"] else ""
    console.print(f"\n{example.name}, with the addresses of these two servers{more}:\n", highlight=False)
    console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, highlight=False)
    return manifest


def wait_for_interrupt() -> None:
    """Returns on Ctrl-C."""
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
