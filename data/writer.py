"""Pixels to files that any browser or viewer opens; a file is there whole or not at all."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw, ImageFont

# Of the world's easy clips at 64x64 a round trip keeps 34.3 dB in 6.0 kB (crf 16: 34.2 dB, 5.1 kB; crf 4: 34.4 dB): what is lost is
# the chroma of edges, at any crf. Flat colours come back within 2 levels of 255.
CRF = 12
PRESET = "veryfast"
KEYFRAME_INTERVAL = 12  # frames; a reader that seeks decodes no more than this
SMPTE170M = 6  # the number of BT.601's primaries and transfer curve in H.264
# x264's macroblock tree reads memory that it never wrote (16 different files in 20 writes of one 32x48 clip), and its vector code differs
# between processors: without both, the same frames are the same bytes.
REPEATABLE = "mbtree=0:cpu-independent=1"
PAPER, INK = (252, 252, 250), (30, 30, 34)


class Pictures(Protocol):
    """What is asked of a clip to write: an array t h w 3 has it, and so can a clip whose frames are made as they are asked for."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


def write_mp4(
    path: str | os.PathLike[str],
    video: Pictures,
    fps: float,
    crf: int = CRF,
    metadata: Mapping[str, Any] | None = None,
    seal: Callable[[Path], object] | None = None,
) -> Path:
    """Writes H.264 in yuv420p, tagged BT.601 in limited range, which readers also take for granted in small pictures.

    Args:
        video: uint8 RGB, t h w 3, height and width even (4:2:0 halves the chroma). Its frames are written as they come and not kept.
        crf: x264's constant quality, 0 (lossless after 4:2:0) to 51.
        metadata: kept as JSON in the file's comment. FFmpeg takes it before the first frame and gave back 640 MB unchanged.
        seal: called with the written file before it gets its name, to put in what only the last frame told.
    Raises: ValueError for other arrays or odd sizes.
    """
    pictures = _checked(video)
    first = next(pictures)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(
            f"a video of {height}x{width} cannot be stored as yuv420p: height and width must be even. Set {height + height % 2}x{width + width % 2}."
        )
    options = {"crf": str(crf), "preset": PRESET, "x264-params": REPEATABLE}

    def write(target: Path) -> None:
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            if metadata is not None:
                container.metadata["comment"] = json.dumps(dict(metadata))
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            codec = stream.codec_context
            codec.gop_size, codec.thread_count = KEYFRAME_INTERVAL, 1
            codec.color_range, codec.colorspace = ColorRange.MPEG, Colorspace.ITU601
            codec.color_primaries, codec.color_trc = SMPTE170M, SMPTE170M
            for picture in chain([first], pictures):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        if seal is not None:
            seal(target)

    return write_whole(path, write)


def write_gif(path: str | os.PathLike[str], video: Pictures, fps: float) -> Path:
    """Writes an endless GIF; its time unit is 10 ms, so the frame rate is rounded."""
    pictures = map(Image.fromarray, _checked(video))
    first = next(pictures)
    duration_ms = max(20, 10 * round(100 / fps))

    def write(target: Path) -> None:
        first.save(target, format="GIF", save_all=True, append_images=pictures, duration=duration_ms, loop=0)

    return write_whole(path, write)


def write_png_strip(path: str | os.PathLike[str], video: Pictures, count: int = 8, enlarge: int = 1) -> Path:
    """Writes `count` frames side by side, first and last included, each pixel as a square of `enlarge`."""
    strip = Image.fromarray(_strip(video, count, enlarge))
    return write_whole(path, lambda target: strip.save(target, format="PNG"))


def contact_sheet(
    videos: Sequence[np.ndarray],
    captions: Sequence[str],
    path: str | os.PathLike[str],
    count: int = 6,
    enlarge: int = 1,
    columns: int = 2,
) -> Path:
    """Writes a PNG with a strip of `count` frames per video and its caption below, over `columns` columns.

    Raises: ValueError if there are not as many captions as videos, or no video.
    """
    if len(videos) != len(captions) or not videos:
        raise ValueError(f"a contact sheet needs a caption for each video, got {len(videos)} videos and {len(captions)} captions.")
    strips = [_strip(video, count, enlarge) for video in videos]
    margin, line_px = 8, 15
    width = max(strip.shape[1] for strip in strips)
    font = ImageFont.load_default(size=12)
    texts = [_wrap(caption, font, width) for caption in captions]
    height = max(strip.shape[0] for strip in strips) + line_px * max(len(lines) for lines in texts) + 4
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (margin + columns * (width + margin), margin + rows * (height + margin)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (strip, lines) in enumerate(zip(strips, texts, strict=True)):
        left, top = margin + place % columns * (width + margin), margin + place // columns * (height + margin)
        sheet.paste(Image.fromarray(strip), (left, top))
        for number, line in enumerate(lines):
            pen.text((left, top + strip.shape[0] + 1 + number * line_px), line, fill=INK, font=font)
    return write_whole(path, lambda target: sheet.save(target, format="PNG"))


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a neighbour of `path` and then puts it in its place: nobody ever sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _checked(video: Pictures) -> Iterator[np.ndarray]:
    """The frames h w 3 of a clip, each looked at as it comes."""
    wanted = "a video to write must be uint8 of shape (frames, height, width, 3) and not empty"
    if not len(video):
        raise ValueError(f"{wanted}, got one without a frame.")
    shape = None
    for number, picture in enumerate(video):
        shape = picture.shape if shape is None else shape
        if picture.dtype != np.uint8 or picture.shape != shape or len(shape) != 3 or shape[-1] != 3 or not picture.size:
            raise ValueError(f"{wanted}, but its frame {number} is {picture.dtype} {picture.shape}.")
        yield np.ascontiguousarray(picture)


def _strip(video: Pictures, count: int, enlarge: int) -> np.ndarray:
    """Frames side by side with a gap of paper, h w 3."""
    places = set(np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int).tolist())
    chosen = np.stack([picture for place, picture in enumerate(_checked(video)) if place in places])
    chosen = chosen.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    gap = np.full((chosen.shape[1], 2, 3), PAPER, np.uint8)
    parts = [part for picture in chosen for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
