"""Learning what a video is like without labels: say how a stretch is played, rightly or in one of several wrong ways, from a part of its patches."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batch import Batch
from data.transforms import to_uint8
from models.layers import linear, linear_flops
from models.video_encoder import VideoEncoder
from runtime.config import ConfigError
from runtime.run_folder import RunFolder
from runtime.seeding import Rng, Stream, generator
from training.objective import Figures, Loss, Preview
from training.playback import LEAST_FRAMES, PLAYBACKS


class FeaturesObjective:
    """A network tells how stretches of frames are played; what it has learnt to look at are features for distances between sets of videos.

    Args:
        encoder: learns, and is what is kept.
        playbacks: wrong ways, names of `PLAYBACKS`; each and the right one are equally common.
        visible: share of the patches that are looked at in training, others for each clip: a fourth costs a fourth, and what is learnt must
            stand in any part of the picture.
        preview_clips: on the pictures in <run>/samples.
    Raises: ValueError if a way of playing is unknown or named twice, nothing is visible, or a stretch is too short to be played in wrong ways.
    Source: Misra et al. 2016 (the order of frames) and Wang et al. 2020 (their pace) as tasks; He et al. 2022 for a part of the patches. In the
        world's few minutes of one core masked autoencoding, also through a single vector, learns colours and no motion: docs/evaluation.md.
    """

    def __init__(self, encoder: VideoEncoder, playbacks: Sequence[str], visible: float, preview_clips: int) -> None:
        unknown = [name for name in playbacks if name not in PLAYBACKS]
        if unknown or not playbacks or len(set(playbacks)) < len(playbacks):
            known = ", ".join(PLAYBACKS)
            raise ValueError(f"playbacks={list(playbacks)} must be some of {known}, each once. Set objective.playbacks.")
        if not 0 < visible <= 1:
            raise ValueError(f"visible={visible} must be a share above 0, at most 1. Set objective.visible.")
        if encoder.frames < LEAST_FRAMES:
            what = f"frames={encoder.frames}: of fewer than {LEAST_FRAMES} frames a wrong way of playing may be the right one"
            raise ValueError(f"{what}. Set objective.encoder.frames, and patch so that its frames divide them.")
        self.encoder, self.playbacks, self.visible, self.preview_clips = encoder, tuple(playbacks), visible, preview_clips
        self.judge = linear(encoder.width, 1 + len(playbacks))

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder, "judge": self.judge}

    @property
    def sides(self) -> Sequence[Sequence[nn.Module]]:
        return [list(self.networks.values())]

    def begin(self, folder: RunFolder, allow_drift: Sequence[str] = ()) -> None:
        """Nothing to refuse before data is read: see `check_clips`."""

    def check_clips(self, frames: int, validation: Sequence[Batch]) -> None:
        """Refuse, before the first step, clips that would end the run at a later one.

        Args:
            frames: of the shortest training clip.
            validation: as `refresh` takes it.
        Raises: ConfigError if clips are shorter than a stretch, or validation has too few for the features' dimensions.
        """
        shortest = min([frames, *(_video(batch).shape[2] for batch in validation)])
        if shortest < self.encoder.frames:
            raise ConfigError(_too_short(shortest, self.encoder.frames))
        clips, wanted = sum(len(batch) for batch in validation), self.encoder.dimensions
        if clips <= wanted:
            what = f"{clips} validation clips give no {wanted} directions of features: more are needed than dimensions"
            raise ConfigError(f"{what}. Set data.val_samples and data.hold_out to more than {wanted}, or objective.encoder.dimensions lower.")

    def to(self, device: str) -> None:
        for network in self.networks.values():
            network.to(device)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Cross entropy of how the stretches are played; a clip's frames, their order and the patches that are seen hang on its sample number."""
        stretches, played = self._played(batch, rng)
        return self._told(self.judge(self.encoder(stretches, self._seen(batch, rng))), played)

    def validate(self, batch: Batch, rng: Rng) -> Figures:
        """The same with all patches in sight."""
        stretches, played = self._played(batch, rng)
        loss = self._told(self.judge(self.encoder(stretches)), played)
        return {"loss": (loss.total, loss.count), **loss.logs}

    def preview(self, batch: Batch, rng: Rng) -> Preview:
        """Stretches as they are played, with what they are taken for."""
        stretches, played = self._played(batch, rng)
        names = ("right", *self.playbacks)
        said = self.judge(self.encoder(stretches)).argmax(dim=1)
        words = [f"{names[truth]} | taken for {names[guess]}" for truth, guess in zip(played.tolist(), said.tolist(), strict=True)]
        return Preview(list(to_uint8(stretches)[: self.preview_clips].cpu().numpy()), words[: self.preview_clips])

    @torch.no_grad()
    def refresh(self, batches: Sequence[Batch]) -> None:
        """The directions and deviations that features are given in, of the first stretches of these clips, rightly played.

        Raises: ValueError if they are not more than the features' dimensions.
        """
        means = [self.encoder(_video(batch)[:, :, : self.encoder.frames]).float() for batch in batches]
        self.encoder.set_statistics(torch.cat(means) if means else torch.empty(0, self.encoder.width))

    def flops(self, batch: Batch) -> int:
        """Backward counts twice the forward."""
        _, count = self._counts(batch)
        return 3 * (self.encoder.flops(len(batch), count) + linear_flops(self.judge, len(batch)))

    def _counts(self, batch: Batch) -> tuple[int, int]:
        """Tokens of a stretch, and how many of them are seen in training."""
        t, h, w = self.encoder.tokens(*_video(batch).shape[3:])
        return t * h * w, max(1, round(self.visible * t * h * w))

    def _seen(self, batch: Batch, rng: Rng) -> Tensor:
        """Numbers of the tokens that are looked at, (b, k)."""
        total, count = self._counts(batch)
        order = rng.uniform(Stream.PATCHES, batch.samples, total).argsort(axis=1)[:, :count]
        return torch.from_numpy(np.sort(order, axis=1)).to(batch.content.device)

    def _played(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """A stretch of each clip as it is played, b 3 frames h w, and how: (b,), 0 is rightly.

        Raises: ValueError if the clips are shorter than a stretch.
        """
        video, frames = _video(batch), self.encoder.frames
        spare = video.shape[2] - frames
        if spare < 0:
            raise ValueError(_too_short(video.shape[2], frames))
        orders, ways = [], []
        for sample in batch.samples:
            draw = generator(rng.seed, Stream.PLAYBACK, sample)
            first, way = int(draw.integers(spare + 1)), int(draw.integers(1 + len(self.playbacks)))
            order = PLAYBACKS[self.playbacks[way - 1]](frames, draw) if way else np.arange(frames)
            orders.append(first + order)
            ways.append(way)
        shown = torch.from_numpy(np.stack(orders)).to(video.device)[:, None, :, None, None]  # b 1 frames 1 1
        stretches = video.gather(2, shown.expand(-1, video.shape[1], -1, *video.shape[3:]))
        return stretches, torch.tensor(ways, device=video.device)

    def _told(self, logits: Tensor, played: Tensor) -> Loss:
        logits = logits.float()
        right = (logits.argmax(dim=1) == played).sum()
        return Loss(F.cross_entropy(logits, played, reduction="sum"), len(played), {"accuracy": (right, len(played))})


def _too_short(clip: int, stretch: int) -> str:
    how = f"Set data.shape.min_frames={stretch} to leave them out, data.shape.frames higher, or objective.encoder.frames lower."
    return f"clips of {clip} frames hold no stretch of {stretch}. {how}"


def _video(batch: Batch) -> Tensor:
    assert batch.video is not None, "features are learnt from pixels; data.latents is for a flow objective"
    return batch.video
