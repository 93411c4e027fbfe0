"""Diagrams of chapter 6: what needs no numbers."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from lib.plotting import MUTED, Diagram, declare_figure


@declare_figure(
    "concept",
    "The decoder of a GAN codec, and what the student replaces. Right: decoded by it ({clip}; stored, "
    "preset {preset}).",
)
def concept(frame: Any, decoded: Any) -> Figure:
    """One decoder of a GAN codec, and where the student takes the place of its residual network."""
    d = Diagram(height=2.5)
    y = 1.75
    x = d.image(0.55, y, frame, 0.86, note="$x$", pixelated=False)
    encoder = d.trapezoid(1.5, y, "encoder", w=0.78, h=0.75, narrow="right", ratio=0.5, colour="data")
    stream = d.box(2.26, y, "0110…", w=0.5, h=0.36)
    head = d.box(2.95, y, "head", w=0.52, h=0.5, colour="HiFiC")
    residual = d.box(3.83, y, "residual\nnetwork", w=0.78, h=0.62, colour="HiFiC")
    plus = d.circle(4.5, y, "$+$", r=0.13)
    tail = d.box(5.02, y, "tail", w=0.5, h=0.5, colour="HiFiC")
    end = d.image(5.83, y, decoded, 0.86, note="$\\hat x$", pixelated=False)
    d.chain(x, encoder, stream, head, residual, plus, tail, end)
    above = y + 0.5
    d.arrow(head, plus, via=((2.95, above), (4.5, above)), colour=MUTED)
    micro = d.box(3.83, 0.75, "MicroRN", w=0.78, h=0.42, colour="MicroRN")
    d.arrow(head, micro, via=((2.95, 0.75),), colour="MicroRN", dashed=True)
    d.arrow(micro, plus, via=((4.5, 0.75),), colour="MicroRN", dashed=True)
    side = d.box(2.26, 0.26, "weights", w=0.66, h=0.34, colour="MicroRN")
    d.arrow(side, micro, via=((3.83, 0.26),), colour="MicroRN")
    d.text(4.02, 0.36, "sent once for a sequence", ha="left", colour="MicroRN")
    return d.fig


@declare_figure(
    "micro_network",
    "MicroRN as we use it at the published width (above), and one degradation-aware convolution (below).",
)
def micro_network(blocks: int, channels: int, hidden: int) -> Figure:
    """MicroRN above, one degradation-aware convolution below."""
    d = Diagram(height=3.15)
    y = 2.45
    d.text(0.05, 2.98, f"MicroRN ($C={hidden}$, $B={blocks}$)", ha="left")
    h = d.box(0.35, y, "$h$", w=0.36, h=0.36)
    into = d.box(1.2, y, f"conv\n{channels} → {hidden}", w=0.86, h=0.48, colour="MicroRN")
    first = d.box(2.2, y, "DA block", w=0.72, h=0.4, colour="MicroRN")
    last = d.box(3.2, y, "DA block", w=0.72, h=0.4, colour="MicroRN")
    plain = d.box(4.08, y, "conv 3×3", w=0.72, h=0.4, colour="MicroRN")
    plus = d.circle(4.66, y, "$+$", r=0.12)
    out = d.box(5.32, y, f"conv\n{hidden} → {channels}", w=0.86, h=0.48, colour="MicroRN")
    r = d.box(6.06, y, "$r$", w=0.32, h=0.36)
    d.chain(h, into, first)
    d.chain(last, plain, plus, out, r)
    d.arrow(first, last, dashed=True)
    d.arrow(into, plus, via=((1.2, y - 0.5), (4.66, y - 0.5)), colour=MUTED)
    d.text(
        0.05, 1.6, "one degradation-aware convolution; what the code decides is worked out before sending", ha="left"
    )
    y = 0.95
    features = d.box(0.5, y, "features", w=0.72, h=0.36)
    depth = d.box(1.95, y, "depth-wise 3×3", w=1.1, h=0.38, colour="MicroRN")
    relu = d.box(3.05, y, "LReLU", w=0.56, h=0.36)
    mix = d.box(3.95, y, "conv 1×1", w=0.72, h=0.38, colour="MicroRN")
    add = d.circle(4.62, y, "$+$", r=0.12)
    end = d.box(5.45, y, "features", w=0.72, h=0.36)
    d.chain(features, depth, relu, mix, add, end)
    code = d.box(0.5, 0.26, "code $r_{seq}$", w=0.74, h=0.34, colour="photographs")
    scale = d.box(3.05, 0.26, "× attention", w=0.86, h=0.34, colour="MicroRN")
    d.arrow(code, depth, via=((1.95, 0.26),), dashed=True, colour="photographs")
    d.arrow(code, scale, dashed=True, colour="photographs")
    d.arrow(scale, add, via=((4.62, 0.26),), colour=MUTED)
    return d.fig


@declare_figure(
    "video_pipeline", "Coding a frame from the one before: what stands in the lower row, the decoder computes as well."
)
def video_pipeline() -> Figure:
    """How a frame is coded from the one before: what encoder and decoder both compute stands below."""
    d = Diagram(height=2.45)
    y = 1.95
    x = d.box(0.4, y, "frame $x_t$", w=0.78, h=0.4)
    encoder = d.box(1.5, y, "encoder", w=0.74, h=0.4, colour="data")
    minus = d.circle(2.3, y, "$-$", r=0.13)
    stream = d.box(3.2, y, "0110…", w=0.56, h=0.36)
    plus = d.circle(4.1, y, "$+$", r=0.13)
    generator = d.box(5.0, y, "generator\n(student)", w=0.84, h=0.5, colour="MicroRN")
    end = d.box(5.93, y, "$\\hat x_t$", w=0.46, h=0.38)
    chain = (x, encoder, minus, stream, plus, generator, end)
    for a, b, text in zip(chain, chain[1:], ("", "$y_t$", "", "", "$\\hat y_t$", ""), strict=False):
        d.arrow(a, b, text)
    y = 0.55
    before = d.box(0.5, y, "$\\hat x_{t-1}$, $\\hat y_{t-1}$", w=0.86, h=0.42)
    move = d.box(1.55, y, "move", w=0.6, h=0.4, colour="photographs")
    again = d.box(2.55, y, "encoder", w=0.74, h=0.4, colour="data")
    predictor = d.box(3.65, y, "predictor", w=0.8, h=0.4, colour="photographs")
    d.chain(before, move, again, predictor)
    d.arrow(before, predictor, via=((0.5, 0.12), (3.65, 0.12)), colour=MUTED)
    d.arrow(predictor, minus, via=((3.65, 1.2), (2.3, 1.2)), colour="photographs")
    d.arrow(predictor, plus, via=((3.65, 1.2), (4.1, 1.2)), colour="photographs")
    d.arrow(x, move, via=((0.4, 1.2), (1.55, 1.2)), colour=MUTED)
    d.text(0.5, 1.34, "flow (coded)", ha="left", colour=MUTED)
    return d.fig
