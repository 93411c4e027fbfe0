"""One look for every figure and table."""

from lib.plotting.data import DATA
from lib.plotting.diagrams import Diagram
from lib.plotting.display import SCREEN_DPI, show, show_whole_tables
from lib.plotting.grids import curve, image_grid, show_image
from lib.plotting.layout import Node
from lib.plotting.saving import captions, save
from lib.plotting.style import (
    COLOURS,
    HALF_WIDTH,
    INK,
    MUTED,
    SAVE_DPI,
    TEXT_WIDTH,
    colour,
    size,
    text_width,
    tint,
    use_style,
)
from lib.plotting.tables import Table, table

__all__ = [
    "COLOURS",
    "DATA",
    "HALF_WIDTH",
    "INK",
    "MUTED",
    "SAVE_DPI",
    "SCREEN_DPI",
    "TEXT_WIDTH",
    "Diagram",
    "Node",
    "Table",
    "captions",
    "colour",
    "curve",
    "image_grid",
    "save",
    "show",
    "show_image",
    "show_whole_tables",
    "size",
    "table",
    "text_width",
    "tint",
    "use_style",
]
