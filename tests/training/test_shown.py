"""The network is shown a clip's own latents at their own moments, and learns from what it was not given."""

from dataclasses import replace

import pytest
import torch

from data.batch import Batch, Shot
from flow.conditioning import PATTERNS, KnownFrames
from flow.given import Rule
from flow.noise import unit_noise
from flow.timesteps import LogitNormal, PerFrame, Uniform, shift
from models.geometry import moments
from runtime.seeding import Rng, Stream
from training.captions import CaptionPolicy
from training.shown import Draw

F, RULE = 5, Rule(4, 1)
STILLS = (4, 8, 12, 16)
CAPTIONS = CaptionPolicy(free={"short": 1.0}, known={"motion": 1.0}, picture={"long": 1.0})
SHARED = {"last_n": 1.0, "ends": 1.0, "span": 1.0, "keyframes": 1.0}
ALL = dict.fromkeys(PATTERNS, 1.0)


def said(what):
    return {kind: (f"{kind} {what}",) for kind in ("short", "motion", "long")}


def batch(samples=range(40), frames=F, stills=True, shots=()):
    """Clips of unlike rates, each with a fifth picture that is its own."""
    b = len(samples)
    content = torch.from_numpy(Rng(5).normal(Stream.WORLD, list(samples), frames, (2, 3, 4))).transpose(1, 2).contiguous()
    fps = torch.tensor([8.0 + sample % 3 for sample in samples])
    numbers = torch.tensor([[*STILLS, 1 + sample % 3] for sample in samples])
    alone = torch.from_numpy(Rng(6).normal(Stream.WORLD, list(samples), 5, (2, 3, 4))).transpose(1, 2).contiguous()
    pictures = {"stills": alone, "still_frames": numbers} if stills else {}
    assert len(fps) == b
    return Batch(tuple(samples), tuple(samples), tuple(said(sample) for sample in samples), fps, latents=content, shots=shots, **pictures)


def drawer(weights, law=None, shift_by=2.0, **settings):
    return Draw(KnownFrames(weights, **settings), law or Uniform(), shift_by, CAPTIONS, RULE)


def drawn(draw, clips, seed=1):
    return draw(Rng(seed), clips, clips.latents, lambda places, numbers: clips.stills[list(places), :, list(numbers)])


def by_sample(draw, clips):
    """(place, what is given of it, latents c F h w, noise, counts, t, moments, prompt) of each sample."""
    given, rows = draw.given(Rng(1), clips, clips.latents.shape[2]), []
    groups = drawn(draw, clips)
    sizes = sorted({one.frames for one in given}, reverse=True)
    assert [group.latents.shape[2] for group in groups] == sizes
    for size, group in zip(sizes, groups, strict=True):
        places = [place for place, one in enumerate(given) if one.frames == size]
        assert len(group.prompts) == len(places)
        for row, place in enumerate(places):
            fields = (group.latents, group.noise, group.counts, group.t, group.moments)
            rows.append((place, given[place], *(field[row] for field in fields), group.prompts[row]))
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize("law", [LogitNormal(0.0, 1.0), PerFrame(Uniform())], ids=repr)
def test_beginnings_alone_are_shown_by_the_formulas_bit_for_bit(law):
    clips = batch(stills=False)
    (shown,) = drawn(drawer({"none": 1.0, "first": 1.0, "first_n": 2.0}, law), clips)
    numbers = Rng(1).uniform(Stream.KNOWN, clips.samples, 2)
    lengths = [0 if u < 0.25 else 1 if u < 0.5 else 1 + int(v * (F - 1)) for u, v in numbers]
    known = torch.arange(F)[None] < torch.tensor(lengths)[:, None]
    t = torch.where(known, 0.0, shift(law.draw(Rng(1), clips.samples, F), 2.0))
    noise = unit_noise(Rng(1), clips.samples, 2, (F, 3, 4))
    times = t[:, None, :, None, None]
    assert set(lengths) == set(range(F))
    assert torch.equal(shown.t, t)
    assert torch.equal(shown.counts, ~known)
    assert torch.equal(shown.noise, noise)
    assert torch.equal(shown.noisy, (1 - times) * clips.latents + times * noise)
    assert torch.equal(shown.moments, moments(F, clips.fps, 4))
    assert shown.prompts == [f"{'motion' if length else 'short'} {sample}" for sample, length in zip(clips.samples, lengths, strict=True)]


