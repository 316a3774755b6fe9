"""Laws of the page: complete in itself, honest about what is missing or wrong, and safe whatever a prompt says."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from data.world.captions import captions, claim
from data.world.render import render
from data.world.sampling import draw_scene
from data.world.truth import truth
from evaluation.charts import thin
from evaluation.gallery import choose, write
from evaluation.markup import Media, percent
from evaluation.report import LIMIT_BYTES, losses, page
from evaluation.suite import Clip, Plan, draw_prompts, evaluate_flow, evaluate_vae

VOID = {"meta", "br", "img", "rect", "line", "polyline", "circle"}
PROTOCOL = {"seed": 3, "steps": 12, "size": [64, 64], "machine": "a machine", "versions": {"torch": "9"}, "weights_sha256": "abc"}


class Reader(HTMLParser):
    """Tags with their attributes, and whether they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def clip(number: int) -> Clip:
    scene = draw_scene(1, number, "easy", "heldout")
    texts = captions(scene, 1, number)
    boxes = [[item.box for item in frame.objects] for frame in truth(scene, 17, 64, 64)]
    return Clip(render(scene, 17, 64, 64), claim(scene), boxes, texts["short"][0], texts["motion"][0])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder made by the real evaluation from a generator that does one prompt of four wrong."""
    root, clips = tmp_path_factory.mktemp("demo"), [clip(number) for number in range(6)]
    known = {prompt.text: number for number, prompt in enumerate(draw_prompts(14, 0, "easy", "heldout"))}

    def generate(texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        numbers = [known.get(text, 0) + (sample % 4 == 3) for text, sample in zip(texts, samples, strict=True)]
        return [render(draw_scene(0, number, "easy", "heldout"), 17, 64, 64) for number in numbers]

    def animate(firsts: Sequence[np.ndarray], texts: Sequence[str], samples: Sequence[int]) -> list[np.ndarray]:
        return [next(c.video for c in clips if np.array_equal(c.video[:1], first)) for first in firsts]

    plan = Plan(prompts=14, seen=2, animated=6, difficulty="easy", seed=0)
    write(make(root / "dit"), evaluate_flow(plan, clips, clips, generate, animate, lambda videos: videos), PROTOCOL, 8)
    write(make(root / "vae"), evaluate_vae(clips, lambda videos: videos, 0), PROTOCOL, 8)
    for name in ("vae", "dit"):
        rows = [{"kind": kind, "step": step, "loss": 2.0 / step} for step in range(1, 40) for kind in ("train", "val")]
        (root / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = [{"stage": "vae", "seconds": 90.5, "command": "python train.py experiment=demo/vae"}]
    (root / "stages.json").write_text(json.dumps({"recipe": "easy", "stages": stages}))
    return root


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "demo"))


def test_the_page_needs_nothing_beside_it(demo: Path) -> None:
    text = page(demo)
    reader = Reader(text)
    sources = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href", "poster", "srcset", "data")]
    assert len(sources) > 40
    assert all(source and source.startswith("data:") for source in sources)
    assert not reader.all("script", "link", "iframe", "object", "base", "form")
    assert not re.search(r"url\(|@import|javascript:|\son\w+=", text)
    assert len(text.encode()) <= LIMIT_BYTES


def test_everything_to_be_seen_has_words_and_videos_play_by_themselves(demo: Path) -> None:
    reader = Reader(page(demo))
    assert all(attributes.get("alt") for attributes in reader.all("img"))
    assert all(attributes.get("aria-label") for attributes in reader.all("svg", "video"))
    for attributes in reader.all("video"):
        assert {"autoplay", "loop", "muted", "playsinline"} <= set(attributes)
        assert str(attributes["poster"]).startswith("data:image/png;base64,")
    assert len(reader.all("video")) == 12 + 6 + 2 * 6


def test_videos_are_h264_yuv420p_in_their_own_size(demo: Path) -> None:
    for attributes in Reader(page(demo)).all("video"):
        with av.open(BytesIO(b64decode(str(attributes["src"]).partition(",")[2])), "r") as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 64)
            assert sum(1 for _ in container.decode(stream)) == 17


def test_the_one_number_and_its_frame_come_first(demo: Path) -> None:
    figures, text = json.loads((demo / "dit" / "evaluation.json").read_text()), page(demo)
    share = figures["prompt_following"]["all"]
    assert share["n"] == 14
    main = text[text.index("<header>") : text.index("Prompts and their videos")]
    for shown in (f"<dd>{percent(share['value']).split(chr(0x202F))[0]}<", percent(figures["chance"]), percent(figures["ceiling"]["value"])):
        assert shown in main


def test_failures_are_shown_and_called_so(demo: Path) -> None:
    items = json.loads((demo / "dit" / "evaluation" / "gallery.json").read_text())["prompts"]
    wrong = sum(not item["correct"] for item in items)
    assert wrong >= 2
    assert len(re.findall(r'<figure class="wrong">', page(demo))) == wrong


def test_a_page_shows_the_first_samples_and_two_failures_if_there_are_any() -> None:
    right = [True] * 40
    assert choose(right) == (list(range(12)), 12)
    assert choose([*right[:20], False, *right, False, False]) == ([*range(10), 20, 61], 10)
    assert choose([*right[:20], False, *right]) == ([*range(11), 20], 11)
    assert choose([False, False, *right, False]) == (list(range(12)), 12)
    assert choose([True, False, True]) == ([0, 1, 2], 3)


def test_prompts_are_text_and_never_markup(copy: Path) -> None:
    evil = '</q><script>alert("x")</script> & \'"><img src=http://example.org/x> ${aspect} $'
    path = copy / "dit" / "evaluation" / "gallery.json"
    gallery = json.loads(path.read_text())
    gallery["prompts"][0]["prompt"] = gallery["image_to_video"][0]["caption"] = evil
    path.write_text(json.dumps(gallery))
    reader = Reader(page(copy))
    assert not reader.all("script")
    assert all(str(attributes["src"]).startswith("data:") for attributes in reader.all("img"))
    assert f"Generated video: {evil}" in [attributes["aria-label"] for attributes in reader.all("video")]


MAY_MISS = "stages.json vae dit vae/evaluation.json dit/evaluation.json dit/evaluation dit/metrics.jsonl dit/evaluation/prompts-00-video.mp4"


@pytest.mark.parametrize("gone", MAY_MISS.split())
def test_what_is_missing_is_said_and_the_rest_still_shown(copy: Path, gone: str) -> None:
    complete = Reader(page(copy))
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = page(copy)
    assert len(Reader(text).all("section")) == len(complete.all("section"))
    assert re.search("Not measured|has not been measured|no stages.json|No losses|left no samples|not there", text)


def test_an_empty_or_damaged_folder_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither"):
        page(make(tmp_path / "empty"))
    (copy / "dit" / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is not readable as JSON"):
        page(copy)


def test_what_the_autoencoder_costs_and_how_far_its_clips_are_stand_on_the_page(copy: Path) -> None:
    path = copy / "vae" / "evaluation.json"
    figures = json.loads(path.read_text())
    figures["tokenizer"] = {"stride": [4, 8, 8], "latent_channels": 4, "values_ratio": 163.2, "bits_per_pixel": 0.123}
    figures["tokenizer"] |= {"encode_tflop": 0.0051, "decode_tflop": 0.0075}
    figures["vae"]["edge_ratio"] = {"stride": 1.019}
    figures["vae"]["frechet"]["spectrum-23"] |= {"value": 2.5, "low": 2, "high": 3, "halves": None}
    path.write_text(json.dumps(figures))
    text = page(copy)
    for shown in (
        "stands for 4 x 8 x 8 frames",
        "one for every 163 of the clip",
        "0.12 bits",
        "0.0051 and 0.0075 TFLOP",
        "1.02 times",
        "2.5",
        "2 to 3",
    ):
        assert shown in text
    assert "left out" not in text
    node = figures["vae"]["kernel"]["pixels-4x4x4"]
    assert node["value"] == 0
    assert text.count("kernel distance, 0 on average where nothing is unlike") == 2, "of reconstructions and of generated videos"
    for name in ("pixels-4x4x4", "random-conv-64"):
        assert f"None over <code>{name}</code>: a Frechet distance over" in text, "too few samples, and why stands there"
    figures["vae"]["frechet"]["spectrum-23"]["left_out"] = 2
    path.write_text(json.dumps(figures))
    assert "2 of 6 clips are left out of these distances" in page(copy)
    # An evaluation of before has none of it.
    del figures["tokenizer"], figures["vae"]["edge_ratio"], figures["vae"]["frechet"], figures["vae"]["kernel"]
    path.write_text(json.dumps(figures))
    other = copy / "dit" / "evaluation.json"
    figures = json.loads(other.read_text())
    del figures["generated"]
    other.write_text(json.dumps(figures))
    assert "Frechet" not in page(copy)
    assert "kernel distance" not in page(copy)


def test_a_fast_run_says_that_its_samples_are_not_meant_to_be_good(copy: Path) -> None:
    assert "not meant to be good" not in page(copy)
    (copy / "stages.json").write_text(json.dumps({"recipe": "fast", "stages": []}))
    assert "not meant to be good" in page(copy)


def test_media_stop_at_the_limit_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(b"x" * 300)
    (tmp_path / "large.mp4").write_bytes(b"x" * 900)
    media = Media(limit_bytes=1000)
    assert media.uri(tmp_path / "large.mp4") is None
    assert media.uri(tmp_path / "small.png") is not None
    assert media.uri(tmp_path / "absent.png") is None
    assert media.missing == ["large.mp4 (the page is full)", "absent.png (not there)"]


def test_losses_forgive_a_last_line_cut_by_a_kill_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = ['{"kind": "train", "step": 1, "loss": 2.5}', '{"kind": "val", "step": 1, "loss": 2}', '{"kind": "skip", "step": 2, "loss": NaN}']
    rows.append('{"kind": "tr')
    path.write_text("\n".join(rows))
    assert losses(path) == ([(1.0, 2.5)], [(1.0, 2.0)])
    path.write_text("\n".join([*rows, rows[0]]))
    with pytest.raises(ValueError, match="line 4"):
        losses(path)


def test_thinning_a_curve_keeps_its_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(1, 1001)]
    few = thin(points, 100)
    assert len(few) == 100
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))
    assert thin(points[:50], 100) == points[:50]


def test_figures_that_others_rely_on_have_their_keys(demo: Path) -> None:
    figures = json.loads((demo / "dit" / "evaluation.json").read_text())
    share = {"value", "low", "high", "n"}
    following = figures["prompt_following"]
    for node in (following["all"], following["lenient"], following["attributes"]["shape"], following["kinds"]["triple"], figures["shuffled"]):
        assert share <= set(node)
    assert share <= set(following["seen"]) & set(figures["ceiling"])
    assert figures["chance"] == pytest.approx(1 / 720)
    assert {"psnr_db", "psnr_box_db", "ssim"} <= set(figures["vae"])
    for part in ("image_to_video", "image_to_video_seen"):
        assert figures[part]["motion"]["motion"]["value"] == 1
    assert "no caption, seen combinations" in page(demo)
    assert figures["vae"] == json.loads((demo / "vae" / "evaluation.json").read_text())["vae"]
    assert (demo / "dit" / "evaluation.png").stat().st_size > 10_000
