"""Pictures from files of any format, size and mode, as one RGB frame; a video file gives its first frame."""

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.reader import AutoReader, Limits, VideoError

PAPER = (255, 255, 255)  # what shows through where a picture is transparent


def read_picture(path: str | os.PathLike[str], limits: Limits | None = None) -> np.ndarray:
    """One frame, uint8 1 h w 3, turned as its camera says, on white where it is transparent.

    Raises: VideoError if the file is no picture and no video, is damaged, or larger than the limits.
    """
    name, limits = os.fspath(path), limits or Limits()
    if os.path.isfile(name) and os.path.getsize(name):
        try:
            with Image.open(name) as picture:
                limits.check_header(name, picture.width, picture.height, 1)
                return np.asarray(_rgb(ImageOps.exif_transpose(picture)))[None].copy()  # 1 h w 3
        except UnidentifiedImageError:
            pass  # not a picture: perhaps a video
        except VideoError:  # the limits; it is a ValueError too
            raise
        except Image.DecompressionBombError as error:
            raise VideoError(name, "too_large", str(error)) from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise for a cut or broken file
            raise VideoError(name, "damaged", str(error)) from error
    return AutoReader(limits=limits).read(name, [0])


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits of grey: Pillow's own conversion would cut everything above 255 to white.
        levels = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((levels // 257 if levels.max(initial=0) > 255 else levels).clip(0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*PAPER, 255)), layer).convert("RGB")
