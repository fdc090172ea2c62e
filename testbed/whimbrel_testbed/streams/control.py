"""Giving orders to a running stream server, from any process: JSON over HTTP at its `/_control/`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from whimbrel_testbed.streams.dials import DESCRIBES_A_SECOND, READERS

CONTROL_PATH: Final = "/_control/"
_SECONDS: Final = 60.0
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback only: no proxy of the environment may come in between."""


class Control:
    """The client; `url` is what the server's JSON line names as `control`. Orders that cannot be raise ValueError.

    An order is carried out after all that was written before it: those records stand before a split, for example.
    Tables and shards are named as DynamoDB names them; orders are about the table's newest stream.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def split(self, table: str, shard: str | None = None) -> list[str]:
        """Close a shard (the widest open one); each of two children takes half of its keys. Return their names."""
        return list(self._ask("split", table=table, shard=shard))

    def roll(self, table: str, shard: str | None = None) -> list[str]:
        """Close a shard (every open one); one child takes all of its keys. Return the children's names."""
        return list(self._ask("roll", table=table, shard=shard))

    def trim(self, table: str, shard: str | None = None, before_sequence: str | None = None) -> int:
        """Forget the records of a shard (of all) before a number (all there are); return how many they were."""
        return int(self._ask("trim", table=table, shard=shard, before_sequence=before_sequence))

    def drop_closed_shards(self, table: str, older_than: float = 0.0) -> list[str]:
        """Take shards that closed that many seconds ago out of DescribeStream, records and all; return their names."""
        return list(self._ask("drop_closed_shards", table=table, older_than=older_than))

    def recreate(self, table: str) -> str:
        """Disable the stream and enable a new one; return its ARN. The old one stays, DISABLED and readable."""
        return str(self._ask("recreate", table=table))

    def ttl_delete(self, table: str, key: Mapping[str, Any]) -> bool:
        """Delete an item as time to live does, `userIdentity` and all; `key` is typed. Return whether it was there."""
        return bool(self._ask("ttl_delete", table=table, key=dict(key)))

    def expire_iterators(self) -> None:
        """Every iterator given so far answers ExpiredIteratorException."""
        self._ask("expire_iterators")

    def iterator_lifetime(self, seconds: float) -> None:
        """Iterators older than this answer ExpiredIteratorException (dials.ITERATOR_SECONDS)."""
        self._ask("iterator_lifetime", seconds=seconds)

    def empty_pages(self, n: int, table: str, shard: str | None = None) -> None:
        """The next n GetRecords of a shard (of each one) give an empty page, whatever there is to read."""
        self._ask("empty_pages", n=n, table=table, shard=shard)

    def throttle(
        self, n: int, operation: str = "GetRecords", kind: str = "ProvisionedThroughputExceededException"
    ) -> None:
        """The next n calls of an operation (of DynamoDB too) answer this error."""
        self._ask("throttle", n=n, operation=operation, kind=kind)

    def refuse(self, operation: str, on: bool = True) -> None:
        """Calls of an operation (of DynamoDB too) answer AccessDeniedException."""
        self._ask("refuse", operation=operation, on=on)

    def limit_readers(self, readers: int | None = READERS, window: float = 1.0) -> None:
        """One reader of a shard more than this, within `window` seconds, answers LimitExceededException.

        None: no limit. A reader is an iterator from GetShardIterator with all those that came from it.
        """
        self._ask("limit_readers", readers=readers, window=window)

    def limit_describes(self, a_second: int | None = DESCRIBES_A_SECOND) -> None:
        """More DescribeStream calls in a second answer ThrottlingException; None: no limit."""
        self._ask("limit_describes", a_second=a_second)

    def big_sequence_numbers(self, table: str | None = None, start: int | str = 10**21 - 2) -> None:
        """Numbers go on one by one from `start`; by default they soon gain a digit, and text order is another then.

        Without a table: in every enabled stream and in those to come.
        """
        self._ask("big_sequence_numbers", table=table, start=str(start))

    def delay_new_shards(self, seconds: float) -> None:
        """DescribeStream shows children only this long after their parents closed."""
        self._ask("delay_new_shards", seconds=seconds)

    def shuffle_shard_listing(self, seed: int | None = 1) -> None:
        """DescribeStream lists shards in an order drawn from the seed, children before parents too; None: by age."""
        self._ask("shuffle_shard_listing", seed=seed)

    def initial_shards(self, count: int) -> None:
        """Streams made from now on begin with this many shards."""
        self._ask("initial_shards", count=count)

    def kinesis_stream(self, name: str, shards: int = 1, kept_hours: int = 24) -> str:
        """Make a Kinesis data stream; return its ARN. Tables write into it by EnableKinesisStreamingDestination."""
        return str(self._ask("kinesis_stream", name=name, shards=shards, kept_hours=kept_hours))

    def kinesis_disorder(self, name: str, seconds: float = 0.0, twice: float = 0.0) -> None:
        """From now on each record arrives up to so many seconds late, and that share of them arrives twice."""
        self._ask("kinesis_disorder", name=name, seconds=seconds, twice=twice)

    def kinesis_split(self, name: str) -> list[str]:
        """Close a Kinesis data stream's widest open shard; two children take its halves. Return their names."""
        return list(self._ask("kinesis_split", name=name))

    def kinesis_merge(self, name: str) -> str:
        """Close its two narrowest neighbouring shards; one child takes the range of both. Return its name."""
        return str(self._ask("kinesis_merge", name=name))

    def kinesis_trim(self, name: str, older_than: float = 0.0) -> int:
        """Forget in silence what arrived longer ago than that many seconds; return how many records that were."""
        return int(self._ask("kinesis_trim", name=name, older_than=older_than))

    def shards(self, table: str) -> list[dict[str, Any]]:
        """All shards, dropped ones too: shardId, parent, open, dropped, records, hashes, trimmedBelow, first, last,
        starting, ending; numbers as texts.
        """
        return list(self._ask("shards", table=table))

    def _ask(self, order: str, **arguments: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}{order}", json.dumps(arguments).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _OPENER.open(request, timeout=_SECONDS) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise ValueError(_told(text)) from error


def _told(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError):
        return text
