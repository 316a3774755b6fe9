"""Pictures as frames: one is a video of one frame, a folder of them a video; shown as their files say (turned, on white, 16 bits)."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.files.faults import Limits, VideoError, first_line
from data.files.media import Media
from data.files.packets import Look, decode
from data.files.pixels import Painter, covering
from data.files.source import open_bytes, opened, stat_of

T = TypeVar("T")
PAPER = (255, 255, 255)  # what shows through where a picture is transparent
# Formats that say what they are in their first bytes. Pillow knows more; some of them start other programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0\0\0\0|II\*\0|MM\0\*|P[1-6]\s"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|RIFF.{4}WEBP|.{4}ftypavi[fs]",
    re.DOTALL,
)
HEIF = re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture's header says: size as shown, Pillow's names of its format and its mode, and whether it moves."""

    width: int
    height: int
    format: str
    mode: str
    animated: bool


def read_picture(path: str | os.PathLike[str], limits: Limits | None = None) -> np.ndarray:
    """One picture, or the first frame of a video, uint8 1 h w 3.

    Raises: VideoError if the file is neither, is damaged, or larger than the limits.
    """
    media, limits = Media.of(path), limits or Limits()
    found = look_at_picture(media, limits)
    if found is not None:
        return read_pictures(media, [], (found.height, found.width), None, limits)
    with opened(media, limits) as (container, stream):
        for frame in decode(str(media), container, stream, None):
            look = Look.of(frame)
            painter = Painter(1, *look.shown, look.rotation, look.mirrored)
            painter.paint(0, frame)
            return painter.clip
    raise VideoError(str(media), "damaged", "no frame can be decoded")


def look_at_picture(media: Media, limits: Limits) -> Picture | None:
    """None if the file is no picture.

    Raises: VideoError.
    """
    with open_bytes(media) as file:
        head = file.read(32)
    if HEIF.match(head):  # FFmpeg would hand out the first of its tiles as a film
        raise VideoError(str(media), "unreadable", "a HEIF picture. Convert it to JPEG, PNG or AVIF")
    if not BEGINNINGS.match(head):
        return None
    return _with(media, limits, _facts)


def read_pictures(media: Media, names: list[str], size: tuple[int, int], cover: tuple[int, int] | None, limits: Limits) -> np.ndarray:
    """Pictures as uint8 t h w 3.

    Args:
        names: in a folder; empty for a picture by itself.
        size: (height, width) that each must have.
    Raises: VideoError.
    """
    painter = Painter(len(names) or 1, *covering(*size, cover))
    for number, one in enumerate([Media(os.path.join(media.path, name)) for name in names] or [media]):
        pixels = _with(one, limits, _pixels)
        if pixels.shape[:2] != size:
            found = f"{pixels.shape[1]}x{pixels.shape[0]}, wanted {size[1]}x{size[0]}"
            raise VideoError(str(media), "damaged", f"{os.path.basename(one.path)} has another size: {found}")
        painter.paint_rgb(number, pixels)
    return painter.clip


def picture_names(media: Media) -> list[str]:
    """The pictures of a folder, frame_2 before frame_10.

    Raises: VideoError if there are none.
    """
    stat_of(media)
    try:
        with os.scandir(media.path) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")]
    except OSError as error:
        raise VideoError(str(media), "missing", first_line(error)) from error
    if not names:
        raise VideoError(str(media), "not_a_file", "a folder without pictures")
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[Any], str]:
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def _with(media: Media, limits: Limits, job: Callable[[Image.Image], T]) -> T:
    """What `job` finds in a picture; what Pillow raises gets its type."""
    path = str(media)
    try:
        Image.init()  # all plugins: Image.open(formats=...) names ones that it has not loaded yet
        with open_bytes(media) as file, warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as picture:
            limits.check_header(path, picture.width, picture.height, 1)
            return job(picture)
    except UnidentifiedImageError as error:
        raise VideoError(path, "unreadable", "begins like a picture, and is none") from error
    except VideoError:  # the limits; it is a ValueError too
        raise
    except Image.DecompressionBombError as error:
        raise VideoError(path, "too_large", first_line(error)) from error
    except Exception as error:  # Pillow's parsers raise whatever they meet in a broken file: struct.error, SyntaxError, ZeroDivisionError
        raise VideoError(path, "damaged", first_line(error)) from error


def _facts(picture: Image.Image) -> Picture:
    turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    width, height = (picture.height, picture.width) if turned else (picture.width, picture.height)
    return Picture(width, height, picture.format or "", picture.mode, bool(getattr(picture, "is_animated", False)))


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(_rgb(ImageOps.exif_transpose(picture)))


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits of grey: Pillow's own conversion would cut everything above 255 to white.
        levels = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((levels // 257 if levels.max(initial=0) > 255 else levels).clip(0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*PAPER, 255)), layer).convert("RGB")
