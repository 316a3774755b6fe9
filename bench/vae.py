"""Part `vae`: what a frame-megapixel costs in each autoencoder, in FLOP and in seconds; how memory goes with length; whether tiles are the whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.dit import INSTALL
from bench.measure import Call, Meter, count_flop, parameters, take_turns
from models.geometry import latent_grid
from models.vae import VideoVAE
from models.vae_tiles import decode_tiled, encode_tiled

Way = Literal["encode", "decode"]
WAYS: tuple[Way, ...] = ("encode", "decode")


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


def cost(presets: Mapping[str, VideoVAE], peers: Sequence[str], clip: Clip, pairs: int, device: str, meter: Meter) -> dict[str, Any]:
    """FLOP and parameters of all, then the first preset beside each peer: seconds of every round and peak memory, float32.

    Without diffusers the first preset alone is timed.
    """
    video = clip.video(device)
    figures: dict[str, Any] = {"megapixels": clip.megapixels, "coders": {}, "matches": []}
    for name, vae in presets.items():
        figures["coders"][name] = {"ours": True, "stride": vae.stride, "channels": vae.latent_channels, **_size(ours(vae), video)}
    first, *_ = presets
    coder = ours(presets[first])
    if find_spec("diffusers") is None:
        figures["left_out"] = INSTALL
        figures["matches"] = [{"ours": first, "peer": None, **_race({"ours": coder}, video, pairs, meter)}]
        return figures
    for name in peers:
        other = peer(name, device)
        figures["coders"][name] = {"ours": False, **_size(other, video)}
        figures["matches"].append({"ours": first, "peer": name, **_race({"ours": coder, "peer": other}, video, pairs, meter)})
    return figures


def _race(sides: Mapping[str, Coder], video: Tensor, pairs: int, meter: Meter) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for way in WAYS:
        calls = {side: coder.call(way, video) for side, coder in sides.items()}
        figures[way] = {"seconds": take_turns(calls, pairs, meter), "peak_mb": {side: meter.peak_mb(call) for side, call in calls.items()}}
    return figures


def _size(coder: Coder, video: Tensor) -> dict[str, Any]:
    flop = {way: count_flop(coder.call(way, video)).total for way in WAYS}
    return {"parameters": parameters(coder.network), "flop": flop}


def stream_memory(vae: VideoVAE, lengths: Sequence[int], height: int, width: int, rounds: int, device: str, meter: Meter) -> dict[str, Any]:
    """MB at the peak of streaming clips of each length, pieces made as they are asked for and results dropped as they come."""
    figures: dict[str, Any] = {"height": height, "width": width, "lengths": list(lengths)}
    for way in WAYS:
        calls = {str(frames): _stream(vae, way, frames, height, width, device) for frames in lengths}
        for call in calls.values():
            call()
        peaks: dict[str, list[float | None]] = {length: [] for length in calls}
        for _ in range(rounds):
            for length, call in calls.items():
                peaks[length].append(meter.peak_mb(call))
        figures[way] = peaks
    return figures


def _stream(vae: VideoVAE, way: Way, frames: int, height: int, width: int, device: str) -> Call:
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
    """The largest difference of tiled from untiled, in units of the untiled output's deviation."""
    video = clip.video(device)
    with torch.no_grad():
        whole = torch.cat(list(vae.encode_stream([video])), dim=2)
        cut = torch.cat(list(encode_tiled(vae, [video], tile)), dim=2)
        pixels = torch.cat(list(vae.decode_stream([whole])), dim=2)
        patched = torch.cat(list(decode_tiled(vae, [whole], tile)), dim=2)
    return {"clip": [clip.frames, clip.height, clip.width], "tile": tile, "encode": _apart(cut, whole), "decode": _apart(patched, pixels)}


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
    return {"clip": [clip.frames, clip.height, clip.width], "tile": tile, "encode": _apart(cut, whole), "decode": _apart(patched, pixels)}


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.std())
