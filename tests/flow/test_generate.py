"""A generated clip is a function of its prompt, seed, number and known frames: not of the batch it was made in."""

import pytest
import torch

from flow.generate import Generator, to_uint8
from flow.guidance import ClassifierFree, NoGuidance
from flow.noise import unit_noise
from flow.solvers import Euler, Heun
from flow.timesteps import grid
from runtime.seeding import Rng, Stream

GRID = (4, 3, 5)
CHANNELS = 2
PROMPTS = ["a red circle", "", "a blue square", 'grün, "quoted", ${x}', "five"]


def encode(prompts):
    return torch.stack([torch.tensor([float(len(p)), float(sum(map(ord, p)) % 23)]) for p in prompts]) / 20


def network(noisy, t, text, moments):
    mixed = noisy + 0.3 * noisy.mean(dim=(2, 3, 4), keepdim=True) + 0.2 * noisy.roll(1, dims=2)
    return torch.tanh(mixed + text.sum(dim=1)[:, None, None, None, None]) * (1 + t[:, None, :, None, None]) + 0.01 * moments[:, None, :, None, None]


def decode(chunks):
    return (latents[:, :1].repeat(1, 3, 1, 1, 1) for latents in chunks)


def make(**changes):
    settings = {"solver": Euler(), "guidance": ClassifierFree(2.0), "steps": 5, "shift": 2.0, "batch_size": 8} | changes
    return Generator(network, encode, decode, CHANNELS, **settings)


def latents(generator, chosen=range(5), seed=0, **known):
    return generator.latents([PROMPTS[i] for i in chosen], GRID, 8.0, seed, list(chosen), **known)


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
def test_cutting_a_call_into_batches_changes_no_sample(solver):
    whole = latents(make(solver=solver))
    for batch_size in (1, 2, 3):
        assert torch.allclose(latents(make(solver=solver, batch_size=batch_size)), whole, atol=1e-5, rtol=0)
    alone = latents(make(solver=solver), [3])
    assert torch.allclose(alone, whole[3:4], atol=1e-5, rtol=0)


def test_noise_is_independent_of_the_batch_bit_for_bit():
    whole = unit_noise(Rng(0), range(5), CHANNELS, GRID)
    for sample in range(5):
        assert torch.equal(unit_noise(Rng(0), [sample], CHANNELS, GRID)[0], whole[sample])
    assert torch.equal(unit_noise(Rng(0), [4, 1], CHANNELS, GRID), whole[[4, 1]])


def test_a_longer_video_begins_with_the_noise_of_a_shorter_one():
    longer = unit_noise(Rng(0), [2], CHANNELS, (7, 3, 5))
    assert torch.equal(longer[:, :, :4], unit_noise(Rng(0), [2], CHANNELS, GRID))
    assert torch.equal(longer[:, :, 4:], unit_noise(Rng(0), [2], CHANNELS, (3, 3, 5), first_frame=4))


def test_noise_is_unit_normal_and_new_for_every_seed_sample_frame_and_channel():
    noise = unit_noise(Rng(0), range(20), 4, (6, 8, 8))
    assert abs(noise.mean().item()) < 3 / noise.numel() ** 0.5
    assert abs(noise.std().item() - 1) < 3 / (2 * noise.numel()) ** 0.5
    frames = noise.permute(0, 2, 1, 3, 4).reshape(20 * 6 * 4, 64)
    assert len(frames.unique(dim=0)) == 20 * 6 * 4
    assert not torch.equal(unit_noise(Rng(1), [0], 4, (6, 8, 8)), noise[:1])


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
def test_known_frames_come_back_bit_for_bit_and_change_the_others(solver):
    known = torch.randn(5, CHANNELS, *GRID, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[0, 0] = mask[1, :3] = mask[2, 2] = mask[4] = True
    made = latents(make(solver=solver, batch_size=2), known_latents=known, known_mask=mask)
    free = latents(make(solver=solver))
    assert torch.equal(made.permute(0, 2, 1, 3, 4)[mask], known.permute(0, 2, 1, 3, 4)[mask])
    assert torch.allclose(made[3], free[3], atol=1e-5)
    for row in range(3):
        assert not torch.allclose(made[row][:, ~mask[row]], free[row][:, ~mask[row]], atol=1e-3)


def test_guidance_hides_given_frames_at_the_level_of_the_others_under_noise_that_made_none_of_them():
    known = torch.randn(2, CHANNELS, *GRID, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0, 0] = True
    asked = []
    generator = make(guidance=ClassifierFree(4.0, frames=2.0), steps=3)
    generator._velocity = lambda noisy, t, *rest: asked.append((noisy, t)) or network(noisy, t, *rest)
    latents(generator, [0, 1], known_latents=known, known_mask=mask)
    noise = unit_noise(Rng(0), [0, 1], CHANNELS, GRID, stream=Stream.GIVEN)
    for level, (noisy, t) in zip(generator.grid[:3].float(), asked, strict=True):
        told, shown, blind = noisy.chunk(3)
        assert torch.equal(told, shown)
        assert torch.equal(shown[0, :, 0], known[0, :, 0])
        assert torch.allclose(blind[0, :, 0], (1 - level) * known[0, :, 0] + level * noise[0, :, 0], atol=1e-6)
        assert torch.equal(blind[:, :, 1:], shown[:, :, 1:])
        assert torch.equal(blind[1], shown[1])
        assert t[0].tolist() == t[2].tolist() == [0.0, *[level] * 3]
        assert (t[4:] == level).all()


def test_what_stands_in_known_latents_outside_the_mask_is_never_read():
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[:, 0] = True
    known = torch.randn(5, CHANNELS, *GRID, generator=torch.Generator().manual_seed(3))
    other = torch.where(mask[:, None, :, None, None], known, torch.nan)
    assert torch.equal(latents(make(), known_latents=known, known_mask=mask), latents(make(), known_latents=other, known_mask=mask))


def test_sampling_walks_the_shifted_grid_and_known_frames_stay_at_zero():
    generator = make(steps=7, shift=3.0)
    known = torch.tensor([[True, False, False, False], [False, False, False, False]])
    times = generator.times(generator.blank(2, GRID, 8.0).keep(torch.zeros(2, CHANNELS, *GRID), known))
    assert times.shape == (8, 2, 4)
    assert torch.equal(times[:, 1, 2], grid(7, 3.0))
    assert not times[:, 0, 0].any()


def test_seed_sample_number_prompt_fps_and_guidance_all_matter():
    base = latents(make(), [2])
    assert torch.equal(latents(make(), [2]), base)
    assert not torch.allclose(latents(make(), [2], seed=1), base)
    assert not torch.allclose(make().latents([PROMPTS[2]], GRID, 8.0, 0, [3]), base)
    assert not torch.allclose(make().latents([PROMPTS[0]], GRID, 8.0, 0, [2]), base)
    assert not torch.allclose(make().latents([PROMPTS[2]], GRID, 24.0, 0, [2]), base)
    assert not torch.allclose(latents(make(guidance=NoGuidance()), [2]), base)


def test_text_is_encoded_once_a_batch_with_the_empty_prompts_beside_it():
    calls = []

    def counted(prompts):
        calls.append(list(prompts))
        return encode(prompts)

    generator = Generator(network, counted, decode, CHANNELS, Euler(), ClassifierFree(3.0), 6, 1.0)
    generator.latents(PROMPTS, GRID, 8.0, 0, range(5))
    assert calls == [PROMPTS + [""] * 5]


def test_progress_counts_every_solver_step_of_every_batch():
    told = []
    make(batch_size=2, steps=3).latents(PROMPTS, GRID, 8.0, 0, range(5), progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 9) for n in range(1, 10)]


