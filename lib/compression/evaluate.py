"""Measurements of chapter 5: rate and distortion from bytes and 8-bit images, BD-rate, repeated coding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.claims import intervals
from lib.compression.baselines import Baseline
from lib.compression.bitstream import unpack
from lib.compression.codec import Codec
from lib.vision import metrics

LOSSLESS = 100.0  # dB: what identical images count as, since means need a number
DRAWS = 200  # of photographs, for the interval of a BD-rate

Images = Iterable[tuple[str, np.ndarray]]


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` -> float ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def distortions(image: np.ndarray, decoded: np.ndarray, lpips: metrics.Lpips | None = None) -> dict[str, float]:
    """``psnr`` (dB, RGB, at most `LOSSLESS`), ``ms_ssim`` (NaN for small images) and, if given, ``lpips``."""
    x, y = to_tensor(image), to_tensor(decoded)
    large = min(image.shape[:2]) > 160
    values = {
        "psnr": min(LOSSLESS, float(metrics.psnr(x, y))),
        "ms_ssim": float(metrics.ms_ssim(x, y)) if large else float("nan"),
    }
    if lpips is not None:
        with torch.no_grad():
            values["lpips"] = float(lpips(x, y))
    return values


def rate_distortion(codecs: Iterable[Baseline], images: Images, lpips: metrics.Lpips | None = None) -> pd.DataFrame:
    """Every codec at all of its qualities on every image.

    Returns:
        columns codec, quality, image, bytes, bpp, psnr, ms_ssim, [lpips,] encode_seconds, decode_seconds.
    """
    rows = []
    images = list(images)
    for codec in codecs:
        for quality in codec.qualities:
            for name, image in images:
                start = time.perf_counter()
                data = codec.encode(image, quality)
                between = time.perf_counter()
                decoded = codec.decode(data)
                end = time.perf_counter()
                row: dict[str, Any] = {"codec": codec.name, "quality": quality, "image": name, "bytes": len(data)}
                row["bpp"] = 8 * len(data) / (image.shape[0] * image.shape[1])
                row |= distortions(image, decoded, lpips)
                rows.append(row | {"encode_seconds": between - start, "decode_seconds": end - between})
    return pd.DataFrame(rows)


def mean_curves(points: pd.DataFrame) -> pd.DataFrame:
    """Mean over the images of each codec and quality, in the order of the rate."""
    curves = points.drop(columns="image").groupby(["codec", "quality"], sort=False).mean().reset_index()
    return curves.sort_values(["codec", "bpp"], kind="stable").reset_index(drop=True)


def _log_rate(curve: pd.DataFrame, metric: str) -> tuple[Any, float, float]:
    """Interpolation (Akima) of the log-rate over ``metric``, and the range of ``metric`` that the curve spans."""
    from scipy.interpolate import Akima1DInterpolator

    # each point must cost more and be better than the one before, or the curve is none
    curve = curve[np.isfinite(curve[metric])].sort_values("bpp")
    curve = curve[curve[metric] > curve[metric].cummax().shift(fill_value=-np.inf)]
    values = curve[metric].to_numpy()
    if len(values) < 3:
        return None, float("nan"), float("nan")
    return Akima1DInterpolator(values, np.log(curve["bpp"].to_numpy())), values[0], values[-1]


def relative_rate(anchor: pd.DataFrame, test: pd.DataFrame, grid: np.ndarray, metric: str = "psnr") -> np.ndarray:
    """Rate of ``test`` over that of ``anchor`` at each ``metric`` of ``grid``; NaN outside of either curve.

    ``anchor`` and ``test``: rows of `mean_curves` of one codec each.
    """
    logs = []
    for curve in (test, anchor):
        interpolated, low, high = _log_rate(curve, metric)
        inside = (grid >= low) & (grid <= high)
        logs.append(np.where(inside, interpolated(np.clip(grid, low, high)) if inside.any() else 0.0, np.nan))
    return np.exp(logs[0] - logs[1])


def bd_rate(anchor: pd.DataFrame, test: pd.DataFrame, low: float, high: float, metric: str = "psnr") -> float:
    """Bjontegaard rate difference in percent, negative where ``test`` needs fewer bits, over [low, high] of ``metric``.

    Both curves are interpolated (Akima, in log-rate) and integrated over the part of [low, high] that both reach.
    ``anchor`` and ``test``: rows of `mean_curves` of one codec each. NaN where they share no range.
    """
    import bjontegaard

    (first, *ends), (second, *others) = _log_rate(anchor, metric), _log_rate(test, metric)
    if first is None or second is None:
        return float("nan")
    low, high = max(low, ends[0], others[0]), min(high, ends[1], others[1])
    if not low < high:
        return float("nan")
    grid = np.linspace(low, high, 25)
    rates = np.exp(first(grid)), np.exp(second(grid))
    return float(bjontegaard.bd_rate(rates[0], grid, rates[1], grid, method="akima"))


def generations(codec: Baseline, images: Images, quality: float, count: int, flow: Codec | None = None) -> pd.DataFrame:
    """Encode, decode, encode the result, ...

    Args:
        count: generations.
        flow: our codec, to count symbols that differ from those of the first generation.

    Returns:
        columns codec, quality, image, generation (from 1), bpp, psnr (against the original), changed (share of
        symbols, NaN without ``flow``).
    """
    rows = []
    for name, image in images:
        current, first = image, None
        stream, settled = None, False
        for generation in range(1, count + 1):
            # a stream that comes again comes for ever: its image has been encoded already
            data = codec.encode(current, quality) if not settled else stream
            settled = data == stream
            if not settled:
                current, stream = codec.decode(data), data
                psnr = min(LOSSLESS, float(metrics.psnr(to_tensor(image), to_tensor(current))))
                changed = float("nan")
                if flow is not None:
                    symbols = np.concatenate(flow.symbols(data))
                    first = symbols if first is None else first
                    changed = float((symbols != first).mean())
            row = {"codec": codec.name, "quality": quality, "image": name, "generation": generation}
            row["bpp"] = 8 * len(data) / (image.shape[0] * image.shape[1])
            rows.append(row | {"psnr": psnr, "changed": changed})
    return pd.DataFrame(rows)


def reencoding(codec: Codec, images: Images, qualities: Iterable[float], most: int = 4) -> pd.DataFrame:
    """What encoding our own result again does, and how long the search for a file that reproduces itself takes.

    A file that comes again comes for ever: its image has been encoded already. So each image is encoded again until
    it does, ``most`` times at most.

    Returns:
        columns quality, image, stable (what the file says), same (whether the second file equals the first), symbols
        (how many of the last file's differ from the first's), drift (largest change of PSNR, dB), bytes, psnr, encode
        seconds, decode seconds (of the processor).
    """
    rows = []
    for quality in qualities:
        for name, image in images:
            start = time.process_time()
            data = codec.compress(image, quality)
            between = time.process_time()
            decoded = codec.decompress(data)
            end = time.process_time()
            psnr = _psnr(image, decoded)
            header, parts = unpack(data)
            current, last, drift, same = decoded, data, 0.0, True
            for number in range(most):
                again = codec.compress(current, quality, stable=number > 0)
                came = unpack(again)[1] == unpack(last)[1]
                same = same and (came or number > 0)
                if came:
                    break
                last, current = again, codec.decompress(again)
                drift = max(drift, abs(_psnr(image, current) - psnr))
            changed = 0
            if last is not data and not header.lossless:
                both = zip(codec.symbols(data), codec.symbols(last), strict=True)
                changed = int(sum((a != b).sum() for a, b in both))
            row = {"quality": quality, "image": name, "stable": header.stable, "same": same, "symbols": changed}
            row |= {"drift": drift, "bytes": len(data), "psnr": psnr}
            rows.append(row | {"encode seconds": between - start, "decode seconds": end - between})
    return pd.DataFrame(rows)


def _psnr(image: np.ndarray, decoded: np.ndarray) -> float:
    return min(LOSSLESS, float(metrics.psnr(to_tensor(image), to_tensor(decoded))))


def _nearest(codec: Baseline, wanted: Callable[[float], float], steps: int) -> float:
    """The quality, between the codec's lowest and highest, at which ``wanted``, which rises with the rate, is nearest
    to 0. Whole numbers where a codec takes no others."""
    low, high = codec.qualities[0], codec.qualities[-1]  # from the lowest rate to the highest; numbers may fall
    tried: dict[float, float] = {}
    for step in range(steps):
        quality = (low, high)[step] if step < 2 else (low + high) / 2
        quality = float(round(quality)) if codec.whole else quality
        if quality in tried:
            break
        tried[quality] = wanted(quality)
        if step >= 2:
            low, high = (quality, high) if tried[quality] < 0 else (low, quality)
    return min(tried, key=lambda quality: abs(tried[quality]))


def quality_at(codec: Baseline, image: np.ndarray, psnr: float, steps: int = 8) -> float:
    """The quality at which ``image`` comes nearest to ``psnr`` dB."""
    return _nearest(codec, lambda q: _psnr(image, codec.decode(codec.encode(image, q))) - psnr, steps)


def file_of_size(codec: Baseline, image: np.ndarray, size: float, steps: int = 8) -> bytes:
    """The file whose logarithm of bytes is nearest to that of ``size``."""
    return codec.encode(image, _nearest(codec, lambda q: float(np.log(len(codec.encode(image, q)) / size)), steps))


def interval(sample: Any, statistic: Callable[[Any], float], seed: int = 0) -> dict[str, float]:
    """A BD-rate of `curves_of` photographs and its 95 % interval: columns BD-rate, low, high.

    NaN where two curves share no range.
    """
    if not np.isfinite(statistic(sample)):
        return dict.fromkeys(("BD-rate", "low", "high"), float("nan"))
    found = intervals.estimate(sample, statistic, draws=DRAWS, seed=seed)
    return {"BD-rate": found.value, "low": found.low, "high": found.high}


def parameters(module: torch.nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in module.parameters())


def curves_of(points: pd.DataFrame, codecs: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Curves image by image, for resampling: ``(images, codecs, qualities, [bpp, psnr])``, NaN where a codec has fewer
    qualities; and the images, those that all codecs were measured on."""
    parts = [points[points["codec"] == name] for name in codecs]
    images = sorted(set.intersection(*(set(part["image"]) for part in parts)))
    length = max(part["quality"].nunique() for part in parts)
    found = np.full((len(images), len(parts), length, 2), np.nan)
    for number, part in enumerate(parts):
        for column, value in enumerate(("bpp", "psnr")):
            table = part.pivot(index="image", columns="quality", values=value).loc[images].to_numpy()
            found[:, number, : table.shape[1], column] = table
    return found, images


