"""Marks in the frames of a clip, visible or not: laid on frame by frame as they are made, and the same for the same frames."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.writer import Pictures
from runtime.seeding import Stream, generator

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]

LEGIBLE_PX, SMALLEST_PX = 11, 8  # font sizes: below the first letters are guessed, below the second they are blots
SIDE = 10  # cosines per axis: up to 5 periods a side, which half the size of 64 px and coarse quantisers still carry
LEAST_PX = 32  # of a side: shorter ones halved have no room for 10 cosines
FAINTEST = 40.0  # dB between marked and unmarked frames
CHANCE = 1e-6  # of a mark in a video without one, above which nobody is told of it
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as data/writer.py tags its files


class Watermark(Protocol):
    """Marks frames, uint8 h w 3 of one size, one after another and keeping none.

    Args of the call:
        payload: whole number that tells this clip from others; what has no room for it leaves it out.
    """

    def __call__(self, frames: Iterable[np.ndarray], payload: int = 0) -> Iterator[np.ndarray]: ...


class NoWatermark:
    """Leaves frames as they are."""

    def __call__(self, frames: Iterable[np.ndarray], payload: int = 0) -> Iterator[np.ndarray]:
        yield from frames


class Visible:
    """A few light letters with a dark rim in a corner, which stand out from any ground.

    Args:
        text: one line, of letters that Pillow's own font has (Latin).
        corner: where it stands.
        size: of the font, in shorter sides of the frame; at least 11 px. Where the text would not fit it is
            smaller, down to 8 px.
        opacity: above 0, at most 1.
    Raises: ValueError for other values; from the call, if the frame is too small for the text.
    """

    def __init__(self, text: str = "AI", corner: Corner = "bottom_right", size: float = 0.06, opacity: float = 0.85) -> None:
        if not text.strip() or not text.isprintable():
            raise ValueError(f"text={text!r} must be one line of letters. Set watermark.text, or watermark=none.")
        if not 0 < size <= 1 or not 0 < opacity <= 1:
            raise ValueError(f"size={size:g} and opacity={opacity:g} must lie above 0 and be at most 1. Set watermark.size, watermark.opacity.")
        self.text, self.corner, self.size, self.opacity = text, corner, size, opacity

    def __call__(self, frames: Iterable[np.ndarray], payload: int = 0) -> Iterator[np.ndarray]:
        overlay = None
        for frame in frames:
            if overlay is None:
                overlay = self._overlay(*frame.shape[:2])
            rows, columns, light, cover = overlay
            marked = frame.copy()
            marked[rows, columns] = np.rint(frame[rows, columns] * (1 - cover) + light)
            yield marked

    def _overlay(self, height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
        """(rows, columns) of the text in the frame, and there the light that it adds and the share of the picture that it covers, h w 1."""
        for size in range(max(LEGIBLE_PX, round(self.size * min(height, width))), SMALLEST_PX - 1, -1):
            font, rim = ImageFont.load_default(size=size), max(1, size // 12)
            left, top, right, bottom = map(round, font.getbbox(self.text, stroke_width=rim))
            high, wide, margin = bottom - top, right - left, max(1, size // 4)
            if wide + 2 * margin <= width and high + 2 * margin <= height:
                break
        else:
            raise ValueError(
                f"the text {self.text!r} needs {wide + 2 * margin}x{high + 2 * margin} px at its smallest, the frames have {width}x{height}. "
                "Set a shorter watermark.text, or larger frames."
            )
        masks = []
        for stroke in (0, rim):
            mask = Image.new("L", (wide, high))
            ImageDraw.Draw(mask).text((-left, -top), self.text, fill=255, font=font, stroke_width=stroke, stroke_fill=255)
            masks.append(np.asarray(mask, np.float32)[..., None])
        letters, covered = masks
        y = margin if self.corner.startswith("top") else height - margin - high
        x = margin if self.corner.endswith("left") else width - margin - wide
        return slice(y, y + high), slice(x, x + wide), self.opacity * letters, self.opacity * np.maximum(letters, covered) / 255


@dataclass(frozen=True, slots=True)
class Mark:
    """What was read from a video.

    Args:
        payload: the likeliest.
        confidence: that all its bits are right, if there is a mark at all.
        chance: an upper bound on how often a video without a mark looks marked this clearly.
    """

    payload: int
    confidence: float
    chance: float

    @property
    def found(self) -> bool:
        return self.chance < CHANCE


class Invisible:
    """A number in the lowest frequencies of the luma, read back without the unmarked video.

    The 10 x 10 lowest cosines of the whole frame (constant rows and columns left out) are each moved to the next point of a lattice, whose
    place is the key's dither and half a step further for a bit that is 1; bits take turns over the cosines. So the picture itself is no noise
    to the mark, and since cosines are counted per frame and amplitudes per pixel, any size of the same picture carries it alike. A video that
    was not marked with this key has amplitudes anywhere between lattice points, whatever it shows, because the dither is uniform: with r_k the
    length of the mean phasor of cosine k over the frames, P(sum over bits |sum of real parts| >= T) <= 2^bits exp(-T^2 / sum r_k^2)
    (Chernoff, as E exp(s cos) <= exp(s^2 / 4), over all 2^bits numbers). That is `Mark.chance`.

    Not secret: whoever knows the key can remove or forge it. It does not survive cropping, padding, mirroring, rotation, or much of a change
    of contrast (configs/watermark/invisible.yaml has figures). On flat surfaces 42 dB is seen by those who look for it.

    Args:
        psnr: dB between marked and unmarked frames, at least 40; the mark is read only with the one it was made with.
        bits: of the payload that are kept, its lowest, 1 to 32; fewer bits outlast more.
        key: of the dither.
    Raises: ValueError for other values; from the call, for frames below 32 px.
    Source: Chen and Wornell 2001, quantization index modulation, with dither and repetition.
    """

    def __init__(self, psnr: float = 42.0, bits: int = 32, key: int = 0) -> None:
        if psnr < FAINTEST:
            raise ValueError(f"psnr={psnr:g} would be seen: at least {FAINTEST:g} dB. Set watermark.psnr.")
        if not 1 <= bits <= 32:
            raise ValueError(f"bits={bits} must lie between 1 and 32. Set watermark.bits.")
        if not 0 <= key < 2**64:
            raise ValueError(f"key={key} must lie in [0, 2**64). Set watermark.key.")
        self.bits = bits
        self.step = 255 * np.sqrt(12 / 10 ** (psnr / 10)) / SIDE  # a lattice of this step moves an amplitude by step^2 / 12 in the mean
        self.dither = generator(key, Stream.WATERMARK).random((SIDE, SIDE))
        self.turn = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % bits  # whose bit a cosine carries

    def __call__(self, frames: Iterable[np.ndarray], payload: int = 0) -> Iterator[np.ndarray]:
        lattice = (self.dither + (payload >> self.turn & 1) / 2) * self.step
        for frame in frames:
            rows, columns = _cosines(frame.shape[0]), _cosines(frame.shape[1])
            off = lattice - _amplitudes(frame, rows, columns)
            change = rows.T @ (off - np.rint(off / self.step) * self.step) @ columns  # h w
            yield np.clip(np.rint(frame + change.astype(np.float32)[..., None]), 0, 255).astype(np.uint8)

    def detect(self, frames: Iterable[np.ndarray]) -> Mark:
        """What a video, of any size and after any codec, seems to carry.

        Raises: ValueError for a video without frames or below 32 px.
        """
        phasors, count = np.zeros((SIDE, SIDE), complex), 0
        for frame in frames:
            amplitudes = _amplitudes(frame, _cosines(frame.shape[0]), _cosines(frame.shape[1]))
            phasors += np.exp(2j * np.pi * (amplitudes / self.step - self.dither))
            count += 1
        if not count:
            raise ValueError("a video without frames carries no mark.")
        phasors /= count
        real = np.real(phasors)
        said = np.bincount(self.turn.ravel(), real.ravel(), self.bits)  # above 0: the bit is 0
        total, energy = np.abs(said).sum(), (np.abs(phasors) ** 2).sum()
        mean = total / phasors.size
        odds = 2 * mean * np.abs(said) / max((real**2).mean() - mean**2, 1e-6)  # as of a normal law about +-mean
        chance = np.exp(min(0.0, self.bits * np.log(2) - total**2 / max(energy, 1e-12)))
        payload = int((said < 0) @ (1 << np.arange(self.bits, dtype=np.int64)))
        return Mark(payload, float(np.prod(1 / (1 + np.exp(-odds)))), float(chance))


@dataclass(frozen=True, slots=True)
class Marked:
    """A clip whose frames are marked as they are asked for."""

    video: Pictures
    watermark: Watermark
    payload: int

    def __len__(self) -> int:
        return len(self.video)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.watermark(self.video, self.payload))


def _cosines(length: int) -> np.ndarray:
    """The cosines 1 to SIDE over a side, of mean square 1, SIDE x length."""
    if length < LEAST_PX:
        raise ValueError(f"an invisible mark needs frames of at least {LEAST_PX} px a side, got {length}. Set watermark=visible or watermark=none.")
    index = np.arange(1, SIDE + 1)[:, None]
    return np.sqrt(2) * np.cos(np.pi / (2 * length) * (2 * np.arange(length) + 1) * index)


def _amplitudes(frame: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of the luma's cosines, in levels of 255, SIDE x SIDE: the same whatever size the picture is kept in."""
    return rows @ (frame @ LUMA) @ columns.T / (frame.shape[0] * frame.shape[1])
