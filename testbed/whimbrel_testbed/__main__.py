"""`python -m whimbrel_testbed mysql|postgres|dsql|kubernetes`: one real server on loopback until interrupted."""

from __future__ import annotations

import sys

from whimbrel_testbed.cache import TestbedError

KINDS = ("mysql", "postgres", "dsql", "kubernetes")
USAGE = """usage: python -m whimbrel_testbed mysql|postgres|dsql|kubernetes

Starts one server on loopback, prints one line of JSON with all that a client needs, and runs until it is interrupted
(Ctrl-C or SIGTERM). Nothing of it is left behind. Passwords and keys are made anew for each start.
kubernetes is a control plane, built on the first use, and a node that runs pods as processes of this machine.
"""


def main(arguments: list[str]) -> int:
    """Run one server; exit code 0 after an interruption, 1 where the server cannot be had, 2 for a wrong command."""
    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if len(arguments) != 1 or arguments[0] not in KINDS:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        _serve(arguments[0])
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(kind: str) -> None:
    if kind == "dsql":
        from whimbrel_testbed.dsql import serve

        serve()
        return
    from whimbrel_testbed.serve import serve_kubernetes, serve_mysql, serve_postgres

    {"mysql": serve_mysql, "postgres": serve_postgres, "kubernetes": serve_kubernetes}[kind]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