def bd_rate_of(curves: np.ndarray, low: float, high: float) -> float:
    """`bd_rate` of the second codec against the first: `curves_of` some images."""
    anchor, test = (pd.DataFrame(curve, columns=["bpp", "psnr"]).dropna() for curve in curves.mean(0))
    return bd_rate(anchor, test, low, high)


def bd_rate_to(curves: np.ndarray, anchor: pd.DataFrame, low: float, high: float) -> float:
    """`bd_rate` of `curves_of` one codec against a published curve."""
    return bd_rate(anchor, pd.DataFrame(curves.mean(0)[0], columns=["bpp", "psnr"]).dropna(), low, high)


def progressive(codec: Codec, data: bytes, image: np.ndarray) -> list[dict[str, Any]]:
    """The stream decoded from 1, 2, ... levels: ``levels``, ``bytes`` (so far), ``psnr``, ``image``."""
    _, payloads = unpack(data)
    overhead = len(data) - sum(len(payload) for payload in payloads)
    found = []
    for levels in range(1, len(payloads) + 1):
        decoded = codec.decompress(data, levels)
        size = overhead + sum(len(payload) for payload in payloads[:levels])
        values = {"psnr": float(metrics.psnr(to_tensor(image), to_tensor(decoded)))}
        found.append({"levels": levels, "bytes": size, **values, "image": decoded})
    return found


def enlarged(codec: Codec, shown: list[dict[str, Any]], data: bytes, image: np.ndarray) -> list[dict[str, Any]]:
    """What a smooth enlargement makes of the low band that each prefix of a stream holds: ``psnr``, ``image``.

    ``shown``: of `progressive`, whose last entry is whole and stands for itself.
    """
    from PIL import Image

    found = []
    for entry in shown[:-1]:
        low = codec.low_band(data, entry["levels"])
        picture = Image.fromarray(low).resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS)
        found.append({"psnr": _psnr(image, np.asarray(picture)), "image": np.asarray(picture)})
    return [*found, {key: shown[-1][key] for key in ("psnr", "image")}]
