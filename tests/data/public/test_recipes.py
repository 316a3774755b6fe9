"""Each recipe on a folder in its set's own layout: every file is a clip of the right side and text, or is left out with a reason."""

import csv
import json
from pathlib import Path

import pytest

from data.public.listing import MISSING
from data.public.openvid import OpenVid, source_of
from data.public.panda70m import Panda70M
from data.public.sky_timelapse import SkyTimelapse
from data.public.ucf101 import UCF101, in_words


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def write_csv(path: Path, *rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def paths(clips) -> list[str]:
    return [clip.path for clip in clips]


UCF = [f"{name}/v_{name}_g{group:02d}_c{take:02d}.avi" for name in ("ApplyEyeMakeup", "YoYo") for group in (1, 8) for take in (1, 2)]


def test_ucf101_labels_a_clip_by_its_folder(tmp_path):
    touch(tmp_path, *UCF, "loose.avi", "YoYo/readme.txt")
    found = UCF101(None, None).find(tmp_path)
    assert paths(found.train) == UCF
    assert found.classes == ("ApplyEyeMakeup", "YoYo")
    assert found.train[0].captions == {"label": ("ApplyEyeMakeup",), "caption": ("apply eye makeup",)}
    assert found.left_out == {"not in the folder of a class": ["loose.avi"]}
    groups = [clip.source for clip in found.train]
    assert groups[0] == groups[1] != groups[2], "takes of one group are cut from one video"
    assert len(set(groups)) == 4


def test_ucf101_official_lists_decide_the_split(tmp_path):
    root = tmp_path / "UCF-101"
    touch(root, *UCF)
    touch(root, "HandstandPushups/v_HandStandPushups_g09_c01.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    train = [*(f"{name} 1" for name in UCF if "_g08_" in name), "HandstandPushups/v_HandstandPushups_g09_c01.avi 38"]
    (lists / "trainlist02.txt").write_bytes("\r\n".join([*train, "YoYo/v_YoYo_g09_c01.avi 101", ""]).encode())
    (lists / "testlist02.txt").write_text("\n".join(name for name in UCF if "_g01_c01" in name))
    found = UCF101(2, None).find(root)
    assert {path.split("_")[2] for path in paths(found.train)} == {"g08", "g09"}
    assert len(found.train) == 5
    assert paths(found.val) == [name for name in UCF if "_g01_c01" in name]
    assert found.left_out[MISSING] == ["YoYo/v_YoYo_g09_c01.avi"]
    assert found.left_out["in neither list of the split"] == [name for name in UCF if "_g01_c02" in name]
    assert found.missing_share == 1 / 8
    with pytest.raises(ValueError, match=r"trainlist01\.txt.*ucf101\.lists"):
        UCF101(1, None).find(root)


def test_class_names_in_words():
    assert [in_words(name) for name in ("ApplyEyeMakeup", "TaiChi", "Rafting", "playing_guitar", "BMXRacing", "Top10")] == [
        "apply eye makeup",
        "tai chi",
        "rafting",
        "playing guitar",
        "bmx racing",
        "top10",
    ]


def test_every_folder_of_pictures_is_a_clip_of_its_side(tmp_path):
    for video, count in (("sky_train/aa/aa_1", 4), ("sky_train/aa/aa_2", 3), ("sky_train/bb/bb_1", 2), ("sky_test/cc/cc_1", 3)):
        touch(tmp_path, *(f"{video}/{video[-4:]}_frames_{number:08d}.jpg" for number in range(count)))
    (tmp_path / "sky_train/z6/z6_1").mkdir(parents=True)
    touch(tmp_path, *(f"sky_train/dd/dd_1/{number}.PNG" for number in range(3)))
    (tmp_path / "sky_train/dd/dd_1/1.PNG").write_bytes(b"")
    found = SkyTimelapse(25.0, 3).find(tmp_path)
    assert paths(found.train) == ["sky_train/aa/aa_1", "sky_train/aa/aa_2"]
    assert paths(found.val) == ["sky_test/cc/cc_1"]
    assert {clip.fps for clip in (*found.train, *found.val)} == {25.0}
    assert found.train[0].source == found.train[1].source
    assert found.left_out == {"fewer than 3 pictures": ["sky_train/bb/bb_1 (2)"], "has an empty picture": ["sky_train/dd/dd_1 (1.PNG)"]}
    assert not SkyTimelapse(25.0, 3).find(tmp_path / "sky_train").val


OPENVID = ["video", "caption", "aesthetic score", "motion score", "temporal consistency score", "camera motion", "frame", "fps", "seconds"]


def test_openvid_takes_what_is_there_and_passes_the_limits(tmp_path):
    touch(tmp_path, *(f"video/{name}.mp4" for name in ("a_1_0to99", "a_2_0to50", "b_0", "nan", "low", "quiet")), "video/x/two.mp4", "video/y/two.mp4")
    rows = [
        ["a_1_0to99.mp4", ' A "long"\ncaption, é ', 5.1, 3.2, 0.99, "static", 100, 30.0, 3.3],
        ["a_2_0to50.mp4", "", 6, 9, 0.98, "pan_left", 51, 25, 2.0],
        ["../../b_0.mp4", "whatever its folder, a name is looked up", 5, 5, 1, "", 9, 9, 9],
        ["gone.mp4", "x", 9, 9, 9, "", 9, 9, 9],
        ["nan.mp4", "x", "", 9, 9, "", 9, 9, 9],
        ["low.mp4", "x", 4.9, 9, 9, "", 9, 9, 9],
        ["quiet.mp4", "x", 5, 1, 9, "", 9, 9, 9],
        ["b_0.mp4", "again", 5, 5, 1, "", 9, 9, 9],
        ["two.mp4", "x", 9, 9, 9, "", 9, 9, 9],
    ]
    write_csv(tmp_path / "data/train/OpenVid-1M.csv", OPENVID, *rows)
    found = OpenVid(None, None, 5.0, 2.0, None, None).find(tmp_path)
    assert paths(found.train) == ["video/a_1_0to99.mp4", "video/a_2_0to50.mp4", "video/b_0.mp4", "video/x/two.mp4"]
    assert [dict(clip.captions) for clip in found.train[:2]] == [{"caption": ('A "long"\ncaption, é',)}, {}]
    assert [clip.source for clip in found.train] == ["a", "a", "b", "two"]
    assert found.left_out == {
        MISSING: ["gone.mp4"],
        "aesthetic score below 5": ["video/nan.mp4", "video/low.mp4"],
        "motion score below 2": ["video/quiet.mp4"],
        "named twice": ["video/b_0.mp4"],
        "a second file of its name": ["video/y/two.mp4"],
    }
    assert len(OpenVid(None, "video", None, None, None, None).find(tmp_path).train) == 7
    with pytest.raises(ValueError, match=r"no table of captions.*openvid\.csv"):
        OpenVid(None, None, None, None, None, None).find(tmp_path / "video")


def test_clips_of_openvid_know_their_video():
    names = {"---_iRTHryQ_13_0to241": "---_iRTHryQ", "IIvwqskxtdE_0": "IIvwqskxtdE", "goto": "goto", "3_4": "3", "12to34": "12to34", "_5": "_5"}
    assert {name: source_of(f"{name}.mp4") for name in names} == names


PANDA = ["videoID", "url", "timestamp", "caption", "matching_score", "desirable_filtering"]
TIMES = "[['0:01:20.880', '0:01:23.983'], ['0:02:31.151', '0:02:34.320']]"


def panda_row(name: str, times: str = TIMES, captions: str = "['A neuron.', \"It's [a] board.\"]", scores: str = "[0.45, 0.40]") -> list[str]:
    return [name, f"https://video.example/{name}", times, captions, scores, "['desirable', '0_low_desirable_feature_score']"]


def panda(table: Path, **keys) -> Panda70M:
    return Panda70M(**({"csv": str(table), "val_csv": None, "videos": None, "first_part": 0, "min_matching": None, "only_desirable": False} | keys))


def test_panda_takes_cut_files_by_number_and_whole_files_by_time(tmp_path):
    touch(tmp_path, "w_1-Q.mp4", "cut_0.mp4", "cut_1.mp4", "sub/dot.0.mp4", "pad_00001.mp4")
    table = tmp_path / "panda70m_training_2m.csv"
    write_csv(table, PANDA, panda_row("w_1-Q"), panda_row("cut"), panda_row("dot"), panda_row("pad"), panda_row("gone"))
    found = panda(table).find(tmp_path)
    first, second = {"caption": ("A neuron.",)}, {"caption": ("It's [a] board.",)}
    assert [(clip.path, dict(clip.captions), clip.start_s, clip.end_s) for clip in found.train] == [
        ("w_1-Q.mp4", first, pytest.approx(80.88), pytest.approx(83.983)),
        ("w_1-Q.mp4", second, pytest.approx(151.151), pytest.approx(154.32)),
        ("cut_0.mp4", first, None, None),
        ("cut_1.mp4", second, None, None),
        ("sub/dot.0.mp4", first, None, None),
        ("pad_00001.mp4", second, None, None),
    ]
    assert found.left_out == {MISSING: ["dot, part 1", "pad, part 0", "gone, part 0", "gone, part 1"]}
    assert len({clip.source for clip in found.train}) == 4


def test_panda_filters_and_refuses_rows_that_do_not_add_up(tmp_path):
    touch(tmp_path, *(f"{name}.mp4" for name in ("good", "odd", "back", "code", "one_1", "one_2")))
    table = tmp_path / "panda.csv"
    back = TIMES.replace("0:01:23.983", "0:01:20.880")
    rows = [panda_row("good"), panda_row("odd", captions="['only one']"), panda_row("back", back), panda_row("code", "[exit()]"), panda_row("one")]
    write_csv(table, PANDA, *rows)
    found = panda(table, min_matching=0.43).find(tmp_path)
    assert [(clip.path, clip.captions["caption"]) for clip in found.train] == [("good.mp4", ("A neuron.",))]
    assert found.left_out["matching_score below 0.43"] == ["good, part 1", "back, part 1"]
    assert found.left_out["ends before it begins"] == ["back, part 0"]
    odd, code = found.left_out["lists that cannot be read"]
    assert odd == "panda.csv, row 3, odd: lists of 1 and 2 entries"
    assert code.startswith("panda.csv, row 5, code: ")
    assert found.left_out["more cut files than captions (is first_part right?)"] == ["panda.csv, row 6, one"]
    assert paths(panda(table, first_part=1, only_desirable=True).find(tmp_path).train) == ["good.mp4", "one_1.mp4"]


def test_half_a_character_in_a_caption_costs_that_video_alone(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "00000/c_0.mp4")
    write_csv(tmp_path / "t.csv", PANDA, panda_row("a", captions="['ok', '\\ud83d']"), panda_row("b"))
    assert {clip.path for clip in panda(tmp_path / "t.csv").find(tmp_path).train} == {"b.mp4"}
    (tmp_path / "00000/c_0.json").write_text('{"caption": "\\ud83d", "status": "success", "url": "\\ud83d"}')
    found = panda(tmp_path, csv=None, videos="00000").find(tmp_path)
    assert (found.train, list(found.left_out)) == ((), ["without a .json that can be read"])


def test_panda_has_a_table_of_its_own_for_validation(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_csv(tmp_path / "t.csv", PANDA, panda_row("a"))
    write_csv(tmp_path / "v.csv", PANDA, panda_row("b"))
    found = panda(tmp_path / "t.csv", val_csv=str(tmp_path / "v.csv")).find(tmp_path)
    assert (set(paths(found.train)), set(paths(found.val))) == ({"a.mp4"}, {"b.mp4"})


def test_what_the_panda_downloader_wrote_needs_no_table(tmp_path):
    touch(tmp_path, *(f"00000/{key}.mp4" for key in ("0000000_00000", "0000000_00001", "0000001_00000", "0000002_00000")))
    url = "https://video.example/w"
    for key, fields in {
        "0000000_00000": {"caption": "A neuron.", "matching_score": "0.45", "url": url, "status": "success"},
        "0000000_00001": {"caption": "It's a board.", "matching_score": "0.40", "url": url, "status": "success"},
        "0000001_00000": {"caption": "b", "matching_score": "0.5", "status": "success"},
        "0000003": {"caption": "['x']", "status": "failed_to_download"},
    }.items():
        (tmp_path / f"00000/{key}.json").write_text(json.dumps(fields))
    (tmp_path / "00000_stats.json").write_text(json.dumps({"count": 4, "status_dict": {}}))
    (tmp_path / "00000/0000002_00000.json").write_text("{")
    found = panda(tmp_path, csv=None, min_matching=0.43).find(tmp_path)
    assert [(clip.path, dict(clip.captions)) for clip in found.train] == [
        ("00000/0000000_00000.mp4", {"caption": ("A neuron.",)}),
        ("00000/0000001_00000.mp4", {"caption": ("b",)}),
    ]
    assert found.left_out == {
        "matching_score below 0.43": ["00000/0000000_00001.mp4"],
        "without a .json that can be read": ["00000/0000002_00000.mp4"],
        MISSING: ["00000/0000003.mp4"],
    }
    everything = panda(tmp_path, csv=None).find(tmp_path).train
    assert [clip.source for clip in everything] == [url, url, "00000/0000001"]
