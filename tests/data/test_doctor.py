import json
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from data.buckets import Bucket
from data.clips import Clips, Found
from data.doctor import Findings, Ledger, check_validation, examine
from data.doctor_report import each_clip, report
from data.files.media import Media
from data.files.probe import Probe
from data.files.series import Series
from data.formats.rows import Ignored
from data.index import Index, Row
from data.plan import EpochPlan, MicroBatches
from data.shapes import Fixed, Native, kept_share

GRID = (4, 16, 16)
MICRO = MicroBatches(None, 100, GRID)


def video(width: int = 64, height: int = 32, frames: int | list[int] = 17, fps: float = 8, **others: Any) -> Probe:
    """What a probe of a plain video says; frames may be a list of times in 1/1000 s."""
    times = frames if isinstance(frames, list) else [round(1000 * frame / fps) for frame in range(frames)]
    facts = {"container": "mov", "codec": "h264", "pixel_format": "yuv420p", "audio": False, "bytes": 1000, "mtime_ns": 1, "odd": ""}
    kind = "picture" if len(times) == 1 else "video"
    return Probe(kind, width, height, Series.of(times), Fraction(1, 1000), Series.of([0]), Series.of([0]), **(facts | others))


def clips_of(*found: Found, rows: list[dict[str, Any]] | None = None, ignored: tuple[Ignored, ...] = ()) -> Clips:
    given: list[dict[str, Any]] = [{"media": Media(f"/made/{number}.mp4")} | row for number, row in enumerate(rows or [{}] * len(found))]
    index = Index("made", "/made", tuple(Row(**row) for row in given), ignored)
    return Clips.of(index, found, Native(17, 64 * 32, GRID), 8.0)


def plan_of(clips, weights=None, batch_tokens=200):
    shown = [row.weight if bucket else 0.0 for row, bucket in zip(clips.index.rows, clips.buckets, strict=True)]
    tokens = [bucket.tokens(GRID) if bucket else 0 for bucket in clips.buckets]
    return EpochPlan(shown if weights is None else weights, tokens, None, batch_tokens, 0)


def examined(clips, frames=17):
    return examine(clips, plan_of(clips), MICRO, frames)


def ledger_of(findings: Findings) -> Ledger:
    assert findings.ledger is not None
    return findings.ledger


def mixed():
    found = [video(), video(32, 64), ("damaged", "a packet"), video(frames=6), video(frames=1), video(640, 320), ("missing", "no such file")]
    return clips_of(*found, rows=[{"weight": weight} for weight in (1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 3.0)])


def test_every_row_is_in_one_line_of_the_table_or_a_fault():
    clips = mixed()
    findings = examined(clips)
    assert {shape.bucket: shape.clips for shape in findings.shapes} == Counter(bucket for bucket in clips.buckets if bucket is not None)
    assert sum(shape.clips for shape in findings.shapes) + len(clips.faults) == len(clips)
    assert sorted([*findings.facts.rows.tolist(), *(fault.row for fault in clips.faults)]) == list(range(len(clips)))
    assert sorted(set(np.concatenate(list(findings.treated.values())))) == list(range(len(findings.facts)))


def test_the_tables_samples_are_the_plans():
    clips = mixed()
    findings, plan = examined(clips), plan_of(clips)
    rows = plan.epoch(0)[0]
    assert {shape.bucket: shape.samples for shape in findings.shapes} == Counter(clips.buckets[row] for row in rows)
    ledger = ledger_of(findings)
    assert ledger.step_samples.sum() == len(rows)
    steps = [[plan.tokens[draw.row] for draw in plan.draws(step)] for step in range(plan.steps_per_epoch)]
    assert ledger.step_tokens.tolist() == [sum(step) for step in steps]
    assert ledger.step_samples.tolist() == [len(step) for step in steps]


def test_as_many_clips_at_once_as_the_loader_hands_over():
    findings = examined(clips_of(*[video()] * 9, video(32, 64)))
    assert [(shape.clips, shape.tokens, shape.at_once) for shape in findings.shapes] == [(9, 40, 2), (1, 40, 1)]


def test_the_ledger_counts_by_weight():
    ledger = ledger_of(examined(mixed()))
    assert (ledger.once, ledger.weighted, ledger.never, ledger.wrong) == (3, 2, 0, ())
    weights = [{"weight": weight} for weight in (0.0, 1.0)]
    assert ledger_of(examined(clips_of(video(), video(), rows=weights))).never == 1


@pytest.mark.parametrize("weights", [[1, 1, 0, 1], [1, 2, 1, 1], [1, 1, 1, 1]])
def test_a_plan_that_drops_repeats_or_invents_a_row_is_a_loss(weights):
    clips = clips_of(video(), video(), video(), ("damaged", ""))
    findings = examine(clips, plan_of(clips, weights), MICRO, 17)
    assert ledger_of(findings).wrong == tuple(row for row in range(4) if weights[row] != [1, 1, 1, 0][row])
    assert findings.lost == 1 + len(ledger_of(findings).wrong)
    assert examined(clips).lost == 1


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (video(), {"untouched"}),
        (video(64, 34), {"cropped"}),
        (video(64, 40), {"cropped", "shrunk"}),
        (video(640, 320), {"shrunk"}),
        (video(8, 8, frames=1), {"enlarged"}),
        (video(frames=1), {"untouched"}),
        (video(frames=49, fps=24), {"thinned"}),
        (video(frames=9, fps=4), {"repeated"}),
        (video(frames=17, fps=8.02), {"untouched"}),
        (video(frames=[0, 100, 300, 350, 600, 700, 1100, 1200, 1600, 1700, 2000]), {"variable", "repeated", "windowed"}),
        (video(frames=9), {"shortened"}),
        (video(frames=80), {"windowed"}),
    ],
)
def test_a_clip_is_listed_under_what_is_done_to_it_and_nothing_else(found, names):
    assert {name for name, places in examined(clips_of(found)).treated.items() if len(places)} == names


