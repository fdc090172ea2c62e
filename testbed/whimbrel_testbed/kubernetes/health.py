"""Ports for servers that keep them, and the question whether a server there is ready; nothing is started here."""

from __future__ import annotations

import http.client
import random
import socket
import ssl
from pathlib import Path

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.processes import HOST

_LOWEST, _HIGHEST = 20000, 32000
_TRIES = 200


def steady_ports(number: int) -> list[int]:
    """Return free ports that no outgoing connection takes, so that a server may leave one and come back to it.

    Linux gives outgoing connections ports from 32768 on (ip_local_port_range); these lie below.
    """
    chooser = random.SystemRandom()
    found: list[int] = []
    for port in chooser.sample(range(_LOWEST, _HIGHEST), _TRIES):
        if _is_free(port):
            found.append(port)
        if len(found) == number:
            return found
    raise TestbedError(f"Fewer than {number} ports of {_TRIES} tried between {_LOWEST} and {_HIGHEST} are free.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def client_context(ca_file: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how a client with a certificate verifies a server of the cluster."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.load_cert_chain(certificate, key)
    return context


def answers(port: int, path: str, context: ssl.SSLContext, host: str = HOST) -> bool:
    """Say whether GET gives 200; False as well where nobody listens or the answer is no HTTP."""
    connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
