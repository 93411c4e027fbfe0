"""rANS for streams that may come from anybody: CompressAI's coder with integer tables and bounded escapes.

    symbols, which table each -> SymbolEncoder -> bytes:  escapes (length, then varints) | segment ... | segment
                                                                       each segment but the last behind its length

Table i covers the symbols -K_i..K_i in 16 bits (`lib.coding.tables`). Its outermost entries are escapes: how far
|symbol| exceeds K follows as a varint beside the rANS data. CompressAI has an escape of its own, whose decoder reads as
much as the stream tells it to; its interval has length zero here, so it cannot occur, and every symbol takes at most
one 32-bit word. The decoder pads the data by that much: no stream, however hostile, makes it read beyond its memory.
The bytes end with two known symbols, so that a decoder out of step is noticed.
"""

from __future__ import annotations

import numpy as np

from lib.coding.container import BitstreamError, Reader, varint
from lib.coding.tables import Tables

SEGMENT = 2**21  # symbols of one rANS segment
LARGEST = 2**20  # of a symbol
MARKER = (0xA5, 0x5A)


class SymbolEncoder:
    """Symbols -> bytes. Feed them in the order in which the decoder will ask for them."""

    def __init__(self, tables: Tables) -> None:
        from compressai import ans

        self._tables, self._coder, self._count = tables, ans.BufferedRansEncoder(), 0
        self._segments: list[bytes] = []
        self._escapes = bytearray()

    def put(self, symbols: np.ndarray, index: np.ndarray) -> None:
        """``symbols``: integers, |s| <= 2^20; ``index``: integers, their tables; both one-dimensional."""
        k = self._tables.half_widths[index]
        large = np.flatnonzero(np.abs(symbols) >= k)
        for position in large:
            self._escapes += varint(int(abs(symbols[position]) - k[position]))
        self._put(np.clip(symbols, -k, k), index)

    def _put(self, symbols: np.ndarray, index: np.ndarray) -> None:
        start = 0
        while start < len(symbols):
            if self._count == SEGMENT:
                self._segments.append(self._coder.flush())
                self._count = 0
            end = min(len(symbols), start + SEGMENT - self._count)
            self._coder.encode_with_indexes(symbols[start:end].tolist(), *self._tables.chosen(index[start:end]))
            self._count += end - start
            start = end

    def finish(self) -> bytes:
        """The bytes."""
        self._put(np.array(MARKER), np.full(len(MARKER), self._tables.marker))
        *full, last = [*self._segments, self._coder.flush()]
        segments = b"".join(varint(len(segment)) + segment for segment in full)
        return varint(len(self._escapes)) + bytes(self._escapes) + segments + last


class SymbolDecoder:
    """Bytes -> symbols. ``total``: how many symbols there are."""

    def __init__(self, tables: Tables, payload: bytes, total: int) -> None:
        from compressai import ans

        self._tables, self._reader = tables, Reader(payload)
        self._escapes = Reader(self._reader.take(self._reader.varint(len(payload))))
        self._coder, self._left, self._remaining = ans.RansDecoder(), 0, total + len(MARKER)

    def _open(self) -> None:
        """Go to the next segment."""
        reader = self._reader
        rest = len(reader.data) - reader.position
        segment = reader.take(reader.varint(rest) if self._remaining > SEGMENT else rest)
        if len(segment) < 8 or len(segment) % 4:
            raise BitstreamError("the stream is damaged: a segment has an impossible length; fetch or write it again")
        self._left = min(SEGMENT, self._remaining)
        # a word a symbol, and the initial state: see above
        self._coder.set_stream(segment + bytes(4 * self._left + 16))

    def _get(self, index: np.ndarray) -> np.ndarray:
        parts, start = [np.zeros(0, np.int32)], 0
        while start < len(index):
            if not self._left:
                self._open()
            end = min(len(index), start + self._left)
            parts.append(np.array(self._coder.decode_stream(*self._tables.chosen(index[start:end])), np.int32))
            self._left -= end - start
            self._remaining -= end - start
            start = end
        return np.concatenate(parts)

    def get(self, index: np.ndarray) -> np.ndarray:
        """The next symbols, int32, given their tables.

        Raises:
            BitstreamError: an escape is missing or out of range.
        """
        symbols = self._get(index)
        k = self._tables.half_widths[index]
        for position in np.flatnonzero(np.abs(symbols) >= k):
            extra = self._escapes.varint(LARGEST)
            symbols[position] += extra if symbols[position] > 0 else -extra
        return symbols

    def finish(self) -> None:
        """Check that the bytes end here, in step.

        Raises:
            BitstreamError: they do not.
        """
        marker = self._get(np.full(len(MARKER), self._tables.marker))
        if tuple(marker) != MARKER or self._escapes.position != len(self._escapes.data):
            raise BitstreamError(
                "the decoder lost its step: this stream was not written by this model and version, or is damaged"
            )
