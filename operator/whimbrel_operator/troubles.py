"""What an exception means to a person, in one line without secrets. What is done about it stands in daemon."""

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Final

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from whimbrel_operator.errors import OperatorError

_LONGEST: Final = 400


@dataclass(frozen=True)
class Told:
    """`kind` is a word of a small set, for figures. `expected`: not a defect of the program, so no traceback helps."""

    kind: str
    line: str
    expected: bool


def told(error: BaseException) -> Told:
    """Put an exception into words. A body that an API server sends back is cut down to its message."""
    match error:
        case OperatorError():
            return Told(type(error).__name__, one_line(str(error)), expected=True)
        case ApiException():
            return Told(f"Api{error.status or 0}", _api(error), expected=True)
        case TimeoutError():
            return Told("Timeout", "the API server did not answer in time; to see it: kubectl get --raw /readyz", True)
        case ssl.SSLError() | aiohttp.ClientConnectorCertificateError():
            return Told("Tls", one_line(f"the API server's certificate is not trusted: {error}"), expected=True)
        case aiohttp.ClientError() | ConnectionError() | socket.gaierror():
            return Told("Connection", one_line(f"the API server cannot be reached: {error}"), expected=True)
        case _:
            return Told(type(error).__name__, one_line(f"{type(error).__name__}: {error}"), expected=False)


def one_line(text: str) -> str:
    """The text on one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def _api(error: ApiException) -> str:
    words = _message(error.body) or str(error.reason or "")
    todo = {
        401: "; are the operator's credentials valid?",
        403: "; the operator lacks this right: install the roles: helm upgrade --install whimbrel charts/whimbrel",
    }.get(error.status or 0, "")
    return one_line(f"the API server answered {error.status}: {words}") + todo


def _message(body: object) -> str:
    try:
        value = json.loads(body) if isinstance(body, str | bytes) else None
    except ValueError:
        return ""
    return str(value.get("message", "")) if isinstance(value, dict) else ""


def unanswered(error: BaseException) -> bool:
    """Whether the API server said nothing at all; a refusal or an error of its own is an answer."""
    silent = (TimeoutError, aiohttp.ClientError, OSError)
    return isinstance(error, silent) or isinstance(error.__cause__, silent)
