"""What is given of the clips that are to be made: every task is a canvas, and one walk of the Generator fills any of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.geometry import Grid


@dataclass(frozen=True, slots=True)
class Canvas:
    """Latent frames of b clips of one shape, each with the flow times between which it is walked; pictures of later moments stand behind the clip.

    Args:
        latents: b c F h w; read where something is given or begun from, so anywhere else it may hold anything.
        start: (b, F) flow time at which a frame's walk begins: 1 is noise alone, less is `latents` under so much noise.
        stop: (b, F) where it ends; equal to `start` where a frame is given, which then comes back as it is in `latents`.
        moments: (b, F) s, when each latent frame ends.
        shown: how many latent frames the clip has; those behind them are pictures, which are looked at and never shown.
        mask: (b, F, h, w) bool, positions that are given in frames that are not; None: none.
        cyclic: whether the clip's last frame is followed by its first.
    """

    latents: Tensor
    start: Tensor
    stop: Tensor
    moments: Tensor
    shown: int
    mask: Tensor | None = None
    cyclic: bool = False

    def __post_init__(self) -> None:
        shape = tuple(self.latents.shape)
        if len(shape) != 5:
            raise ValueError(f"a canvas wants latents b c f h w, got shape {shape}.")
        frames = (shape[0], shape[2])
        for name, given in (("start", self.start), ("stop", self.stop), ("moments", self.moments)):
            if tuple(given.shape) != frames:
                raise ValueError(f"a canvas of latents {shape} wants {name} {frames}, got {tuple(given.shape)}.")
        if not bool(((self.stop >= 0) & (self.stop <= self.start) & (self.start <= 1)).all()):
            raise ValueError("a frame is walked from start down to stop, both flow times in [0, 1].")
        if not 1 <= self.shown <= shape[2]:
            raise ValueError(f"shown={self.shown} of {shape[2]} latent frames cannot be shown.")
        if self.mask is not None and (tuple(self.mask.shape) != (shape[0], *shape[2:]) or self.mask.dtype != torch.bool):
            wanted = (shape[0], *shape[2:])
            raise ValueError(f"a canvas of latents {shape} wants a bool mask {wanted}, got {self.mask.dtype} {tuple(self.mask.shape)}.")
        if self.cyclic and self.shown != shape[2]:
            raise ValueError("a loop has no pictures behind it: they have no moment on a circle.")

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def given(self) -> Tensor:
        """(b, F) bool: the frames that are not walked."""
        return self.start == self.stop

    @property
    def shape(self) -> tuple[object, ...]:
        """What clips must share to be made together."""
        return (*self.latents.shape[1:], self.shown, self.cyclic)

    @property
    def grid(self) -> Grid:
        """Latent frames, height and width of the clips, without pictures."""
        return self.shown, self.latents.shape[3], self.latents.shape[4]

    @classmethod
    def blank(cls, channels: int, grid: Grid, moments: Tensor) -> "Canvas":
        """Clips of which nothing is given; their latents are a view that takes no memory.

        Args:
            grid: latent frames, height, width.
            moments: (b, f) s.
        """
        b, f = moments.shape
        ones = torch.ones(b, f)
        return cls(torch.zeros(1, 1, 1, 1, 1).expand(b, channels, *grid), ones, torch.zeros(b, f), moments.float(), f)

    def keep(self, latents: Tensor, known: Tensor, level: float = 0.0) -> "Canvas":
        """With some frames given.

        Args:
            latents: b c f h w of the clip, read where `known`.
            known: (b, f) bool.
            level: flow time at which the network is shown them: a little noise makes it trust them less. They come back clean.
        """
        self._fits("known frames", latents, known, (len(self), self.shown))
        fixed = self._padded(known)
        start, stop = (torch.where(fixed, level, times) for times in (self.start, self.stop))
        return replace(self, latents=self._with(latents, fixed[:, None, :, None, None]), start=start, stop=stop)

    def beside(self, pictures: Tensor, moments: Tensor, level: float = 0.0) -> "Canvas":
        """With pictures given at moments of their own.

        Args:
            pictures: b c m h w, each encoded alone.
            moments: (b, m) s.
        """
        times = torch.full(tuple(moments.shape), level)
        mask = self.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_zeros(len(self), pictures.shape[2], *mask.shape[2:])], dim=1)
        return replace(
            self,
            latents=torch.cat([self.latents, pictures.float()], dim=2),
            start=torch.cat([self.start, times], dim=1),
            stop=torch.cat([self.stop, times], dim=1),
            moments=torch.cat([self.moments, moments.float()], dim=1),
            mask=mask,
        )

    def begun(self, latents: Tensor, strength: float) -> "Canvas":
        """With all that is not given begun from latents b c f h w under noise of flow time `strength`: 0 leaves them, 1 forgets them (SDEdit).

        Source: Meng et al. 2022 (SDEdit), section 3.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength} must lie in [0, 1]: 0 changes nothing, 1 keeps nothing. Set task.strength.")
        self._fits("a clip to begin from", latents)
        free = self._padded(~self.given[:, : self.shown])
        read = free[:, None, :, None, None] if self.mask is None else free[:, None, :, None, None] & ~self.mask[:, None]
        return replace(self, latents=self._with(latents, read), start=torch.where(free, strength, self.start))

    def painted(self, latents: Tensor, mask: Tensor) -> "Canvas":
        """With some positions given in all frames: in- and outpainting.

        Args:
            latents: b c f h w, read where `mask`.
            mask: (b, f, h, w) bool.
        """
        self._fits("given positions", latents, mask, (len(self), *self.grid))
        mask = self._padded(mask)
        return replace(self, latents=self._with(latents, mask[:, None]), mask=mask)

    def within(self, span_s: float) -> "Canvas":
        """With all moments of a clip that lasts longer brought into `span_s` seconds by one factor: the network is shown no moment that it never saw,
        and the clip's frames stand closer. Of the demo's model, which knows 2 s, 97 % of prompts are followed in clips of 4 s; as they were, none.

        Source: Chen et al. 2023 (position interpolation), along time.
        """
        last = self.moments[:, : self.shown].amax(dim=1, keepdim=True)  # b 1
        factor = (span_s / last.clamp(min=1e-9)).clamp(max=1)
        return self if bool((factor == 1).all()) else replace(self, moments=self.moments * factor)

    def take(self, clips: Sequence[int] | slice) -> "Canvas":
        """Some of the clips; one of them many times over is a view that takes no memory."""
        if isinstance(clips, slice):
            rows, latents = clips, self.latents[clips]
        else:
            rows = torch.tensor(list(clips), dtype=torch.long)
            alike = len(set(clips)) == 1
            latents = self.latents[clips[0]].expand(len(clips), *self.latents.shape[1:]) if alike else self.latents[rows]
        mask = None if self.mask is None else self.mask[rows]
        return replace(self, latents=latents, start=self.start[rows], stop=self.stop[rows], moments=self.moments[rows], mask=mask)

    def times(self, clip_grids: Tensor) -> Tensor:
        """Flow times (steps + 1, b, F), float64: each frame on its clip's grid (steps + 1, b), but not above its start nor below its stop."""
        start, stop = self.start.double(), self.stop.double()
        return torch.minimum(torch.maximum(clip_grids[:, :, None].expand(-1, -1, start.shape[1]), stop), start)

    def _fits(self, what: str, latents: Tensor, chosen: Tensor | None = None, wanted: tuple[int, ...] = ()) -> None:
        clip = (len(self), self.latents.shape[1], *self.grid)
        if tuple(latents.shape) != clip:
            raise ValueError(f"{what} want latents {clip} of the clip, got {tuple(latents.shape)}.")
        if chosen is not None and (tuple(chosen.shape) != wanted or chosen.dtype != torch.bool):
            raise ValueError(f"{what} want a bool mask {wanted}, got {chosen.dtype} {tuple(chosen.shape)}.")

    def _padded(self, chosen: Tensor) -> Tensor:
        """A choice of the clip's frames or positions, (b, f...), as one of all, which takes no picture."""
        behind = chosen.new_zeros(len(chosen), self.latents.shape[2] - self.shown, *chosen.shape[2:])
        return torch.cat([chosen, behind], dim=1)

    def _with(self, latents: Tensor, read: Tensor) -> Tensor:
        """The latents b c F h w with those of a clip, b c f h w, where `read`."""
        return torch.where(read, torch.cat([latents.float(), self.latents[:, :, self.shown :]], dim=2), self.latents)


def joined(parts: Sequence[Canvas]) -> Canvas:
    """Several canvases of one shape as one.

    Raises: ValueError if their shapes differ.
    """
    shapes = {part.shape for part in parts}
    if len(shapes) != 1:
        raise ValueError(f"clips of unlike shape cannot be made at once: {sorted(map(str, shapes))}.")
    masks = [part.mask for part in parts]
    blank = parts[0].latents.new_zeros(1, *parts[0].latents.shape[2:], dtype=torch.bool)
    mask = None if all(one is None for one in masks) else torch.cat([blank.expand(len(p), -1, -1, -1) if p.mask is None else p.mask for p in parts])
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("latents", "start", "stop", "moments")}
    return Canvas(**fields, shown=parts[0].shown, mask=mask, cyclic=parts[0].cyclic)
