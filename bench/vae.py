"""Part `vae`: what a frame-megapixel costs in each autoencoder, in FLOP and in seconds; how memory goes with length; whether tiles are the whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench import presets
from bench.contenders import without_zeros
from bench.dit import INSTALL
from bench.fresh import Job, peaks_mb
from bench.measure import MB, Call, Meter, count_flop, parameters, take_turns
from models.geometry import latent_grid
from models.vae import VideoVAE
from models.vae_tiles import decode_tiled, encode_tiled, tiling

Way = Literal["encode", "decode"]
WAYS: tuple[Way, ...] = ("encode", "decode")
PEAKS = 3  # processes for each peak, of which the median counts
SEEN = 0.2  # the share of the shortest stream's peak that kept frames must come to, or nobody would see them


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames, height and width in pixels."""

    frames: int
    height: int
    width: int

    @property
    def megapixels(self) -> float:
        """Of all frames."""
        return self.frames * self.height * self.width / 1e6

    def video(self, device: str) -> Tensor:
        """Noise, 1 3 t h w in [-1, 1]."""
        return (torch.rand(1, 3, self.frames, self.height, self.width, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(device)


@dataclass(frozen=True, slots=True)
class Coder:
    """An autoencoder: latents of a video and back."""

    network: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]

    def call(self, way: Way, video: Tensor) -> Call:
        """One encoding, or one decoding of what encoding gave."""
        coded = video if way == "encode" else self.latents(video)
        work = self.encode if way == "encode" else self.decode

        def once() -> None:
            with torch.no_grad():
                work(coded)

        return once

    def latents(self, video: Tensor) -> Tensor:
        """Latents of a video, without gradients."""
        with torch.no_grad():
            return self.encode(video)


def preset(name: str, device: str) -> VideoVAE:
    """A shipped size with random weights, none of them zero."""
    torch.manual_seed(0)
    vae = presets.vae(name).eval()
    without_zeros(vae)
    return vae.to(device)


def ours(vae: VideoVAE) -> Coder:
    """Ours."""
    return Coder(vae, vae.encode, vae.decode)


def peer(name: str, device: str) -> Coder:
    """diffusers' autoencoder as published, with random weights. Raises: ValueError if it is not known."""
    known = {"wan": "AutoencoderKLWan", "ltx": "AutoencoderKLLTXVideo", "cogvideox": "AutoencoderKLCogVideoX"}
    if name not in known:
        raise ValueError(f"peer {name} is not known, only {', '.join(known)}. Set vae.peers.")
    import diffusers  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    network = getattr(diffusers, known[name])().to(device).eval()
    return Coder(
        network,
        lambda video: network.encode(video, return_dict=False)[0].mode(),
        lambda latents: network.decode(latents, return_dict=False)[0],
    )


def cost(coders: Mapping[str, VideoVAE], peers: Sequence[str], clip: Clip, pairs: int, device: str, meter: Meter, memory: bool) -> dict[str, Any]:
    """FLOP and parameters of all, then the first of ours beside each peer, float32: seconds of every round, and peaks in processes of their own.

    Without diffusers the first of ours alone is timed.
    """
    video = clip.video(device)
    figures: dict[str, Any] = {"megapixels": clip.megapixels, "coders": {}, "matches": []}
    for name, vae in coders.items():
        figures["coders"][name] = {"ours": True, "stride": vae.stride, "channels": vae.latent_channels, **_size(ours(vae), video)}
    first, *_ = coders
    coder = ours(coders[first])
    figures["coders"][first]["peak_mb"] = _peaks(True, first, clip, device, memory)
    if find_spec("diffusers") is None:
        figures["left_out"] = INSTALL
        figures["matches"] = [{"ours": first, "peer": None, **_race({"ours": coder}, video, pairs, meter)}]
        return figures
    for name in peers:
        other = peer(name, device)
        figures["coders"][name] = {"ours": False, **_size(other, video), "peak_mb": _peaks(False, name, clip, device, memory)}
        figures["matches"].append({"ours": first, "peer": name, **_race({"ours": coder, "peer": other}, video, pairs, meter)})
        print(f"{name}: measured", flush=True)
    return figures


def coding(device: str, own: bool, name: str, way: Way, size: Sequence[int]) -> Call:
    """One encoding or decoding of a clip (frames, height, width) by one of ours or by a peer; for a process of its own."""
    return (ours(preset(name, device)) if own else peer(name, device)).call(way, Clip(*size).video(device))


def _peaks(own: bool, name: str, clip: Clip, device: str, memory: bool) -> dict[str, list[float | None]]:
    return {way: peaks_mb(Job("bench.vae:coding", device, [own, name, way, _written(clip)]), PEAKS) if memory else [] for way in WAYS}


def _race(sides: Mapping[str, Coder], video: Tensor, pairs: int, meter: Meter) -> dict[str, Any]:
    return {way: {"seconds": take_turns({side: coder.call(way, video) for side, coder in sides.items()}, pairs, meter)} for way in WAYS}


def _size(coder: Coder, video: Tensor) -> dict[str, Any]:
    flop = {way: count_flop(coder.call(way, video)).total for way in WAYS}
    return {"parameters": parameters(coder.network), "flop": flop}


def stream_memory(name: str, lengths: Sequence[int], height: int, width: int, device: str, memory: bool) -> dict[str, Any]:
    """MB at the peak of streaming clips of each length, pieces made as they are asked for and results dropped as they come.

    Raises: ValueError if a stream that kept its frames would not stand out.
    """
    kept = 3 * 4 * height * width * (max(lengths) - min(lengths)) / MB  # float32
    figures: dict[str, Any] = {"preset": name, "height": height, "width": width, "lengths": list(lengths), "kept_mb": kept}
    for way in WAYS:
        jobs = {str(frames): Job("bench.vae:streaming", device, [name, way, frames, height, width]) for frames in lengths}
        figures[way] = {length: peaks_mb(job, PEAKS) if memory else [] for length, job in jobs.items()}
        least = figures[way][str(min(lengths))]
        if least and None not in least and kept < SEEN * median(least):
            raise ValueError(
                f"vae.stream=[{height}, {width}], vae.lengths={list(lengths)}: frames that were kept by mistake would add {kept:.1f} MB to a peak of "
                f"{median(least):.1f}, wanted at least {SEEN * median(least):.1f} to see them. Set vae.stream or vae.lengths."
            )
    return figures


def streaming(device: str, name: str, way: Way, frames: int, height: int, width: int) -> Call:
    """One of ours at work on a stream; for a process of its own."""
    return stream(preset(name, device), way, frames, height, width, device)


def stream(vae: VideoVAE, way: Way, frames: int, height: int, width: int, device: str) -> Call:
    """A clip of zeros, piece by piece; results are dropped as they come."""
    latents, h, w = latent_grid(frames, height, width, vae.stride)

    def pieces() -> Iterator[Tensor]:
        if way == "encode":
            yield torch.zeros(1, 3, 1, height, width, device=device)
        for _ in range(latents - 1 if way == "encode" else latents):
            size = (3, vae.stride[0], height, width) if way == "encode" else (vae.latent_channels, 1, h, w)
            yield torch.zeros(1, *size, device=device)

    def once() -> None:
        with torch.no_grad():
            for _ in vae.encode_stream(pieces()) if way == "encode" else vae.decode_stream(pieces()):
                pass

    return once


def tiles(vae: VideoVAE, clip: Clip, tile: int, device: str) -> dict[str, Any]:
    """The largest difference of tiled from untiled, in units of the untiled output's deviation, and how many tiles there were.

    Raises: ValueError if either way would not be cut: one tile is the whole and differs by nothing.
    """
    _, height, width = latent_grid(clip.frames, clip.height, clip.width, vae.stride)
    cuts = {way: tiling(height, width, vae.stride[1], halo, tile) for way, halo in zip(WAYS, vae.halo, strict=True)}
    number = {way: len(cut.rows) * len(cut.columns) for way, cut in cuts.items()}
    if min(number.values()) < 2:
        raise ValueError(
            f"vae.tiled={_written(clip)} at vae.tile={tile} gives {number['encode']} tiles to encode and {number['decode']} to decode, wanted 2 at "
            f"least: with halos of {vae.stride[1] * vae.halo[0]} and {vae.stride[1] * vae.halo[1]} px a tile sees all. Set vae.tiled larger."
        )
    video = clip.video(device)
    with torch.no_grad():
        whole = torch.cat(list(vae.encode_stream([video])), dim=2)
        cut = torch.cat(list(encode_tiled(vae, [video], tile)), dim=2)
        pixels = torch.cat(list(vae.decode_stream([whole])), dim=2)
        patched = torch.cat(list(decode_tiled(vae, [whole], tile)), dim=2)
    return {"clip": _written(clip), "tile": tile, "tiles": number, "encode": _apart(cut, whole), "decode": _apart(patched, pixels)}


def _written(clip: Clip) -> list[int]:
    return [clip.frames, clip.height, clip.width]


def peer_tiles(name: str, clip: Clip, tile: int, device: str) -> dict[str, Any]:
    """The same of a peer, with its own tiles of that size, overlapping by half."""
    coder, video = peer(name, device), clip.video(device)
    whole = coder.latents(video)
    with torch.no_grad():
        pixels = coder.decode(whole)
        network: Any = coder.network
        if name == "cogvideox":
            network.enable_tiling(tile, tile, 0.5, 0.5)
        else:
            network.enable_tiling(tile, tile, tile_sample_stride_height=tile // 2, tile_sample_stride_width=tile // 2)
        cut, patched = coder.encode(video), coder.decode(whole)
    return {"clip": _written(clip), "tile": tile, "encode": _apart(cut, whole), "decode": _apart(patched, pixels)}


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.std())
