"""What a demo plays on: two servers, the data, the Secrets and the manifest. Which servers: in the pairs' modules."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

from rich.console import Console
from rich.syntax import Syntax

from whimbrel_cli.demo.options import Options
from whimbrel_cli.figures import span
from whimbrel_cli.overlay import applied

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Done(Protocol):
    """What an application has done."""

    @property
    def changes(self) -> int:
        """Changed rows."""


class Application(Protocol):
    """An application that goes on writing."""

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

    @abstractmethod
    def application(self, options: Options) -> AbstractContextManager[Application]:
        """An application that writes to the source."""

    @abstractmethod
    def told(self, done: Done) -> str:
        """What the application did, for a reader."""

    @abstractmethod
    def secrets(self) -> dict[str, dict[str, str]]:
        """The Secrets that the example names, by name and key."""

    @abstractmethod
    def patch(self) -> dict[str, Any]:
        """What is changed in the example: where the servers are."""

    @abstractmethod
    def compare(self) -> list[str]:
        """The differences, in words, by a comparison that shares no code with the product."""

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
    console.print(f"\n{example.name}, with the addresses of these two servers:\n", highlight=False)
    console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, highlight=False)
    return manifest


def wait_for_interrupt() -> None:
    """Returns on Ctrl-C."""
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
