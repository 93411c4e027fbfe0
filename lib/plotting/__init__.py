"""One look for every figure and table, and one way to show them: notebooks tell, this package formats.

How a chapter shows a result
----------------------------
1. In ``lib/<chapter>/figures.py`` a function draws it, or makes its table, and is declared with a name and a caption::

       FORMATS = {"bits/dim": ".3f", "parameters": ",.0f"}      # one mapping for all tables of the chapter

       @declare_figure("training", "Training logs on MNIST, preset {preset}, seed {seed}.")
       def training(logs: Mapping[str, pd.DataFrame]) -> tuple[Figure, Any]:
           fig, ax = plt.subplots(figsize=plotting.size(2.5))
           curve(ax, logs["flow"]["step"], logs["flow"]["bits_per_dim"], "flow", smooth=5)
           return fig, logs                                      # the figure and the data behind it

       @declare_table("ablation", "One change at a time, {settings.seeds} seeds, preset {preset}.", FORMATS,
                      best={"bits/dim": "min"})
       def ablation(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
           return pd.DataFrame(rows)[["variant", "bits/dim", "parameters"]]

   Figures made by `image_grid` and `Diagram` know their data: return the figure alone. A caption names data set,
   preset and model. Its fields are ``{preset}``, ``{seed}``, values of the configuration (``{settings.seeds}``) and
   what the notebook adds; a figure that is drawn several times has a field in its name, too (``"samples_{split}"``).
2. The notebook makes one `Display` after its parameters, and then needs one line for each result::

       plotting.use_style()
       show = plotting.Display("02_background", run, settings)

       show(figures.training(logs))
       show(figures.comparison(scores, timing), device=timing.device)

   That writes PNG, PDF, CSV, Markdown and the caption, and shows the caption with a link to the CSV and the command.
3. A new method gets its colour in `COLOURS` (``style.py``). The same data give the same bytes on every run: nothing
   dated is written, and the fonts are those that matplotlib carries.

`save` and `table` are what `Display` calls; use them where there is no chapter, such as in ``lib.claims``.
"""

from lib.plotting.data import DATA
from lib.plotting.declared import Display, Drawing, Results, declare_figure, declare_table
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
    "Display",
    "Drawing",
    "Node",
    "Results",
    "Table",
    "captions",
    "colour",
    "curve",
    "declare_figure",
    "declare_table",
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