@pytest.mark.parametrize("settings", [{}, {"windows": 0.4, "noise": 0.3}], ids=["plain", "windows and noise"])
def test_all_that_is_shown_is_the_clip_s_own_at_its_own_moments(settings):
    clips, kinds = batch(range(120)), set()
    for place, given, latents, _, counts, t, when, _ in by_sample(drawer(ALL, **settings), clips):
        window = list(given.window)
        assert torch.equal(latents[:, : len(window)], clips.latents[place][:, window])
        numbers = clips.still_frames[place].tolist()
        for behind, frame in enumerate(given.pictures, len(window)):
            assert torch.equal(latents[:, behind], clips.stills[place, :, numbers.index(frame)])
        frames = [*(4 * k for k in window), *given.pictures]
        assert torch.allclose(when, torch.tensor(frames) / clips.fps[place], rtol=1e-6)
        known = torch.tensor([*given.known, *[True] * len(given.pictures)])
        assert torch.equal(counts, ~known)
        assert (t[known] == torch.tensor(given.level)).all()
        assert (t[~known] > 0).all()
        assert given.independent or len(t[~known].unique()) == 1
        kinds.add((len(window), bool(given.pictures), given.level > 0))
    assert {(5, True), (1, False), (5, False)} <= {kind[:2] for kind in kinds}
    assert any(length == F - 1 for length, *_ in kinds) == any(level for *_, level in kinds) == bool(settings)


def test_a_window_is_a_clip_without_its_first_frame():
    clips = batch(stills=False)
    (shown,) = drawn(drawer({"none": 1.0}, windows=1 - 2**-40), clips)
    assert torch.equal(shown.latents, clips.latents[:, :, 1:])
    assert torch.equal(shown.moments, moments(F, clips.fps, 4)[:, 1:])
    assert shown.counts.all()


def test_a_level_of_noise_is_on_what_is_given_alone():
    clips = batch()
    draw = drawer(SHARED, noise=0.5)
    levels = []
    for _, given, latents, noise, counts, t, _, _ in by_sample(draw, clips):
        noisy = (1 - t[:, None, None]) * latents + t[:, None, None] * noise
        level = torch.tensor(given.level)
        assert torch.equal(noisy[:, ~counts], ((1 - level) * latents + level * noise)[:, ~counts])
        levels.append(given.level)
    assert len(set(levels)) == len(clips)
    assert max(levels) < 0.5


def test_independent_frames_have_levels_of_their_own_by_the_law_and_the_shift():
    clips = batch(stills=False)
    (shown,) = drawn(drawer({"independent": 1.0}, LogitNormal(0.0, 1.0), 3.0), clips)
    assert shown.counts.all()
    assert all(len(row.unique()) == F for row in shown.t)
    assert torch.equal(shown.t, shift(PerFrame(LogitNormal(0.0, 1.0)).draw(Rng(1), clips.samples, F), 3.0))
    assert torch.equal(drawn(drawer({"independent": 1.0}, PerFrame(LogitNormal(0.0, 1.0)), 3.0), clips)[0].t, shown.t)


def test_the_caption_is_of_the_table_of_what_is_shown():
    for place, given, *_, prompt in by_sample(drawer(ALL, windows=0.3), batch(range(120))):
        kind = "motion" if any(given.known) or given.pictures else "long" if given.frames == 1 else "short"
        assert prompt == f"{kind} {place}"


