"""What given pixel frames are to a causal VAE: known latent frames where it would see nothing else, single pictures where it would."""

from collections.abc import Sequence
from dataclasses import dataclass

Segment = tuple[int, int]  # pixel frames [start, stop) of a clip


@dataclass(frozen=True, slots=True)
class Rule:
    """How latent frames hang on pixel frames: frame 0 on the first pixel frame, frame k on the stride_t up to stride_t * k, and each on what the
    encoder looks back on.

    Args:
        stride_t: pixel frames per latent frame.
        look_back: latent frames that the encoder sees before the one that it makes.
    """

    stride_t: int
    look_back: int

    def pixels(self, k: int) -> range:
        """The pixel frames of latent frame k alone."""
        return range(max(0, self.stride_t * (k - 1) + 1), self.stride_t * k + 1)

    def split(self, segments: Sequence[Segment], frames: int) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """Which latent frames are known of a clip of which these segments are given, and which pixel frames enter as pictures.

        A latent frame is known if every pixel frame that its encoder sees is given: then it is the same whatever the others hold. A prefix is
        known throughout; a segment that begins later from its (look_back + 1)-th whole latent frame on. What is given and not known stands
        for its moment as a picture: of a latent frame that is given throughout its last pixel frame does, of one that is given in part each.

        Args:
            segments: half open, in pixel frames; may touch or overlap.
            frames: pixel frames of the clip, 1 + k * stride_t.
        Returns: known, one per latent frame; pictures, pixel frames in rising order.
        Raises: ValueError for a segment that is empty or reaches beyond the clip.
        """
        for start, stop in segments:
            if not 0 <= start < stop <= frames:
                raise ValueError(f"given frames {start} to {stop - 1} are not within the clip's frames 0 to {frames - 1}.")
        given = {frame for start, stop in segments for frame in range(start, stop)}
        whole = [all(frame in given for frame in self.pixels(k)) for k in range(1 + (frames - 1) // self.stride_t)]
        known = tuple(all(whole[max(0, k - self.look_back) : k + 1]) for k in range(len(whole)))
        pictures = []
        for k, (full, exact) in enumerate(zip(whole, known, strict=True)):
            own = [frame for frame in self.pixels(k) if frame in given and not exact]
            pictures += own[-1:] if full else own
        return known, tuple(pictures)
