"""Rendered actors: a parametric head with identity, expression, pose and light as separate inputs.

    frame = actors.render("alma", {"jawOpen": 0.5}, actors.Pose(yaw=15), actors.Light(), size=128)
    truth = actors.render("bruno", {"jawOpen": 0.5}, actors.Pose(yaw=15), actors.Light(), size=128)   # the exact swap
    frames = [actors.render("emi", expression, pose) for expression, pose in actors.performance(seed=1, frames=75)]

The pack next to this module holds all data (MakeHuman, CC0; see NOTICE): nothing is downloaded. Heads are synthetic and
look so: no pores, no cast shadows, hair as a shell. Say so wherever results are shown.
"""

from __future__ import annotations

from lib.data.actors.expressions import ARKIT, EXPRESSIONS, Pose, blend, code, performance
from lib.data.actors.identities import IDENTITIES, Brow, Hair, Identity, Look, identity, random_identity
from lib.data.actors.renderer import REGIONS, Frame, Light, render

__all__ = [
    "ARKIT",
    "EXPRESSIONS",
    "IDENTITIES",
    "REGIONS",
    "Brow",
    "Frame",
    "Hair",
    "Identity",
    "Light",
    "Look",
    "Pose",
    "blend",
    "code",
    "identity",
    "performance",
    "random_identity",
    "render",
]
