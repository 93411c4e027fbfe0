"""One picture of a file that holds several: a page of a TIFF, a frame of a GIF, an APNG, a WebP or an AVIF."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.vision import images
from lib.vision.images import Picture


def read(path: Path, page: int | None, **options: Any) -> Picture:
    """`lib.vision.images.read` of one page, from 1; None: the file holds one picture.

    The page becomes a file of its own, without loss, and is read as any other.

    Raises:
        UserError: as `images.read`, and where there is no such page.
    """
    if page is None:
        return images.read(path, **options)
    data, kind = images._bytes(path)
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / Path(path).name
        if not _extract(path, data, kind, page, single, options.get("most", images.MOST_PIXELS)):
            return images.read(path, **options)
        return images.read(single, **options)


def _extract(path: Path, data: bytes, kind: str, page: int, single: Path, most: int) -> bool:
    """Write a page into a file of its own; False where the file holds that one only."""
    import io
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings(), images._quiet(kind):
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=images._formats(kind)) as picture:
                pages = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                if not 1 <= page <= pages:
                    there = f"has the pictures 1 to {pages}, no {page}" if pages > 1 else "holds one picture"
                    raise UserError(f"{path} {there}; choose another --page")
                if pages == 1:
                    return False
                for number in range(page):  # frames build upon those before them
                    picture.seek(number)
                    if picture.width * picture.height > most:
                        raise UserError(f"{path} has {picture.width} x {picture.height} pixels, more than {most}")
                if kind == "TIFF" and max(bits := picture.tag_v2.get(258, (8,))) > 8:
                    raise UserError(f"{path} has more than 8 bits a channel ({max(bits)}); convert it to 8 bits first")
                kept = {name: picture.info[name] for name in ("icc_profile", "exif") if picture.info.get(name)}
                # TIFF takes CMYK, which PNG does not
                picture.copy().save(single, "TIFF" if kind == "TIFF" else "PNG", **kept)
        return True
    except UserError:
        raise
    except Exception as error:  # as in `images.read`: decoders raise what they like on damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); give a whole image file") from None
