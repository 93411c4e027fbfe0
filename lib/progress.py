"""The progress bar of the commands: what share is done, how fast, and how long the rest will take, on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(title: str, unit: str = "step") -> Iterator[Callable[[int, int], None]]:
    """A function that is called with (done, in all); what there is in all may grow on the way."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, unit_scale=not unit.isalpha(), file=sys.stderr) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress
