"""The demo on this machine alone: `whimbrel run` on the example, with the live view. Servers stand in stage."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import Migration, Phase
from whimbrel_cli.demo.director import Director
from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.pairs import set_stage
from whimbrel_cli.demo.report import compare, show_around, show_failure, show_times
from whimbrel_cli.demo.stage import (
    Stage,
    leave,
    wait_for_interrupt,
    write_manifest,
    write_secrets,
)
from whimbrel_cli.exits import Exit
from whimbrel_cli.figures import count
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.inputs import put
from whimbrel_cli.screen import Screen
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
    with stage.application(options) as application:
        director = Director(application, console, lambda plan: _approve(store, key, director, plan))
        with Screen(console, [Watcher(store, key)]):
            result = loop.run(store, [key], timeout=options.timeout, until=_over, on_change=director.on_change)
        director.freeze()
    if result.interrupted:
        leave()
    show_times(stage, console, director)
    migration = store.get(key)
    if not isinstance(migration, Migration) or migration.status.phase is not Phase.COMPLETED:
        return show_failure(store, key, console, timed_out=result.timed_out)
    code = compare(stage, console)
    if not options.keep:
        console.print("\nTo look around in both servers afterwards: whimbrel demo --keep", highlight=False)
        return code
    show_around(stage, console, [("the migration", f"{_whimbrel(stage)} status flights -o yaml")])
    wait_for_interrupt()
    return code


def _over(resources: Sequence[Resource]) -> bool:
    return all(finished(resource) or condition(resource.status, "Stalled") is not None for resource in resources)


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


def _approve(store: LocalStore, key: Key, director: Director, plan: str) -> None:
    director.say(
        f"The gates are open. A person would now read the plan and say: whimbrel approve flights --plan {plan}"
    )
    director.say("The demo does that for you.")
    store.patch_spec(key, {"cutover": {"approvedPlan": plan}})
