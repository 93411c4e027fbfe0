"""Generative models for movie production: the code behind the notebooks.

Importing ``lib`` is cheap: nothing heavier than the standard library is loaded here.
"""

from __future__ import annotations

import importlib.machinery
import sys

_declared = []  # the torch library objects that hold the schemas below; they vanish when collected


class _MendTorchvision:
    """Declares two operators that torchvision expects, just before torchvision is first imported.

    A CPU build of torch next to torchvision's registry build cannot load torchvision's own compiled library, and
    then ``import torchvision`` fails with "operator torchvision::nms does not exist". Nothing here uses these two
    operators: declaring their schemas is enough. Where torchvision's library loads, nothing is done.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(_MendTorchvision)
            _declare_missing_operators()
        return None  # the ordinary finders go on to import it


def _declare_missing_operators() -> None:
    package = importlib.machinery.PathFinder.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return
    library = importlib.machinery.PathFinder.find_spec("_C", package.submodule_search_locations)
    if library is None or library.origin is None:
        return
    import torch

    try:
        torch.ops.load_library(library.origin)
        return
    except OSError:
        pass  # built for another torch: torchvision itself will skip it as well
    missing = torch.library.Library("torchvision", "DEF")
    missing.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    missing.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(missing)


if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _MendTorchvision)
