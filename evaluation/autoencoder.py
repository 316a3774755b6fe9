"""What a video autoencoder keeps, loses and costs: every picture measure at once, on clips that it was not trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluation import video_features
from evaluation.gallery import Result
from evaluation.reconstruction import HIGHEST_DB, Boxes, compare, psnr_db

Video = NDArray[np.uint8]  # t h w c
Reconstruct = Callable[[Sequence[Video]], Sequence[Video]]


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What an autoencoder makes of a clip of the measured shape, and what it costs.

    Args:
        stride: frames, height and width of a latent position in pixels.
        patch: height and width, in pixels, of what its last layer writes at once.
        values_ratio: pixel values (three a pixel) over latent values.
        bits_per_pixel: of the measured clips' latents; see `latent_bits`.
        encode_tflop, decode_tflop: per frame-megapixel (frames x height x width / 1e6), forward.
    """

    stride: tuple[int, int, int]
    patch: int
    latent_channels: int
    values_ratio: float
    bits_per_pixel: float
    encode_tflop: float
    decode_tflop: float
    parameters: int

    @property
    def blocks(self) -> dict[str, int]:
        """The grids that seams may lie on."""
        return {"patch": self.patch, "stride": self.stride[1]}


def latent_bits(mean: Tensor, logvar: Tensor, channel_mean: Tensor, channel_std: Tensor) -> float:
    """What the latents of a posterior tell, in bits, under a code that knows nothing but each channel's mean and deviation: the divergence from
    that Gaussian. Two channels that repeat each other count twice, so it bounds the true rate from above.

    Args:
        mean, logvar: b c f h w, raw.
        channel_mean, channel_std: (c,), those that latents are whitened by.
    """
    centre, std = (values.double()[:, None, None, None] for values in (channel_mean, channel_std))
    square = (logvar.double().exp() + (mean.double() - centre).square()) / std.square()
    return float((square - 1 - logvar + 2 * std.log()).sum()) / 2 / log(2)


def evaluate_videos(
    videos: Sequence[Video],
    captions: Sequence[str],
    reconstruct: Reconstruct,
    seed: int,
    tokenizer: Tokenizer,
    frozen: Sequence[video_features.ClipFeatures] = (),
) -> Result:
    """The autoencoder on any clips, of unlike shapes if need be: picture measures alone, as nobody knows what they show.

    Args:
        captions: what the contact sheet and the report call them.
    """
    results = [reconstruct([video])[0] for video in videos]
    figures = pictures(videos, results, [None] * len(videos), seed, tokenizer, frozen)
    pairs = zip(videos, results, captions, strict=True)
    sheet = [row for source, result, words in list(pairs)[:8] for row in ((source, "source: " + words), (result, words))]
    return Result(figures, {"reconstructions": beside(videos, results, captions)}, sheet)


def pictures(
    sources: Sequence[Video],
    results: Sequence[Video],
    boxes: Sequence[Sequence[Boxes] | None],
    seed: int,
    tokenizer: Tokenizer | None,
    frozen: Sequence[video_features.ClipFeatures] = (),
) -> dict[str, Any]:
    """The parts `vae` and `tokenizer` of evaluation.json."""
    measured = asdict(compare(sources, results, boxes, seed, tokenizer.blocks if tokenizer else None))
    figures: dict[str, Any] = {"vae": measured | video_features.distances(sources, results, seed, frozen=frozen)}
    return figures | ({"tokenizer": asdict(tokenizer)} if tokenizer else {})


def beside(sources: Sequence[Video], results: Sequence[Video], captions: Sequence[str]) -> list[dict[str, Any]]:
    """The first few for the gallery."""
    return [
        {"source": source, "video": result, "caption": words, "psnr_db": min(HIGHEST_DB, psnr_db(source, result))}
        for source, result, words in zip(sources[:6], results, captions, strict=False)
    ]


def in_words(figures: Mapping[str, Any]) -> list[str]:
    """A few lines for the terminal: the grid and its cost, seams, and how far the clips are from real ones."""
    vae, tokenizer, lines = figures["vae"], figures.get("tokenizer"), []
    if tokenizer is not None:
        stride, kept = (
            "x".join(map(str, tokenizer["stride"])),
            f"{tokenizer['latent_channels']} channels, {tokenizer['values_ratio']:.1f} values to one",
        )
        lines.append(f"stride {stride}: {kept}, {tokenizer['bits_per_pixel']:.3g} bits per pixel")
        cost = f"{tokenizer['encode_tflop']:.3g} + {tokenizer['decode_tflop']:.3g} TFLOP per frame-megapixel to encode and decode"
        lines.append(f"{cost}, {tokenizer['parameters'] / 1e6:.2f} M weights")
    lines += [f"gradient across {name} edges: {ratio:.3f} of the source's" for name, ratio in vae["edge_ratio"].items() if ratio is not None]
    return lines + video_features.in_words(vae, vae["n"])