def test_what_is_kept_is_the_share_that_the_shape_leaves():
    findings = examined(clips_of(video(640, 350), video(100, 300), video(64, 32)))
    for place in range(3):
        bucket = findings.shapes[findings.facts.shapes[place]].bucket
        width, height = findings.facts.widths[place], findings.facts.heights[place]
        scale = max(bucket.width / width, bucket.height / height)
        assert findings.facts.scales[place] == scale
        assert findings.facts.kept[place] == pytest.approx(bucket.width * bucket.height / (scale * width * scale * height))
        assert findings.facts.kept[place] == kept_share(height, width, bucket.height, bucket.width)


def test_stretches_of_a_file_count_their_own_time_and_the_file_once():
    rows = [{"media": Media("/made/a.mp4"), "start_s": start, "end_s": end} for start, end in ((0.0, 2.0), (2.0, 5.0), (4.5, None), (2.0, 5.0))]
    findings = examined(clips_of(*[video(frames=80)] * 4, rows=rows))
    assert findings.facts.seconds == pytest.approx([2.0, 3.0, 5.5, 3.0])
    assert findings.facts.rates == pytest.approx([8.0] * 4)
    assert len(findings.files) == 1
    assert findings.duplicates == ((1, 3),)


def test_captions_without_a_video_are_a_loss_and_other_files_are_not():
    other = Ignored("files that are neither videos nor pictures (.npy)", 7, ("a.npy",))
    assert examined(clips_of(video(), ignored=(other,))).lost == 0
    lone = Ignored("captions without a video of the same name", 2, ("a.txt", "b.txt"))
    assert examined(clips_of(video(), ignored=(other, lone))).lost == 2


def test_the_folder_format_calls_them_so(tmp_path, write_video, numbered_video):
    from data.index import read_index

    write_video(tmp_path / "a.mp4", numbered_video(5))
    (tmp_path / "b.txt").write_text("whose video is gone")
    index = read_index(tmp_path)
    assert examined(Clips.of(index, [video()], Fixed(5, 32, 32, GRID), 8.0)).lost == 1


def test_captions_are_counted_as_words_and_bytes_of_usable_clips():
    captions = [{"caption": ("zwölf Boxkämpfer",)}, {"short": ("a", ""), "long": ("a b c",)}, {"caption": (" ",)}, {}, {"caption": ("lost",)}]
    texts = examined(clips_of(*[video()] * 4, ("empty", ""), rows=[{"captions": texts} for texts in captions])).texts
    assert (texts.none, texts.kinds) == (2, {"caption": 2, "short": 1, "long": 1})
    assert texts.words.tolist() == [2, 1, 0, 3, 0]
    assert texts.sizes.tolist() == [len("zwölf Boxkämpfer".encode()), 1, 0, 5, 1]


def test_validation_says_which_clips_are_trained_on_too():
    train = clips_of(video(), ("empty", ""), video())
    assert check_validation(None, 3, 2, train).looked_at == 1
    val = clips_of(video(), video(), rows=[{}, {"media": Media("/made/other.mp4")}])
    validation = check_validation(val, 9, 2, train)
    assert (validation.looked_at, validation.rows, validation.shared, validation.faults) == (2, 9, 1, ())


def test_the_written_report_has_every_row_once_and_is_plain_json():
    clips = mixed()
    findings = examined(clips)
    rows = [json.loads(json.dumps(clip, allow_nan=False)) for clip in each_clip(findings)]
    assert [row["clip"] for row in rows] == list(range(len(clips)))
    assert [row.get("fault") for row in rows] == [None, None, "damaged", None, None, None, "missing"]
    assert [row["shape"] for row in rows if "shape" in row] == [str(bucket) for bucket in clips.buckets if bucket is not None]
    assert sum(row["shown"] for row in rows if "shown" in row) == ledger_of(findings).step_samples.sum()
    whole = json.loads(json.dumps(report(findings, check_validation(None, 7, 64, clips)), allow_nan=False))
    assert (whole["clips"], whole["usable"], whole["lost"], len(whole["faults"])) == (7, 5, 2, 2)
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())


def test_a_set_without_a_clip_has_findings_too():
    clips = clips_of(("missing", "no such file"), ("empty", "0 bytes"))
    findings = examine(clips, None, MICRO, 17)
    assert (len(findings.facts), findings.shapes, findings.ledger, findings.lost) == (0, (), None, 2)
    assert len(list(each_clip(findings))) == 2
    assert report(findings, check_validation(None, 2, 64, clips))["epoch"] is None


def test_shapes_stand_in_the_order_of_how_common_they_are():
    findings = examined(clips_of(video(32, 64), *[video()] * 3, video(48, 48)))
    assert [shape.bucket for shape in findings.shapes] == [Bucket(17, 32, 64), Bucket(17, 32, 32), Bucket(17, 64, 32)]
