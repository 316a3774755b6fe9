"""A clip's record: in the file, beside it, after other tools had it, and what keeps its frames from being made again."""

import hashlib
import json
import runpy
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from data.files.faults import VideoError
from data.provenance import LARGEST, Fingerprint, Origin, given, make_record, payload, read_record, shared, write_clip, write_sidecar
from data.remake import asked, notes, verdict, why_not
from data.watermark import Invisible, Marked
from data.writer import write_mp4
from runtime.config import ROOT

HERE = Origin("runs/a", 7, "c" * 64, "d" * 64, "cpu", 1)
VIDEO = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)


def made(path: Path, wishes: dict, origin: Origin = HERE, others: dict | None = None) -> dict:
    """A clip with both copies of its record."""
    record = make_record(wishes, origin, others)
    video = Fingerprint(VIDEO)
    write_clip(path, video, 8, record)
    assert video.sha256 is not None
    write_sidecar(path.with_suffix(".json"), record, video.sha256, 1.23456)
    return record


def remuxed(source: Path, target: Path, comment: str | None) -> Path:
    """The same packets with another comment, as an editor leaves them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        if comment is not None:
            new.metadata["comment"] = comment
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def comment_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.metadata["comment"]


@pytest.mark.parametrize("prompt", ['a "red" circle, ${x}', "красный круг", "\udcff\n\t", "", '"frames_sha256": "' + "0" * 64 + '"'])
def test_what_was_asked_for_comes_back_from_the_file_alone_word_for_word(tmp_path: Path, prompt: str):
    wishes = {
        "prompt": prompt,
        "negative": None,
        "seed": 2**64 - 1,
        "steps": 12,
        "guidance": {"_target_": "x", "scale": 4.1},
        "shots": [[0, 1.5, prompt]],
    }
    wishes["nested"] = {"frames_sha256": "0" * 64, "seconds": 3}
    made(tmp_path / "a.mp4", wishes)
    assert asked(read_record(tmp_path / "a.mp4")) == wishes
    (tmp_path / "a.json").unlink()
    record = read_record(tmp_path / "a.mp4")
    assert asked(record) == wishes
    assert record["frames_sha256"] == hashlib.sha256(VIDEO.tobytes()).hexdigest()
    assert {"run": "runs/a", "step": 7, "config_sha256": "c" * 64, "weights_sha256": "d" * 64, "device": "cpu"}.items() <= record.items()


def test_a_storyboard_of_ten_thousand_shots_comes_back_from_the_file_alone(tmp_path: Path):
    wishes = {"prompt": "", "storyboard": [{"at_s": shot / 8, "prompt": f"shot {shot} of a long story – {'é' * 40}"} for shot in range(10_000)]}
    made(tmp_path / "a.mp4", wishes)
    (tmp_path / "a.json").unlink()
    assert asked(read_record(tmp_path / "a.mp4")) == wishes


def test_frames_are_hashed_as_they_pass_and_only_to_the_end():
    clip = Fingerprint(VIDEO)
    frames = iter(clip)
    next(frames)
    assert clip.sha256 is None
    assert len(list(frames)) == 4
    assert clip.sha256 == hashlib.sha256(VIDEO.tobytes()).hexdigest()
    next(iter(clip))
    assert clip.sha256 is None  # what an earlier pass gave is not what this one gives


def test_paths_stay_with_the_maker_and_names_travel(tmp_path: Path):
    picture = tmp_path / "private" / "first.png"
    picture.parent.mkdir()
    picture.write_bytes(b"1")
    home = replace(HERE, run=str(tmp_path / "private" / "runs" / "a"))
    made(tmp_path / "a.mp4", {"prompt": "x", "task": {"keyframes": [{"at_s": 1, "file": given(picture)}]}}, home, {"weaker": home})
    inside = comment_of(tmp_path / "a.mp4")
    assert "private" not in inside
    assert (json.loads(inside)["run"], json.loads(inside)["others"]["weaker"]["run"]) == ("a", "a")
    record = read_record(tmp_path / "a.mp4")
    assert record["run"] == home.run
    assert record["task"]["keyframes"][0]["file"] == {"path": str(picture), "sha256": hashlib.sha256(b"1").hexdigest()}
    assert record["record_sha256"] == json.loads(inside)["record_sha256"]  # so the mark in the frames says the same of both


def test_the_json_serves_alone_where_a_tool_stripped_or_cut_the_file(tmp_path: Path):
    record = made(tmp_path / "a.mp4", {"prompt": "x"})
    whole = comment_of(tmp_path / "a.mp4")
    for comment in (None, "made with love", whole[: len(whole) // 2]):
        remuxed(tmp_path / "a.mp4", tmp_path / "b.mp4", comment)
        with pytest.raises(ValueError, match=r"b\.mp4: (holds no record|holds a comment|its record is damaged)"):
            read_record(tmp_path / "b.mp4")
        (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
        assert read_record(tmp_path / "b.mp4")["record_sha256"] == record["record_sha256"]
        (tmp_path / "b.json").unlink()
    assert read_record(remuxed(tmp_path / "a.mp4", tmp_path / "b.mkv", whole))["prompt"] == "x"  # Matroska writes COMMENT
    assert read_record(tmp_path / "a.json")["seconds"] == 1.235


def test_two_copies_that_differ_are_refused_by_name(tmp_path: Path):
    made(tmp_path / "a.mp4", {"prompt": "x", "seed": 3})
    made(tmp_path / "b.mp4", {"prompt": "x", "seed": 4})
    (tmp_path / "b.json").replace(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"differ in seed, record_sha256: seed=3 in the file, 4 in a\.json; they are of two clips"):
        read_record(tmp_path / "a.mp4")
    changed = json.loads(comment_of(tmp_path / "b.mp4")) | {"seed": 5}
    (tmp_path / "b.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"differ in seed: seed=4 in the file, 5 in b\.json; b\.json was changed after it was written"):
        read_record(tmp_path / "b.mp4")


@pytest.mark.parametrize("change", [{"seed": 5}, {"weights_sha256": "e" * 64}, {"made_up": 1}])
def test_a_copy_that_was_changed_is_refused(tmp_path: Path, change: dict):
    made(tmp_path / "a.mp4", {"prompt": "x", "seed": 3})
    edited = json.loads(comment_of(tmp_path / "a.mp4")) | change
    remuxed(tmp_path / "a.mp4", tmp_path / "b.mp4", json.dumps(edited))
    with pytest.raises(ValueError, match=r"b\.mp4: its record was changed after it was written"):
        read_record(tmp_path / "b.mp4")


def test_other_files_are_refused_each_with_its_reason(tmp_path: Path):
    made(tmp_path / "a.mp4", {"prompt": "x"})
    sound = json.loads(comment_of(tmp_path / "a.mp4"))
    old = {"prompt": "a circle", "seed": 1, "sample": 0, "config_sha256": "c", "weights_sha256": "d"}
    wrong = {
        r"of an older format.*a circle": json.dumps(old),
        r"of format 2, this code reads 1": json.dumps(sound | {"format": 2}),
        r'made by "another", not by kinora': json.dumps(sound | {"made_by": "another"}),
        r"it lacks run": json.dumps({key: value for key, value in sound.items() if key != "run"}),
        r"it lacks frames_sha256": json.dumps(sound | {"frames_sha256": "0" * 64}),
        r"holds JSON, but no record": "[1, 2]",
        r"characters: none of ours": "x" * (LARGEST + 1),
        r"holds a comment, but no record": "[" * 100_000,
    }
    for reason, text in wrong.items():
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_record(tmp_path / "b.json")
    write_mp4(tmp_path / "b.mp4", VIDEO, 8)
    (tmp_path / "b.json").unlink()
    with pytest.raises(ValueError, match="holds no record of how it was made"):
        read_record(tmp_path / "b.mp4")
    with pytest.raises(VideoError, match="missing"):
        read_record(tmp_path / "c.mp4")


@pytest.mark.parametrize("wishes", [{"run": "x"}, {"seconds": 1}, {"a": float("nan")}, {"a": Path("x")}, {"a": "x" * (LARGEST + 1)}])
def test_what_a_record_cannot_keep_is_refused_before_anything_is_made(wishes: dict):
    with pytest.raises(ValueError, match="a record"):
        make_record(wishes, HERE)


def test_nothing_keeps_a_clip_from_being_made_again_where_all_is_as_it_was(tmp_path: Path):
    (tmp_path / "given.png").write_bytes(b"1")
    record = made(tmp_path / "a.mp4", {"prompt": "x", "image": given(tmp_path / "given.png")}, others={"weaker": HERE})
    moved = replace(HERE, run="elsewhere/a")  # the same weights by another name are the same networks
    assert why_not(record, moved, {"weaker": moved}) == []
    assert notes(record, HERE) == []
    assert notes(record | {"versions": record["versions"] | {"torch": "1.0"}}, HERE)[0].startswith("torch is")


def test_frames_made_again_are_the_same_bit_for_bit_or_it_is_said_what_differs(tmp_path: Path):
    made(tmp_path / "a.mp4", {"prompt": "x"})
    record = read_record(tmp_path / "a.mp4")
    same, other = (hashlib.sha256(video.tobytes()).hexdigest() for video in (VIDEO, VIDEO ^ (np.arange(VIDEO.size) == 7).reshape(VIDEO.shape)))
    assert verdict(record, same, replace(HERE, threads=2))[0]
    agreed, words = verdict(record, other, replace(HERE, threads=2))
    assert not agreed
    assert "threads is 2 here and was 1" in words
    assert "a defect" in verdict(record, other, HERE)[1]


def test_every_reason_is_named_with_what_is_here_and_what_is_wanted(tmp_path: Path):
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(name.encode())
    wishes = {"prompt": "x", "image": given(tmp_path / "one.png"), "shots": [{"clip": given(tmp_path / "two.png")}]}
    record = make_record(wishes, HERE, {"weaker": replace(HERE, weights_sha256="1" * 64)})
    (tmp_path / "one.png").write_bytes(b"another")
    (tmp_path / "two.png").unlink()
    other = replace(HERE, run="runs/b", weights_sha256="f" * 64, config_sha256="e" * 64)
    reasons = why_not(record, other, {"weaker": HERE, "judge": HERE}, [tmp_path])
    wanted = [
        "weights differ: runs/b at step 7 has ffffffffffff",
        "config differ: runs/b",
        "weaker: the weights differ",
        "judge: the clip was made without",
    ]
    wanted += [f"one.png is another one: sha256 {hashlib.sha256(b'another').hexdigest()[:12]}", "two.png (sha256 "]
    assert len(reasons) == len(wanted)
    for reason, part in zip(reasons, wanted, strict=True):
        assert part in reason
    assert "dddddddddddd (runs/a, step 7)" in reasons[0]
    assert why_not(record, HERE, None, [tmp_path])[0].startswith("weaker: these networks took part")


def test_given_files_are_found_by_name_in_other_folders_and_folders_by_their_content(tmp_path: Path):
    pictures, elsewhere = tmp_path / "mine" / "frames", tmp_path / "elsewhere"
    pictures.mkdir(parents=True)
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(bytes([number]))
    record = shared(make_record({"prompt": "x", "video": given(pictures)}, HERE))  # as a stranger gets it
    assert "is missing" in why_not(record, HERE, None, [elsewhere])[0]
    pictures.parent.rename(elsewhere)
    assert why_not(record, HERE, None, [tmp_path, elsewhere]) == []
    assert asked(record, [tmp_path, elsewhere])["video"]["path"] == str(elsewhere / "frames")
    (elsewhere / "frames" / "1.png").rename(elsewhere / "frames" / "3.png")
    assert "is another one" in why_not(record, HERE, None, [elsewhere])[0]
    with pytest.raises(ValueError, match="is not here"):
        asked(record, [elsewhere])


def test_the_command_prints_record_and_mark_and_whose_the_mark_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = make_record({"prompt": "красный круг", "watermark": {"_target_": "data.watermark.Invisible", "psnr": 41.0, "bits": 16, "key": 5}}, HERE)
    smooth = np.repeat(np.repeat(VIDEO[:, ::8, ::8], 16, axis=1), 16, axis=2)
    video = Fingerprint(Marked(smooth, Invisible(41.0, 16, 5), payload(record)))
    path = write_clip(tmp_path / "a.mp4", video, 8, record)
    main = runpy.run_path(str(ROOT / "scripts" / "provenance.py"))["main"]
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "красный круг" in printed
    assert f"{payload(record) % 2**16:04x} (this record's)" in printed
    stripped = remuxed(path, tmp_path / "b.mp4", None)
    assert main([str(stripped), "--psnr", "41", "--bits", "16", "--key", "5"]) == 0
    assert main([str(stripped)]) == 1  # other settings, another lattice
    printed = capsys.readouterr().out
    assert "no record" in printed
    assert "no mark" in printed
    assert main([str(tmp_path / "nothing.mp4")]) == 1
    assert "missing" in capsys.readouterr().out
