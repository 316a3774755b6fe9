"""Tiles are the whole: any content, any tile, any cut in time; at most 1.3 times the work; nothing is held for longer than it is needed."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.vae import VideoVAE
from models.vae_tiles import MOST_WORK, PRICE, SIDE_PX, check_tile, decode_tiled, encode_tiled, posterior_tiled, tiling
from runtime.config import CONFIGS, build, compose

PRESETS = sorted(path.stem for path in (CONFIGS / "objective" / "vae").glob("*.yaml"))
HEAVY = ("large", "wan")  # more than 100 M weights
HEIGHT, WIDTH = 80, 104  # px: 10 x 13 latent positions, which no tile divides


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(**sizes) -> VideoVAE:
    torch.manual_seed(0)
    settings = {"widths": (16, 24), "latent_channels": 4, "encoder_depths": (0, 1), "decoder_depths": (1, 1), "decoder_look_back": 1}
    vae = VideoVAE(**{**settings, **sizes}).eval().requires_grad_(False)
    vae.set_statistics(random(4, seed=1), random(4, seed=2).abs() + 0.5)
    return vae


def preset(name: str, device: str) -> VideoVAE:
    with torch.device(device):
        return build(compose("train", ["run=x", "data=world", "objective=vae", f"objective/vae={name}"])["objective"]["vae"])


def clip(content: str, frames: int = 9, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """b 3 t h w: a drifting ramp, a drifting fine pattern, or noise."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    if content == "noise":
        return random(1, 3, frames, height, width).clamp(-1, 1)
    wave = {"smooth": 90.0, "textured": 3.3}[content]
    return torch.stack([torch.sin((x + 2 * t) / wave + shade) * torch.cos((y - t) / wave) for shade in range(3)])[None]


def joined(pieces: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(pieces), dim=2)


@pytest.mark.parametrize("content", ["smooth", "textured", "noise"])
@pytest.mark.parametrize("tile", [8, 40, 72])
def test_tiles_are_the_whole(content: str, tile: int):
    vae, video = make(), clip(content)
    latents = joined(vae.encode_stream([video]))
    tiled = joined(encode_tiled(vae, [video], tile))
    assert tiled.shape == latents.shape
    for raw, whole in zip(posterior_tiled(vae, [video], tile), vae.posterior_stream([video]), strict=True):
        assert (raw.mean - whole.mean).abs().max() <= 1e-5 * whole.mean.std()
        assert (raw.logvar - whole.logvar).abs().max() <= 1e-5 * whole.logvar.std()
    assert (tiled - latents).abs().max() <= 1e-5 * latents.std()  # kernels differ by shape; the promise is 1e-4
    decoded = joined(vae.decode_stream([latents]))
    tiled = joined(decode_tiled(vae, [latents], tile))
    assert tiled.shape == decoded.shape
    assert (tiled - decoded).abs().max() <= 1e-5 * decoded.std()


@pytest.mark.parametrize("name", [*(name for name in PRESETS if name not in HEAVY), pytest.param("large", marks=pytest.mark.slow)])
def test_tiles_of_every_preset_are_the_whole(name: str):
    vae = preset(name, "cpu").eval().requires_grad_(False)
    stride, halo = vae.stride[1], vae.halo[1]
    latents = random(1, vae.latent_channels, 2, 3, 2 * halo + 3)
    decoded = joined(vae.decode_stream([latents]))
    assert (joined(decode_tiled(vae, [latents], stride * (halo + 2))) - decoded).abs().max() <= 1e-5 * decoded.std()
    video = joined(vae.decode_stream([random(1, vae.latent_channels, 2, 2, 2 * vae.halo[0] + 3)]))
    latents = joined(vae.encode_stream([video]))
    assert (joined(encode_tiled(vae, [video], stride * (vae.halo[0] + 2))) - latents).abs().max() <= 1e-5 * latents.std()


