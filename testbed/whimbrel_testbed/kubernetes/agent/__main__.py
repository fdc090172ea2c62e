"""`python -m whimbrel_testbed.kubernetes.agent`: arguments and signals. What it does stands in agent.py."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from whimbrel_testbed.kubernetes.agent import __doc__ as about
from whimbrel_testbed.kubernetes.agent.agent import Settings, serve
from whimbrel_testbed.kubernetes.agent.client import ApiError

_RENEW_SECONDS = 2.0


def main() -> None:
    """Be a node until SIGTERM or SIGINT."""
    settings = _settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_until_signal(settings))


async def _until_signal(settings: Settings) -> None:
    serving = asyncio.create_task(serve(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    await asyncio.wait([serving])
    if serving.cancelled() or (error := serving.exception()) is None:
        return
    if isinstance(error, ApiError):
        raise SystemExit(
            f"The node {settings.node_name} cannot be registered: {error}. "
            f"Look at what {settings.kubeconfig} may do: kubectl --kubeconfig {settings.kubeconfig} auth can-i --list"
        )
    raise error


def _settings() -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m whimbrel_testbed.kubernetes.agent", description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kubeconfig", type=Path, required=True, help="how to reach the API server")
    parser.add_argument("--node-name", required=True, help="the name to register as")
    parser.add_argument("--directory", type=Path, required=True, help="where pods have their files; made private")
    parser.add_argument("--cert-file", type=Path, help="certificate of the log port (default: one of its own)")
    parser.add_argument("--key-file", type=Path, help="key of that certificate")
    parser.add_argument(
        "--renew-seconds",
        type=float,
        default=_RENEW_SECONDS,
        help="how often the node's Lease is renewed (%(default)s)",
    )
    parser.add_argument(
        "--environment-file",
        type=Path,
        help="lines NAME=value that every container is given, read at each start; the file may be missing",
    )
    given = parser.parse_args()
    if (given.cert_file is None) != (given.key_file is None):
        parser.error("--cert-file and --key-file belong together")
    if not given.kubeconfig.is_file():
        parser.error(f"--kubeconfig {given.kubeconfig} is no file")
    certificate = None if given.cert_file is None else (given.cert_file, given.key_file)
    environment = None if given.environment_file is None else given.environment_file.resolve()
    directory = given.directory.resolve()
    return Settings(given.kubeconfig, given.node_name, directory, given.renew_seconds, certificate, environment)


if __name__ == "__main__":
    main()
