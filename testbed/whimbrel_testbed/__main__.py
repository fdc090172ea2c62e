"""`python -m whimbrel_testbed KIND`: one server of that kind on loopback until interrupted."""

from __future__ import annotations

import sys

from whimbrel_testbed.cache import TestbedError

KINDS = ("mysql", "postgres", "dsql", "kubernetes", "dynamodb", "polardb", "streams")
USAGE = f"""usage: python -m whimbrel_testbed {"|".join(KINDS)}

Starts one server on loopback, prints one line of JSON with all that a client needs, and runs until it is interrupted
(Ctrl-C or SIGTERM). Nothing of it is left behind. Passwords and keys are made anew for each start.
kubernetes is a control plane, built on the first use, and a node that runs pods as processes of this machine.
dynamodb is DynamoDB Local, fetched on the first use; polardb speaks its protocol and keeps the items in PostgreSQL;
streams is DynamoDB Local with streams that can be split, trimmed and made anew by its control address.
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
    from whimbrel_testbed import serve as server

    {
        "mysql": server.serve_mysql, "postgres": server.serve_postgres, "kubernetes": server.serve_kubernetes,
        "dynamodb": server.serve_dynamodb, "polardb": server.serve_polardb, "streams": server.serve_streams,
    }[kind]()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
