"""The demo on this machine alone: `whimbrel run` on the example, with the live view. Servers stand in stage."""

import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from whimbrel_api.manifests import load_manifests
from whimbrel_cli.demo.acts import one_way, there_and_back
from whimbrel_cli.demo.director import Director
from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.pairs import set_stage
from whimbrel_cli.demo.report import show_around, show_failure, show_figures, verdict
from whimbrel_cli.demo.stage import (
    Side,
    Stage,
    leave,
    say,
    wait_for_interrupt,
    write_manifest,
    write_secrets,
)
from whimbrel_cli.demo.traveller import Traveller
from whimbrel_cli.exits import Exit
from whimbrel_cli.figures import count
from whimbrel_cli.inputs import put
from whimbrel_cli.screen import Screen, picture
from whimbrel_cli.watcher import Watcher
from whimbrel_operator import loop
from whimbrel_operator.runtime.store import Key, LocalStore


def play(stack: ExitStack, console: Console, options: Options) -> Exit:
    """The whole demo. What it starts is ended by `stack`. Raises TestbedError."""
    stage = set_stage(stack, console, options)
    store = LocalStore(stage.folder / "state")
    key = _prepared(stage, store, console, options.example)
    console.print(
        f"\nAn application now writes to {stage.source}, {count(options.rate)} rows a second (seed {options.seed}).\n",
        highlight=False,
    )
    acts = there_and_back if options.way_back else one_way
    with Traveller(stage, options) as traveller:
        director = Director(stage, options, console, traveller, _Orders(store, key, console), acts)
        traveller.start(Side.SOURCE)
        with Screen(console, [Watcher(store, key)]):
            result = loop.run(
                store, [key], timeout=options.timeout, until=director.look, on_change=director.on_change
            )  # fmt: skip
        director.stop()
    if result.interrupted:
        leave()
    show_figures(console, director)
    if not director.played:
        return show_failure(store, director, console, timed_out=result.timed_out)
    code = verdict(console, director)
    if not options.keep:
        console.print("\nTo look around in both servers afterwards: whimbrel demo --keep", highlight=False)
        return code
    show_around(stage, console, [("the migration", f"{_whimbrel(stage)} status flights -o yaml")])
    wait_for_interrupt()
    return code


def _prepared(stage: Stage, store: LocalStore, console: Console, example: Path) -> Key:
    """Writes Secrets and manifest, and puts both into the store."""
    secrets = stage.folder / "secrets"
    write_secrets(secrets, stage.secrets())
    manifest = write_manifest(stage, console, example)
    console.print(f"whimbrel run {manifest} --secrets {secrets}", style="bold", highlight=False, soft_wrap=True)
    console.print(f"In a second terminal: {_whimbrel(stage)} status flights -w", highlight=False, soft_wrap=True)
    (key,) = put(store, load_manifests(manifest.read_text(encoding="utf-8"), example.name), secrets)
    return key


def _whimbrel(stage: Stage) -> str:
    return f"{shlex.quote(sys.executable)} -m whimbrel_cli --state {shlex.quote(str(stage.folder / 'state'))}"


@dataclass(frozen=True)
class _Orders:
    """What a person would type in a second terminal. The demo does it, and says so."""

    store: LocalStore
    key: Key
    console: Console

    def approve(self, plan: str) -> None:
        """By the overlay, as the command does."""
        say(self.console, f"A person would now read the plan and say: whimbrel approve flights --plan {plan}")
        say(self.console, "The demo does that for you.")
        self.store.patch_spec(self.key, {"cutover": {"approvedPlan": plan}})

    def show(self) -> None:
        """As `whimbrel status` does."""
        back = [Key(self.key.namespace, "ReverseSync", self.key.name)]
        for key in (self.key, *(each for each in back if each in self.store.list("ReverseSync"))):
            self.console.print(picture(self.console, [Watcher(self.store, key).look()]))

    def roll_back(self) -> None:
        """By the overlay, as the command does."""
        say(self.console, "A person would now say: whimbrel rollback flights. The demo does that for you.")
        self.store.patch_spec(self.key, {"cutover": {"rollback": True}})
