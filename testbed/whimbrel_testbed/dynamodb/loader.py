"""Puts many items into a table fast: signed BatchWriteItem calls over plain HTTP, with the items' JSON as it is.

For loading before a test or a measurement. What the items are is the caller's affair.
"""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from whimbrel_testbed.cache import TestbedError

BATCH: Final = 25
_ATTEMPTS: Final = 12
_LONGEST_PAUSE: Final = 2.0
_ALL_DONE: Final = b'{"UnprocessedItems":{}}'
_PASSING: Final = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")


def write_items(facts: Mapping[str, str], table: str, items: Iterable[bytes], *, threads: int = 4) -> int:
    """Put items, each DynamoDB's JSON of one without its outer name, and return how many there were.

    No key may come twice within 25 items that follow one another. What is throttled or given back is sent again;
    TestbedError where that does not end, or for any other refusal. `facts`: endpoint, region, accessKeyId,
    secretAccessKey.
    """
    batches: queue.Queue[list[bytes] | None] = queue.Queue(threads * 4)
    writers = [_Writer(facts, table, batches) for _ in range(threads)]
    for writer in writers:
        writer.start()
    count = 0
    for batch in _pieces(items):
        if any(writer.error for writer in writers):
            break
        batches.put(batch)
        count += len(batch)
    for _ in writers:
        batches.put(None)
    for writer in writers:
        writer.join()
    for writer in writers:
        if writer.error is not None:
            raise TestbedError(f"Loading {table} failed: {writer.error}") from writer.error
    return count


def _pieces(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(items)
    while batch := list(itertools.islice(source, BATCH)):
        yield batch


class _Writer(threading.Thread):
    """Writes batches until a None comes; after an error it only empties the queue, so that nobody waits for it."""

    def __init__(self, facts: Mapping[str, str], table: str, batches: queue.Queue[list[bytes] | None]) -> None:
        super().__init__(name=f"load-{table}", daemon=True)
        self._facts, self._table, self._batches = facts, table, batches
        self._place = urlsplit(facts["endpoint"])
        keys = Credentials(facts["accessKeyId"], facts["secretAccessKey"], facts.get("sessionToken"))
        self._signer = SigV4Auth(keys, "dynamodb", facts["region"])
        self._connection = self._connected()
        self.error: TestbedError | None = None

    def run(self) -> None:
        """Work through the queue."""
        while (batch := self._batches.get()) is not None:
            if self.error is None:
                try:
                    self._write(batch)
                except TestbedError as error:
                    self.error = error
        self._connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        secure = self._place.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._place.hostname or "", self._place.port or (443 if secure else 80), timeout=60)

    def _write(self, batch: list[bytes]) -> None:
        puts = b",".join([b'{"PutRequest":{"Item":%b}}' % item for item in batch])
        body = b'{"RequestItems":{%b:[%b]}}' % (json.dumps(self._table).encode(), puts)
        last = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(_LONGEST_PAUSE, 0.02 * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311
            status, content = self._send(body)
            if content == _ALL_DONE:
                return
            told = json.loads(content or b"{}")
            if status == 200:
                rest: dict[str, Any] = told.get("UnprocessedItems") or {}
                if not rest:
                    return
                body, last = json.dumps({"RequestItems": rest}).encode(), "items were given back unprocessed"
                continue
            name = told.get("__type", "").rpartition("#")[2]
            last = f"{status} {name}: {told.get('message') or told.get('Message') or content!r}"
            if 400 <= status < 500 and name not in _PASSING:
                break
        raise TestbedError(f"{self._facts['endpoint']} said {last}")

    def _send(self, body: bytes) -> tuple[int, bytes]:
        """Send one call; a status of 0 with the reason where the connection is lost."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.BatchWriteItem"}
        request = AWSRequest("POST", self._facts["endpoint"] + "/", headers=headers, data=body)
        self._signer.add_auth(request)
        try:
            self._connection.request("POST", "/", body, dict(request.headers))
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, json.dumps({"__type": type(error).__name__, "message": str(error)}).encode()
