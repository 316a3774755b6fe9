"""Parts of the picture: positions that the encoder makes of kept pixels alone come back as the source's, all others are made."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from runtime.build import ConfigError
from tasks.make import Job, latents
from tasks.paint import Inpaint, Outpaint, kept_positions
from tasks.sources import clip
from tasks.task import Files

ROOT = Path(__file__).parents[2]
SIZE = {"height": 64, "width": 64}


def made(generator, plan):
    (found,) = latents(generator, [plan], Job(["x"], [0], 0))
    return found


def masked(folder, media, white=slice(32, None), size=(64, 64)) -> Files:
    mask = np.zeros(size, np.uint8)
    mask[:, white] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return Files(videos=(f"{media}/wide.mp4",), mask=str(folder / "mask.png"))


def test_kept_positions_see_kept_pixels_alone():
    kept = np.ones((40, 40), bool)
    kept[17, 17] = False  # one pixel of position (2, 2)
    found = kept_positions(kept, 8, 1)
    assert found.shape == (5, 5)
    assert (~found).nonzero()[0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert kept_positions(np.ones((16, 16), bool), 8, 3).all()  # beyond the edge nothing is missing


def test_kept_positions_come_back_as_the_source_whatever_the_rest_of_it_shows(desk, generator, media, tmp_path):
    plan = Inpaint().begin(masked(tmp_path, media), desk(**SIZE))
    whole = desk(**SIZE).latents(clip(f"{media}/wide.mp4", 8.0))
    found, mask = made(generator, plan), plan.canvas.mask
    assert 0 < mask.float().mean() < 1
    kept = mask[:, None].expand_as(found)
    assert torch.equal(found[kept], whole[kept])
    assert (found - whole)[~kept].abs().median() > 0.1
    # And no kept position depends on what was painted over.
    black = clip(f"{media}/wide.mp4", 8.0).copy()
    black[:, :, 32:] = 0
    assert torch.allclose(desk(**SIZE).latents(black)[kept], whole[kept], atol=1e-5)


def test_a_smaller_margin_keeps_more(desk, media, tmp_path):
    kept = [Inpaint(margin).begin(masked(tmp_path, media), desk(**SIZE)).canvas.mask[0, 0].sum().item() for margin in (None, 1, 0)]
    assert kept[0] <= kept[1] < kept[2] == 8 * 4


def test_an_outpainted_clip_keeps_its_middle(desk, generator, media):
    plan = Outpaint(0.5).begin(Files(videos=(f"{media}/wide.mp4",)), desk(**SIZE))
    kept = plan.canvas.mask[0, 0]
    assert kept[4, 4]
    assert not kept[0].any()
    assert not kept[:, -1].any()
    found = made(generator, plan)
    assert torch.equal(found[..., kept], plan.canvas.latents[..., kept])
    assert plan.source.shape == (9, 64, 64, 3)


def test_one_position_around_what_is_made_is_made_too(desk, media):
    video = Files(videos=(f"{media}/wide.mp4",))
    kept = Outpaint(0.5).begin(video, desk(**SIZE)).canvas.mask[0, 0]
    assert kept.nonzero().min(dim=0)[0].tolist() == [3, 3]  # of an inner picture at 2 to 5
    assert kept.sum() == 2 * 2
    for task in ("inpaint", "outpaint"):
        assert yaml.safe_load((ROOT / f"configs/task/{task}.yaml").read_text())["margin"] == 1
    assert Inpaint().margin == Outpaint(0.5).margin == 1


def test_a_picture_is_held_still(desk, media):
    plan = Outpaint(0.75).begin(Files(images=(f"{media}/a.png",)), desk(**SIZE))
    assert (plan.source == plan.source[:1]).all()
    assert plan.frames == 9


def test_masks_that_do_not_fit_are_refused(desk, media, tmp_path):
    with pytest.raises(ConfigError, match=r"mask\.png is 32x48, the source is 64x64\. Give a mask of the source's own size"):
        Inpaint().begin(masked(tmp_path, media, size=(48, 32), white=slice(8, None)), desk(**SIZE))
    with pytest.raises(
        ConfigError, match=r"mask\.png keeps nothing .* 0% of the 64x64 .* 24x24 px .* Give a mask with less white, .* or task\.margin lower"
    ):
        Inpaint().begin(masked(tmp_path, media, white=slice(0, None)), desk(**SIZE))
    with pytest.raises(ConfigError, match=r"mask\.png keeps everything, so nothing is left to make"):
        Inpaint().begin(masked(tmp_path, media, white=slice(0, 0)), desk(**SIZE))
    with pytest.raises(ConfigError, match=r"task\.scale=0\.1, an inner picture of 8x8 px .*, keeps nothing .* Set task\.scale higher, set height"):
        Outpaint(0.1).begin(Files(videos=(f"{media}/wide.mp4",)), desk(**SIZE))
    with pytest.raises(ConfigError, match=r"setup\.cfg cannot be used \(.*\)\. Give a picture or a video file"):
        Outpaint(0.5).begin(Files(images=("setup.cfg",)), desk(**SIZE))
    with pytest.raises(ConfigError, match="task=inpaint wants a mask"):
        Inpaint().begin(Files(videos=(f"{media}/wide.mp4",)), desk(**SIZE))
    with pytest.raises(ConfigError, match="wants one video or one picture"):
        Inpaint().begin(Files(mask="x"), desk(**SIZE))
    with pytest.raises(ConfigError, match=r"task\.margin=-1"):
        Inpaint(margin=-1)
    with pytest.raises(ConfigError, match=r"task\.scale=1 leaves no surroundings"):
        Outpaint(1)
