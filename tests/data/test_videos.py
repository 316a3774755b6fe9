import pytest
import torch
from torch.nn import functional

from data.reader import AutoReader
from data.transforms import DetailCrop
from data.videos import Encoder, Videos
from runtime.build import build, check


def videos(folder, **changes):
    settings = {
        "train": str(folder / "index.jsonl"),
        "val": str(folder / "index.jsonl"),
        "frames": 5,
        "height": 32,
        "width": 32,
        "fps": 8,
        "batch_size": 4,
        "micro_batch": 2,
        "workers": 0,
        "reader": AutoReader(),
        "crop": None,
        "memory_mb": 16,
        "latents": None,
        "latent_dtype": "float32",
        "val_samples": 3,
        "bad_limit": 0.01,
    }
    return Videos(**{**settings, **changes})


def encoder():
    return Encoder(lambda video: functional.avg_pool3d(functional.pad(video, (0, 0, 0, 0, 3, 0), mode="replicate"), (4, 8, 8)), "key", (4, 8, 8))


def test_training_gives_videos_and_crops_them(clips):
    loader = videos(clips, crop=DetailCrop(16)).loader(seed=0, encoder=None)
    steps = list(loader.steps(0, loader.steps_per_epoch))
    assert [[tuple(batch.video.shape) for batch in step] for step in steps] == [[(2, 3, 5, 16, 16)] * 2, [(2, 3, 5, 16, 16), (1, 3, 5, 16, 16)]]
    assert sorted(row for step in steps for batch in step for row in batch.rows) == list(range(7))


def test_validation_is_fixed_whole_and_never_cropped(clips):
    first, second = (videos(clips, crop=DetailCrop(16), micro_batch=micro).validation(None) for micro in (2, 3))
    assert [batch.samples for batch in first] == [(0, 1), (2,)]
    assert [batch.rows for batch in first] == [(0, 1), (2,)]
    assert first[0].video.shape == (2, 3, 5, 32, 32)
    assert torch.equal(torch.cat([batch.video for batch in first]), second[0].video)


def test_an_encoder_and_a_folder_give_latents(clips, tmp_path):
    made = videos(clips, latents=str(tmp_path / "latents"))
    (batch, _), *_ = made.loader(0, encoder()).steps(0, 2)
    plain = videos(clips)
    (clip, _), *_ = plain.loader(0, None).steps(0, 2)
    assert batch.video is None
    assert batch.rows == clip.rows
    assert torch.allclose(batch.latents, encoder().encode(clip.video), atol=1e-6)
    (valid, _), (pixels, _) = made.validation(encoder()), plain.validation(encoder())
    assert torch.equal(valid.latents, encoder().encode(pixels.video))
    assert made.loader(0, None).steps(0, 1).__next__()[0].latents is None  # a VAE trains on pixels whatever the folder


def test_what_cannot_be_cached_names_the_key(clips, tmp_path):
    with pytest.raises(ValueError, match=r"data\.latents=null"):
        videos(clips, latents=str(tmp_path), crop=DetailCrop(16)).loader(0, encoder())
    with pytest.raises(ValueError, match=r"frames=4 cannot be encoded.*\(1 or 5\)"):
        videos(clips, latents=str(tmp_path), frames=4).loader(0, encoder())
    with pytest.raises(ValueError, match=r"width=28 is off the VAE's grid.*24 or 32"):
        videos(clips, latents=str(tmp_path), width=28).loader(0, encoder())
    with pytest.raises(ValueError, match=r"data\.val_samples"):
        videos(clips, val_samples=0)


@pytest.mark.parametrize("reader", ["auto", "decord", "pyav"])
@pytest.mark.parametrize(("group", "crop"), [("world", None), ("videos", None), ("videos", "detail")])
def test_the_configs_build(clips, reader, group, crop):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    from runtime.config import CONFIGS

    overrides = [f"+data={group}", f"data/reader={reader}", f"data.train={clips}/index.jsonl", f"data.val={clips}/index.jsonl", "+run=runs/x"]
    overrides += [f"data/crop={crop}"] if crop else []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        node = OmegaConf.to_container(hydra_compose(None, [*overrides, "data.frames=5", "data.height=32", "data.width=32"]), resolve=True)["data"]
    check(node)
    made = build(node)
    assert (made.crop is None) == (crop is None)
    (batch, *_), *_ = made.loader(0, None).steps(0, 1)
    assert batch.video.shape[2:] == (5, 32, 32)
