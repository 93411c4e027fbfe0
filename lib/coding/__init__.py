"""What the codecs of chapters 5 and 6 share: a range coder, exact integer arithmetic, tables, and the container.

    container   numbers, checksums, sizes: what every file format here is made of
    tables      probabilities of integer symbols as 16-bit integers
    rans        symbols <-> bytes
    exact       convolutions that give the same number on every machine
"""

from lib.coding.container import BitstreamError, Reader, check_size, varint
from lib.coding.rans import LARGEST, SymbolDecoder, SymbolEncoder
from lib.coding.tables import TOTAL, Tables

__all__ = [
    "LARGEST",
    "TOTAL",
    "BitstreamError",
    "Reader",
    "SymbolDecoder",
    "SymbolEncoder",
    "Tables",
    "check_size",
    "varint",
]
