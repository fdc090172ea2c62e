"""Which stage a demo plays on. The stages themselves stand in modules of their own."""

from contextlib import ExitStack

from rich.console import Console

from whimbrel_cli.demo.options import Options, Pair
from whimbrel_cli.demo.stage import Stage


def set_stage(stack: ExitStack, console: Console, options: Options) -> Stage:
    """Starts both servers and fills the source. Raises TestbedError."""
    # Each brings servers that the other does not need.
    if options.pair is Pair.DYNAMODB:
        from whimbrel_cli.demo.dynamodb_stage import set_dynamodb_stage

        return set_dynamodb_stage(stack, console, options)
    from whimbrel_cli.demo.mysql_stage import set_mysql_stage

    return set_mysql_stage(stack, console, options)
