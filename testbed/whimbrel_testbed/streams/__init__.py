"""DynamoDB Streams that split, trim, expire and begin anew at will; __all__ says what may be imported."""

from whimbrel_testbed.streams.control import Control
from whimbrel_testbed.streams.server import StreamServer, Upstream, stream_server

__all__ = ["Control", "StreamServer", "Upstream", "stream_server"]
