"""One result of one statement, taken from the connection's socket in large pieces as blocks of rows. Statements
stand in sqltext.

PyMySQL signs in and sends the statement; what comes back is cut by rows (docs/decisions/0002-reading-mysql.md). The
whole result must be read, or the connection closed.
"""

from collections.abc import Iterator
from typing import Any, Final, NoReturn

import pymysql
from pymysql.constants import COMMAND

from whimbrel_worker.endpoints.mysql.connect import Connection
from whimbrel_worker.endpoints.mysql.rows import HEADER_SIZE, cut_packets, payload_size, row_block
from whimbrel_worker.errors import Incompatible, Transient
from whimbrel_worker.values.blocks import RowBlock

_PIECE: Final = 1 << 20
_END, _ERROR, _TWO_BYTES = 0xFE, 0xFF, 0xFC
_LONGEST_END = HEADER_SIZE + 8
"""An EOF packet is shorter than 9 bytes; a row may begin with the same byte, but is longer then."""


class Result:
    """Sends a statement and gives its rows. `where` names the table for messages; for `hexed` see RowBlock.

    Raises PyMySQL's errors for what the server refuses.
    """

    def __init__(self, connection: Connection, statement: str, where: str, hexed: frozenset[int] = frozenset()) -> None:
        driver: Any = connection
        self._where, self._hexed = where, hexed
        self._buffer = bytearray(2 * _PIECE)
        self._cut = self._filled = 0
        self._packets: list[int] = []
        driver._execute_command(COMMAND.COM_QUERY, statement)
        self._socket = driver._sock
        self.columns = self._open()

    def blocks(self, rows: int, size: int) -> Iterator[RowBlock]:
        """Blocks of at most `rows` rows, ended early once they hold `size` bytes."""
        while True:
            cut = cut_packets(self._buffer, self._cut, self._filled, rows - len(self._packets))
            self._packets += cut.starts
            self._cut = cut.end
            ended = bool(cut.starts) and self._ended()
            if self._packets and (ended or len(self._packets) == rows or self._cut >= size):
                yield self._take()
            elif not ended:
                self._refuse_oversized(cut.oversized)
                self._receive()
            if ended:
                return

    def _ended(self) -> bool:
        """Whether the last packet ends the result; then it is dropped."""
        last = self._packets[-1]
        first = self._buffer[last + HEADER_SIZE]
        if first == _ERROR:
            self._raise(last)
        if first != _END or self._cut - last > _LONGEST_END:
            return False
        self._packets.pop()
        self._cut = last
        return True

    def _take(self) -> RowBlock:
        """The packets cut so far as a block; what follows them moves to the buffer's beginning."""
        with memoryview(self._buffer) as view:
            data = bytes(view[: self._cut])
            left = self._filled - self._cut
            view[:left] = view[self._cut : self._filled]
        packets, self._packets = self._packets, []
        self._cut, self._filled = 0, left
        if len(self._buffer) > 8 * _PIECE and left < _PIECE:
            self._buffer = self._buffer[: 2 * _PIECE]
        return row_block(data, packets, self.columns, self._hexed)

    def _open(self) -> int:
        """Read past the columns' definitions. Returns how many columns there are."""
        first = self._pass_packet() + HEADER_SIZE
        columns = self._buffer[first]
        if columns == _TWO_BYTES:
            columns = int.from_bytes(self._buffer[first + 1 : first + 3], "little")
        for _ in range(columns + 1):
            self._pass_packet()
        with memoryview(self._buffer) as view:
            left = self._filled - self._cut
            view[:left] = view[self._cut : self._filled]
        self._cut, self._filled = 0, left
        return columns

    def _pass_packet(self) -> int:
        """Pass over one packet. Returns where it starts; it is in the buffer then."""
        cut = cut_packets(self._buffer, self._cut, self._filled, 1)
        while not cut.starts:
            self._receive()
            cut = cut_packets(self._buffer, self._cut, self._filled, 1)
        start = self._cut
        self._cut = cut.end
        if self._buffer[start + HEADER_SIZE] == _ERROR:
            self._raise(start)
        return start

    def _receive(self) -> None:
        if self._filled + _PIECE > len(self._buffer):
            self._buffer.extend(bytes(max(_PIECE, len(self._buffer) // 2)))
        with memoryview(self._buffer) as view:
            received = self._socket.recv_into(view[self._filled : self._filled + _PIECE])
        if not received:
            raise Transient("the source closed the connection in the middle of a result", where=self._where)
        self._filled += received

    def _raise(self, packet: int) -> NoReturn:
        start = packet + HEADER_SIZE
        pymysql.err.raise_mysql_exception(bytes(self._buffer[start : start + payload_size(self._buffer, packet)]))
        raise AssertionError("raise_mysql_exception returned")

    def _refuse_oversized(self, oversized: bool) -> None:
        if oversized:
            raise Incompatible(
                "a row of 16 MiB or more cannot be carried",
                where=self._where,
                why="a worker's memory is bounded, and so is what a target takes in one statement",
                todo="exclude the table and move it by other means, or shorten the row",
            )
