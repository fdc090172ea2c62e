"""`whimbrel demo`: a server under traffic moves to another kind of server, on this machine.

The servers, the data, the traffic and the last comparison are the test bed's; the migration is the product's own.
"""

from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from whimbrel_cli.demo.options import Options, Pair
from whimbrel_cli.exits import EXIT_CODES, CliError


@click.command(epilog=EXIT_CODES, short_help="Shows a whole migration on this machine.")
@click.option(
    "--pair", type=click.Choice([pair.value for pair in Pair]), default=Pair.MYSQL.value, show_default=True,
    help="What moves: mysql to Aurora DSQL, or dynamodb to PolarDB; each target is a server that behaves like it.",
)  # fmt: skip
@click.option("--on-cluster", is_flag=True, help="On a Kubernetes cluster of its own, by the operator and kubectl.")
@click.option("--no-rollback", is_flag=True, help="dynamodb: end with the cutover, without a way back.")
@click.option("--keep", is_flag=True, help="Leave the servers running at the end, to look around, until Ctrl-C.")
@click.option("--rate", type=click.FloatRange(min=1), default=200.0, show_default=True, help="Rows changed per second.")
@click.option("--rows", type=click.IntRange(min=1), help="Load only the first rows of each table (dynamodb: 20,000).")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the traffic.")
@click.option(
    "--timeout", type=float,
    help="Give up after so many seconds; by default 300, on a cluster 600, and with a rollback 300 more.",
)  # fmt: skip
@click.option(
    "--example", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="The manifest to run; by default that of the pair, in examples/.",
)  # fmt: skip
def demo(
    *,
    pair: str,
    on_cluster: bool,
    no_rollback: bool,
    keep: bool,
    rate: float,
    rows: int | None,
    seed: int,
    timeout: float | None,
    example: Path | None,
) -> int:
    """Shows a whole migration on this machine: nothing to set up, nothing left behind, no root.

    A MySQL server gets the flights of 2013 from New York and an application that goes on writing. The manifest
    examples/mysql-to-aurora-dsql.yaml moves it to a server that behaves as Aurora DSQL does. The application moves with
    it, and what both held at that moment is compared by plain SQL, which shares no code with Whimbrel. Exit code 0 only
    when it finds nothing. How long the writes stopped is measured by the application itself.

    With --pair dynamodb it is DynamoDB Local with the flights as items, examples/dynamodb-to-polardb.yaml, and a server
    that behaves as PolarDB's DynamoDB endpoint does. There the cutover has a way back: what the application writes to
    the target flows back to the source, and the demo ends with a rollback.

    With --on-cluster the test bed starts a Kubernetes API server, controllers, scheduler and a node that runs pods as
    processes; the operator does the work, and what is shown is what kubectl shows. Its programs are built on first use,
    which takes minutes.

    \b
    Examples:
      whimbrel demo
      whimbrel demo --pair dynamodb
      whimbrel demo --on-cluster
      whimbrel demo --keep            look at both servers afterwards
      whimbrel demo | tee demo.log    lines instead of the live view
    """
    from whimbrel_cli.demo.stage import interruptible
    from whimbrel_testbed.cache import TestbedError

    chosen = Pair(pair)
    way_back = chosen is Pair.DYNAMODB and not no_rollback
    patience = timeout or (600.0 if on_cluster else 300.0) + (300.0 if way_back else 0.0)
    options = Options(
        example or chosen.example, chosen, keep=keep, rate=rate, rows=rows, seed=seed, timeout=patience,
        way_back=way_back,
    )  # fmt: skip
    try:
        with interruptible(), ExitStack() as stack:
            return _play(stack, options, on_cluster=on_cluster)
    except TestbedError as error:
        raise CliError(f"The demo's servers cannot be had: {error}") from None


def _play(stack: ExitStack, options: Options, *, on_cluster: bool) -> int:
    # Each brings much that the other commands do not need.
    if on_cluster:
        from whimbrel_cli.demo.cluster import play as play_on_cluster

        return play_on_cluster(stack, Console(), options)
    from whimbrel_cli.demo.local import play

    return play(stack, Console(), options)
