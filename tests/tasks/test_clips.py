"""From latents to files: decoded while written, kept latents serve every format, and nothing is overwritten or half there."""

import json

import pytest
import torch
from PIL import Image

from data.files.reader import read_video
from data.provenance import Fingerprint, Origin, make_record
from runtime.build import ConfigError
from tasks.clips import FORMATS, Decoded, finished, next_number, shown, slug, there, writable, write

HERE = Origin("run", 1, "c", "w", "cpu", 1)


@pytest.fixture
def latents():
    return torch.randn(1, 4, 3, 2, 3, generator=torch.Generator().manual_seed(0))


def record(**asked):
    return make_record({"prompt": "x", "fps": 8.0, "height": 16} | asked, HERE)


def test_latents_are_made_when_their_frames_are_asked_for_and_once_alone(generator, latents):
    made = []

    def parts():
        for part in latents.split(2, dim=2):
            made.append(part.shape[2])
            yield part

    clip = Decoded(generator, parts(), 9)
    assert len(clip) == 9
    frames = iter(clip)
    assert made == []
    first = [next(frames) for _ in range(5)]  # what the first two latent frames hold
    assert made == [2]
    assert len([*first, *frames]) == 9
    assert made == [2, 1]
    again = list(clip)
    assert made == [2, 1]
    assert all((one == other).all() for one, other in zip(first, again, strict=False))


def test_a_loop_is_decoded_round_the_circle(generator, latents):
    frames = torch.stack([torch.from_numpy(frame) for frame in Decoded(generator, [latents[:, :, :1], latents[:, :, 1:]], 12, cyclic=True)])
    assert torch.equal(frames, torch.cat(list(generator.frames(latents, cyclic=True)), dim=1)[0])


def test_every_format_holds_the_same_frames_and_the_sidecar_says_which(generator, latents, tmp_path):
    video = Fingerprint(Decoded(generator, [latents], 9))
    file, seconds = write(tmp_path / "000-x", video, list(FORMATS), record(), 1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000-x.gif", "000-x.json", "000-x.mp4", "000-x.png", "000-x.strip.png"]
    assert file.name == "000-x.mp4"
    assert seconds > 1.5
    told = json.loads((tmp_path / "000-x.json").read_text())
    assert told["frames_sha256"] == video.sha256
    assert read_video(tmp_path / "000-x.mp4").shape == (9, 16, 24, 3)
    assert Image.open(tmp_path / "000-x.gif").info["loop"] == 0
    first = next(iter(Decoded(generator, [latents], 9)))
    assert (torch.from_numpy(first) == torch.tensor(list(Image.open(tmp_path / "000-x.png").tobytes())).view(16, 24, 3)).all()


def test_a_disk_that_refuses_leaves_no_half_clip(generator, latents, tmp_path, monkeypatch):
    def full(stem, video, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "gif", full)
    with pytest.raises(RuntimeError, match=r"000-x could not be written.*No space left.*clips before it are kept.*Set out="):
        write(tmp_path / "000-x", Fingerprint(Decoded(generator, [latents], 9)), ["mp4", "gif"], record())
    assert not (tmp_path / "000-x.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        writable(tmp_path / "file" / "out")


def test_numbers_go_on_and_names_are_plain(tmp_path):
    assert next_number(tmp_path) == 0
    for name in ("000-a.mp4", "012-b.json", "notes.txt"):
        (tmp_path / name).write_text("")
    assert next_number(tmp_path) == 13
    assert slug("Ä red, circle / moves\n" + "x" * 99) == "a-red-circle-moves-" + "x" * 29
    assert (slug(""), slug("круг")) == ("no-prompt", "clip")
    assert len(shown("x" * 200)) == 79


def test_a_clip_that_is_there_is_known_by_how_it_was_asked_for(tmp_path):
    stem, want = tmp_path / "003-x", {"prompt": "x", "seed": 1}
    assert not finished(stem, want, ["mp4"])
    (tmp_path / "003-x.mp4").write_text("")  # broken off before its sidecar
    assert not finished(stem, want, ["mp4"])
    (tmp_path / "003-x.json").write_text(json.dumps({**want, "seconds": 1.0}))
    assert finished(stem, want, ["mp4"])
    assert not finished(stem, want, ["mp4", "strip"])  # of which there is no file
    (tmp_path / "003-x.strip.png").write_text("")
    assert there(stem) == ["mp4", "strip"]
    assert finished(stem, want, ["strip"])
    with pytest.raises(ConfigError, match=r"003-x\.json was made with another seed.*set out="):
        finished(stem, {"prompt": "x", "seed": 2}, ["mp4"])
    with pytest.raises(ConfigError, match=r"003-x\.json was made with another prompt"):
        finished(tmp_path / "003-y", {"prompt": "y", "seed": 1}, ["mp4"])
