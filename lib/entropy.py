"""The old name of `lib.coding`, for what still imports it."""

from lib.coding import (  # noqa: F401
    LARGEST,
    TOTAL,
    BitstreamError,
    Reader,
    SymbolDecoder,
    SymbolEncoder,
    Tables,
    varint,
)