@pytest.mark.parametrize("tile", [None, "auto", 104, 4096])
def test_where_one_tile_is_enough_it_is_the_stream_bit_for_bit(tile):
    vae, video = make(), clip("textured")
    latents = joined(vae.encode_stream([video]))
    assert torch.equal(joined(encode_tiled(vae, [video], tile)), latents)
    assert torch.equal(joined(decode_tiled(vae, [latents], tile)), joined(vae.decode_stream([latents])))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_cutting_time_otherwise_changes_no_bit_of_tiles(chunk: int):
    vae, video = make(decoder_look_back=2), clip("noise", 17)
    latents = joined(encode_tiled(vae, [video], 40))
    assert torch.equal(joined(encode_tiled(vae, video.split(3 * chunk, dim=2), 40)), latents)
    assert torch.equal(joined(decode_tiled(vae, latents.split(chunk, dim=2), 40)), joined(decode_tiled(vae, [latents], 40)))


def edge_over_rest(video: Tensor, edges: range, rest: list[int]) -> float:
    """Mean step across the columns that begin at `edges` in units of the mean step across those at `rest`."""
    step = video.diff(dim=-1).abs().mean(dim=(0, 1, 2, 3))
    return (step[[place - 1 for place in edges]].mean() / step[[place - 1 for place in rest]].mean()).item()