CUTS = (Shot(0, 6, said("one")), Shot(6, 13, said("two")), Shot(13, 17, said("three")))
OWN = {"one": [0, 1], "two": [3], "three": [4]}  # latent frames end with pixel frames 0, 4, 8, 12, 16; the one that ends with 8 shows two shots


def test_a_sample_is_told_of_one_shot_and_learns_from_its_own_latent_frames_alone():
    clips, seen = batch(range(80), shots=(CUTS,) * 80), []
    for _, given, _, _, counts, t, _, prompt in by_sample(drawer({"none": 1.0, "first_n": 1.0, "keyframes": 1.0}, windows=0.3), clips):
        _, shot = prompt.split()
        window = [frame in OWN[shot] and not known for frame, known in zip(given.window, given.known, strict=True)]
        assert counts.tolist() == [*window, *[False] * len(given.pictures)]
        assert any(window)
        assert (t[: len(window)] > 0).tolist() == [not known for known in given.known]  # others are shown as they would be
        seen.append(shot)
    assert {shot: seen.count(shot) > 10 for shot in OWN} == dict.fromkeys(OWN, True)


def test_a_clip_without_shots_that_can_be_learnt_from_keeps_its_caption_and_all_its_frames():
    between = (Shot(5, 8, said("between")),)  # holds no whole latent frame
    clips = batch(range(3), stills=False, shots=(between, (), CUTS))
    (shown,) = drawn(drawer({"none": 1.0}), clips)
    assert shown.prompts[:2] == ["short 0", "short 1"]
    assert shown.counts[:2].all()
    assert not shown.counts[2].all()
    known = drawer({"first_n": 1.0})
    for place, given, *_, counts, _, _, prompt in by_sample(known, batch(range(60), stills=False, shots=((CUTS[0],),) * 60)):
        told = not all(given.known[:2])  # a shot of given frames alone says nothing of what is made
        assert prompt == ("motion one" if told else f"motion {place}")
        assert counts.tolist() == [not one and (not told or k < 2) for k, one in enumerate(given.known)]


@pytest.mark.parametrize("start", range(1, 17))
def test_a_latent_frame_is_of_a_shot_if_all_its_pixel_frames_are(start):
    for stop in range(start + 1, 18):
        clips = replace(batch(range(1), stills=False), shots=((Shot(start, stop, said("it")),),))
        (shown,) = drawn(drawer({"none": 1.0}), clips)
        inside = [set(RULE.pixels(k)) <= set(range(start, stop)) for k in range(F)]
        assert shown.counts[0].tolist() == (inside if any(inside) else [True] * F)


@pytest.mark.parametrize("shots", [False, True])
def test_a_sample_is_shown_alike_alone_and_in_any_batch(shots):
    clips, draw = batch(range(30), shots=(CUTS,) * 30 if shots else ()), drawer(ALL, windows=0.3, noise=0.2)
    for place, _, *fields, prompt in by_sample(draw, clips):
        own = {name: getattr(clips, name)[place : place + 1] for name in ("samples", "rows", "captions", "fps", "latents", "stills", "still_frames")}
        ((_, _, *alone, text),) = by_sample(draw, replace(clips, **own, shots=clips.shots[place : place + 1]))
        assert text == prompt
        assert all(torch.equal(one, other) for one, other in zip(alone, fields, strict=True))


@pytest.mark.parametrize("name", sorted(SHARED))
def test_late_pictures_that_the_data_lacks_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"conditioning\.weights.*Set data\.stills"):
        drawn(drawer({"none": 1.0, name: 0.01}), batch(stills=False))
    (shown,) = drawn(drawer({"none": 1.0, name: 1.0}), batch(frames=1, stills=False))  # a single image has no later picture
    assert shown.counts.all()
    assert drawn(drawer({"none": 1.0, name: 0.0}), batch(stills=False))
