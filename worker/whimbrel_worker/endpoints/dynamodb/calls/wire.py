"""HTTP over kept-alive connections to one server by urllib3, and what its failures mean. No DynamoDB here."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import urllib3
from urllib3 import exceptions

_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 30.0
_TIMEOUT: Final = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS)
_NOT_SENT: Final = (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.NameResolutionError)


class WireError(Exception):
    """No reply came. The message names no item."""


class Untrusted(WireError):
    """TLS was not agreed upon: certificate, host name, or a server that does not speak it."""


class NotConnected(WireError):
    """No connection came about; nothing was sent."""


class Lost(WireError):
    """The connection broke, or no reply came in time, after something was sent."""


class NotHTTP(WireError):
    """Something answered, but not in HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    """A reply; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Wire:
    """At most `connections` connections to one server; a further call waits for one. Safe for many threads.

    `trust` is None for plain HTTP.
    """

    host: str
    port: int
    trust: ssl.SSLContext | None
    connections: int
    _pool: urllib3.HTTPConnectionPool = field(init=False)

    def __post_init__(self) -> None:
        keep = self.connections
        if self.trust is None:
            self._pool = urllib3.HTTPConnectionPool(self.host, self.port, _TIMEOUT, maxsize=keep, block=True)
            return
        self._pool = urllib3.HTTPSConnectionPool(
            self.host, self.port, _TIMEOUT, maxsize=keep, block=True, ssl_context=self.trust
        )

    @property
    def opened(self) -> int:
        """Connections made so far."""
        return self._pool.num_connections

    def exchange(self, headers: Mapping[str, str], body: bytes) -> Response:
        """The reply to a POST. Raises WireError."""
        try:
            reply = self._pool.urlopen("POST", "/", body=body, headers=headers, retries=False, redirect=False)
        except exceptions.HTTPError as error:
            raise _meaning(error) from None
        headers_back = {name.lower(): value for name, value in reply.headers.items()}
        # A head that was cut off is read as a whole one, with an empty body: what was not done would count as done.
        if not headers_back.get("content-length", "").isdigit() and "transfer-encoding" not in headers_back:
            raise Lost("the reply's head does not say where its body ends")
        return Response(reply.status, headers_back, reply.data)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._pool.close()


def _meaning(error: exceptions.HTTPError) -> WireError:
    """What a failure of urllib3 says about the request: above all whether it may have arrived."""
    name = type(error).__name__
    if isinstance(error, _NOT_SENT):
        return NotConnected(name)
    if isinstance(error, exceptions.SSLError):
        return NotConnected(name) if "EOF" in str(error) else Untrusted(str(error))
    if isinstance(error, exceptions.ProtocolError) and _spoke_something_else(error):
        return NotHTTP(name)
    return Lost(name)


def _spoke_something_else(error: exceptions.ProtocolError) -> bool:
    cause = error.__cause__ or error.__context__
    broken = ("BadStatusLine", "LineTooLong", "UnknownProtocol", "InvalidHeader", "InvalidChunkLength")
    return type(cause).__name__ in broken