def test_no_seam_is_seen_where_tiles_meet():
    vae = make()
    latents = random(2, 4, 3, 30, 30)
    # An untrained decoder steps at its own patches, so tile edges are compared with the other edges of latent positions.
    edges, rest = range(40, 240, 40), [place for place in range(8, 240, 8) if place % 40]
    whole, tiled = (edge_over_rest(video, edges, rest) for video in (joined(vae.decode_stream([latents])), joined(decode_tiled(vae, [latents], 40))))
    assert abs(tiled / whole - 1) <= 1e-5
    assert tiled <= 1.1


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "wan"])  # its attention sees everything
def test_tiles_cost_at_most_1_3_times_the_whole_at_720p(name: str):
    vae = preset(name, "meta")
    stride = vae.stride[1]
    grid = (720 // stride, 1280 // stride)  # 704 lines where 720 are off the grid
    latents = torch.empty(1, vae.latent_channels, 1, *grid, device="meta")
    video = torch.empty(1, 3, 1, grid[0] * stride, grid[1] * stride, device="meta")
    want = vae.flops(1, *video.shape[3:])
    for side, halo, stream in (("encode", vae.halo[0], encode_tiled(vae, [video])), ("decode", vae.halo[1], decode_tiled(vae, [latents]))):
        cut = tiling(*grid, stride, halo, "auto")
        with FlopCounterMode(display=False) as counter:
            list(stream)
        work = counter.get_total_flops() / want[side]
        assert work <= MOST_WORK
        assert abs(work / cut.work - 1) <= 0.01
        assert cut.work <= MOST_WORK


@pytest.mark.parametrize(("stride", "halo"), [(8, 4), (8, 9), (16, 5), (32, 3), (8, 0)])
def test_tiles_chosen_for_a_picture_are_bounded_however_large_it_is(stride: int, halo: int):
    # 1.3 times the work buys sides of 14.3 halos, each with two more; a cheaper tiling is taken if it needs less than the work saves.
    bound = MOST_WORK**PRICE * max(SIDE_PX**2 // stride**2, (16.3 * halo + 1) ** 2)
    for height, width in ((64, 64), (512, 512), (736, 1280), (1088, 1920), (2176, 4096), (64, 16384)):
        cut = tiling(height // stride, width // stride, stride, halo, "auto")
        assert cut.work <= MOST_WORK
        assert cut.largest <= bound
        if height * width <= SIDE_PX**2:
            assert len(cut.rows) == len(cut.columns) == 1
        for spans, size in ((cut.rows, height // stride), (cut.columns, width // stride)):
            assert [span.start for span in spans] == [0, *[span.stop for span in spans[:-1]]]
            assert spans[-1].stop == size


@pytest.mark.parametrize("tile", [8, 40, "auto"])
def test_a_picture_that_each_tile_would_see_all_of_is_not_cut(tile):
    for halo in (9, 2**20):
        cut = tiling(9, 8, 8, halo, tile)
        assert (len(cut.rows), len(cut.columns), cut.work) == (1, 1, 1.0)


class Counted:
    """Tensors whose memory is still held by anyone."""

    def __init__(self) -> None:
        self.made: list[weakref.ref] = []

    def tensor(self, values: Tensor) -> Tensor:
        array = values.numpy().copy()
        self.made.append(weakref.ref(array))
        return torch.from_numpy(array)

    @property
    def alive(self) -> int:
        return sum(held() is not None for held in self.made)


@pytest.mark.parametrize("tile", [None, 40])
@pytest.mark.parametrize("side", ["encode", "decode"])
def test_a_stream_holds_one_chunk_and_gives_away_what_it_yields(side: str, tile: int | None):
    vae, given, taken = make(), Counted(), []

    def chunks() -> Iterator[Tensor]:
        for number in range(6):
            assert given.alive <= 1, f"{given.alive} chunks are held while chunk {number} is made"
            assert sum(held() is not None for held in taken) <= 1
            yield given.tensor(random(1, 4, 1, 10, 13) if side == "decode" else clip("noise", 4 if number else 1))

    stream = decode_tiled(vae, chunks(), tile) if side == "decode" else encode_tiled(vae, chunks(), tile)
    for number, piece in enumerate(stream):
        assert len(given.made) == number + 1, "a piece must come as soon as its chunk is there"
        taken.append(weakref.ref(piece))
        del piece
    assert len(taken) == 6
    del stream
    assert given.alive == 0


def test_one_frame_of_any_size_on_the_grid_is_decoded_in_tiles():
    vae = make()
    for size in ((1, 1), (1, 17), (23, 1)):
        latents = random(1, 4, 1, *size)
        assert torch.allclose(joined(decode_tiled(vae, [latents], 16)), vae.decode(latents), atol=1e-5)


@pytest.mark.slow
def test_a_picture_of_1080p_is_decoded_in_tiles():
    vae = preset("world", "cpu").eval().requires_grad_(False)
    latents = random(1, vae.latent_channels, 1, 135, 240)
    assert tiling(135, 240, 8, vae.halo[1], "auto").work <= MOST_WORK
    decoded = joined(decode_tiled(vae, [latents]))
    assert decoded.shape == (1, 3, 1, 1080, 1920)
    assert (decoded - joined(vae.decode_stream([latents]))).abs().max() <= 1e-4 * decoded.std()


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (4, r"tile=4 is off the VAE's grid: it must be a multiple of 8 px \(8 or 16\). Set tile."),
        (100, r"tile=100 is off .* \(96 or 104\)"),
        (-8, r"tile=-8 is off .* \(8 or 16\)"),
        ("large", r"tile='large' must be a multiple of 8 px, auto, or null"),
        (64.0, r"tile=64.0 must be a multiple"),
        (True, r"tile=True must be a multiple"),
    ],
)
def test_tiles_off_the_grid_are_refused_at_once(tile, message: str):
    vae = make()
    for call in (lambda: check_tile(vae, tile), lambda: encode_tiled(vae, [], tile), lambda: decode_tiled(vae, [], tile)):
        with pytest.raises(ValueError, match=message):
            call()


def test_clips_off_the_grid_are_refused_as_untiled():
    vae = make()
    with pytest.raises(ValueError, match=r"height=20 .* \(16 or 24\)"):
        list(encode_tiled(vae, [torch.zeros(1, 3, 1, 20, 64)], 16))
    with pytest.raises(ValueError, match=r"frames=16 .* 1 \+ 4k"):
        list(encode_tiled(vae, [clip("noise", 16)], 40))
    with pytest.raises(ValueError, match=r"decodes b 4 f h w, got shape"):
        list(decode_tiled(vae, [torch.zeros(1, 5, 1, 10, 10)], 40))
    with pytest.raises(ValueError, match=r"got b 1, 4 channels, 10 x 20 after b 1, 4 channels, 10 x 10"):
        list(decode_tiled(vae, [torch.zeros(1, 4, 1, 10, 10), torch.zeros(1, 4, 1, 10, 20)], 40))
