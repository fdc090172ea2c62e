"""Signed HTTP calls of DynamoDB, its Streams and Kinesis: bytes in, bytes out, retried as retries says.

No item is opened: boto3 spends most of its CPU on that; here the caller's bytes go on the wire.
Protocol: Amazon DynamoDB Developer Guide, "DynamoDB low-level API"; Kinesis speaks the same under other names.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from whimbrel_worker.endpoints.dynamodb.calls.access import Access, Keys, SignIn
from whimbrel_worker.endpoints.dynamodb.calls.clock import Clock
from whimbrel_worker.endpoints.dynamodb.calls.failures import (
    Reply,
    SignInRefused,
    no_such_service,
    of_connection,
    of_reply,
)
from whimbrel_worker.endpoints.dynamodb.calls.retries import Contended, Patience, Throttled, may_repeat, retrying
from whimbrel_worker.endpoints.dynamodb.calls.signing import KINESIS, STREAMS, TABLES, Service, Signer
from whimbrel_worker.endpoints.dynamodb.calls.wire import Wire, WireError
from whimbrel_worker.engine.ports import Tally
from whimbrel_worker.errors import Transient

_OK = 200

Heard = Callable[[Transient], None]


def _always() -> None:
    """Nothing forbids a request."""


class Client:
    """Calls one service with kept-alive connections, at most `connections` at once. Safe for many threads.

    `stop` ends waiting between tries. `tally` counts retries, throttled calls, conflicts and connections.
    """

    def __init__(
        self,
        access: Access,
        *,
        stop: threading.Event | None = None,
        patience: Patience | None = None,
        connections: int = 64,
        tally: Tally | None = None,
    ) -> None:
        self.where, self.tally = access.where, tally or Tally()
        self._access, self._sign_in = access, SignIn(access)
        self._stop, self._patience = stop or threading.Event(), patience or Patience()
        self._service, self._connections = TABLES, connections
        self._clock, self._clock_asked = Clock(), False
        self._signer: tuple[Keys, Signer] | None = None
        self._wire, self._opened, self._counting = _wire(access, connections), 0, threading.Lock()

    @property
    def stop(self) -> threading.Event:
        """Set when the worker is to end: who waits for this service should wait no longer."""
        return self._stop

    def streams(self) -> "Client":
        """The same for DynamoDB Streams: it shares the stop word, the patience and the tally."""
        return self._of(STREAMS, self._access.for_streams())

    def kinesis(self) -> "Client":
        """The same for Kinesis Data Streams."""
        return self._of(KINESIS, self._access.for_kinesis())

    def _of(self, service: Service, access: Access) -> "Client":
        client = Client(
            access, stop=self._stop, patience=self._patience, connections=self._connections, tally=self.tally
        )
        client._service, client._counting = service, self._counting
        return client

    def call(
        self, operation: str, body: bytes, *, heard: Heard | None = None, allowed: Callable[[], None] = _always
    ) -> bytes:
        """The body of the reply to a call. `heard` is told of each failure that is tried again, such as Throttled.

        `allowed` is called right before each request leaves, also a repeated one; what it raises ends the call.

        Raises Refused for what the caller may handle, ConfigurationError for keys and rights, Transient when patience
        has ended; Unanswered (a Transient) when whether it was carried out is not known and it must not be repeated.
        """

        def noticed(failure: Transient) -> None:
            self._count(failure)
            if heard is not None:
                heard(failure)

        return retrying(
            lambda: self._signed_in(operation, body, allowed),
            repeatable=may_repeat(operation, body),
            patience=self._patience,
            stop=self._stop,
            noticed=noticed,
        )

    def ask(self, operation: str, request: Mapping[str, object], *, heard: Heard | None = None) -> dict[str, Any]:
        """The reply to a small call, opened."""
        reply = self.call(operation, orjson.dumps(request), heard=heard)
        try:
            answer = orjson.loads(reply or b"{}")
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise no_such_service(self.where, f"the reply to {operation} is no JSON object")
        return answer

    def clock(self) -> float:
        """The server's clock now, in seconds since 1970, by the Date headers of its replies; our own without any."""
        if not self._clock.is_set and not self._clock_asked:
            self._clock_asked = True
            self.ask(self._service.lister, {"Limit": 1})
        return self._clock.now()

    def principal(self) -> str:
        """Who signs the calls, as STS names him: an ARN. Raises ConfigurationError, Transient."""
        return self._sign_in.principal()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def _signed_in(self, operation: str, body: bytes, allowed: Callable[[], None]) -> bytes:
        keys = self._sign_in.keys()
        try:
            return self._once(operation, body, keys, allowed)
        except SignInRefused:
            if not self._sign_in.renewed(keys):
                raise
        return self._once(operation, body, self._sign_in.keys(), allowed)

    def _once(self, operation: str, body: bytes, keys: Keys, allowed: Callable[[], None]) -> bytes:
        headers = self._signer_of(keys).headers(f"{self._service.prefix}.{operation}", body)
        allowed()
        sent = self._clock.mark()
        try:
            reply = self._wire.exchange(headers, body)
        except WireError as error:
            raise of_connection(error, self.where, operation) from None
        self._clock.learn(reply.headers.get("date"), sent)
        if self._wire.opened != self._opened:
            self._count_connections()
        if reply.status == _OK:
            return reply.body
        told = reply.status, reply.headers, reply.body
        raise of_reply(Reply(self.where, self._access.keys_from, operation, *told, self._service.name))

    def _signer_of(self, keys: Keys) -> Signer:
        kept = self._signer
        if kept is None or kept[0] != keys:
            kept = keys, Signer(self._access.endpoint, self._access.region, *keys, self._service)
            self._signer = kept
        return kept[1]

    def _count(self, failure: Transient) -> None:
        with self._counting:
            self.tally.retries += 1
            self.tally.throttled += isinstance(failure, Throttled)
            self.tally.conflicts += isinstance(failure, Contended)

    def _count_connections(self) -> None:
        with self._counting:
            self.tally.connections += self._wire.opened - self._opened
            self._opened = self._wire.opened


def _wire(access: Access, connections: int) -> Wire:
    address, trust = urlsplit(access.endpoint), access.trust()
    return Wire(address.hostname or "", address.port or (80 if trust is None else 443), trust, connections)