def test_videos_are_bytes_with_colours_last():
    videos = make(batch_size=2).videos(latents(make()))
    assert videos.shape == (5, 4, 3, 5, 3)
    assert videos.dtype == torch.uint8


def test_frames_come_as_soon_as_their_latent_frame_is_decoded():
    asked = []

    def decode_noted(chunks):
        for number, chunk in enumerate(chunks):
            assert chunk.shape == (5, CHANNELS, 1, 3, 5)
            asked.append(number)
            yield from decode([chunk])

    generator = Generator(network, encode, decode_noted, CHANNELS, Euler(), NoGuidance(), 2, 1.0)
    made = latents(generator)
    pieces = []
    for number, frames in enumerate(generator.frames(made)):
        assert asked == list(range(number + 1))
        pieces.append(frames)
    assert len(pieces) == 4
    assert torch.equal(torch.cat(pieces, dim=1), make(batch_size=2).videos(made))


def test_bytes_are_the_nearest_and_cut_at_both_ends():
    video = torch.tensor([-3.0, -1.0, -1 + 1.4 / 127.5, -1 + 1.6 / 127.5, 0.999, 1.0, 5.0])[None, None, :, None, None].expand(1, 3, 7, 1, 1)
    assert to_uint8(video)[0, :, 0, 0, 0].tolist() == [0, 0, 1, 2, 255, 255, 255]


def test_sampling_keeps_no_graph():
    weight = torch.ones(1, requires_grad=True)
    generator = Generator(lambda n, t, x, s: n * weight, encode, decode, CHANNELS, Euler(), NoGuidance(), 2, 1.0)
    assert not generator.latents(["a"], GRID, 8.0, 0, [0]).requires_grad


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: make(batch_size=0), "batch_size"),
        (lambda: make(steps=0), "steps"),
        (lambda: make().latents(["a"], GRID, 8.0, 0, [0, 1]), "sample numbers"),
        (lambda: make().latents(["a"], GRID, 0.0, 0, [0]), "fps"),
        (lambda: make().latents(["a"], GRID, [8.0, 8.0], 0, [0]), "fps"),
        (lambda: make().latents(["a"], GRID, 8.0, 0, [0], known_latents=torch.zeros(1, 2, *GRID)), "go together"),
        (lambda: latents(make(), [0], known_latents=torch.zeros(1, 2, 3, 3, 5), known_mask=torch.zeros(1, 4, dtype=torch.bool)), "known frames want"),
    ],
)
def test_arguments_that_disagree_are_refused_by_name(call, names):
    with pytest.raises(ValueError, match=names):
        call()


def test_a_sample_never_begins_with_noise_that_training_saw():
    seen = []
    generator = make(guidance=NoGuidance(), steps=1)
    generator._velocity = lambda noisy, *rest: seen.append(noisy) or network(noisy, *rest)
    latents(generator, [3])
    trained, sampled = (unit_noise(Rng(0), [3], CHANNELS, GRID, stream=stream) for stream in (Stream.NOISE, Stream.SAMPLING))
    assert torch.equal(seen[0], sampled)
    assert not torch.equal(seen[0], trained)
