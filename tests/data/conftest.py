"""Small video files whose frames are told apart by their colour."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest


def numbered(frames, height=32, width=32):
    """uint8 t h w 3; frame k is grey of level 20 + 9 k, with a moving square that gives crops something to prefer."""
    video = np.empty((frames, height, width, 3), np.uint8)
    for number in range(frames):
        video[number] = 20 + 9 * number % 230
        video[number, 2:8, 2 + number % 16 : 8 + number % 16] = (220, 30, 30)
    return video


def write(path, video, fps=8, gop=12, b_frames=2, pts=None, rotation=0, container_format=None):
    """pts: display time of each frame in 1/1000 s, else frame number / fps."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        stream.options = {"crf": "12", "g": str(gop), "bf": str(b_frames), "preset": "veryfast", "x264-params": "log-level=error:threads=1"}
        stream.codec_context.time_base = Fraction(1, 1000) if pts else Fraction(1, fps)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(video):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (pts[number] if pts else number), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture(scope="session")
def write_video():
    return write


@pytest.fixture(scope="session")
def numbered_video():
    return numbered


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with 7 clips of 5 frames, 32x32, 8 fps, clip k darker than clip k + 1, and its index."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(7):
        video = np.clip(numbered(5).astype(int) // 2 + 15 * number, 0, 255).astype(np.uint8)
        write(folder / f"{number}.mp4", video)
        rows.append({"path": f"{number}.mp4", "captions": {"short": [f"clip {number}"]}})
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def broken_clips(clips, tmp_path):
    """The same folder with a clip 2 whose header and first frame are sound and whose last frame cannot be decoded."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in clips.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write(folder / "2.mp4", numbered(5), gop=1, b_frames=0)
    spoil(folder / "2.mp4")
    return folder


def spoil(path):
    """Overwrite the last frames of an mp4 file, and leave its header."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    content[start + size * 9 // 10 : start + size] = bytes(size - size * 9 // 10)
    path.write_bytes(content)


def look_at(source, shape=None, fps=8, **options):
    """The clips of a set, looked at in this process."""
    from data.catalogue import look
    from data.clips import Clips
    from data.index import Index, read_index
    from data.shapes import Fixed

    index = source if isinstance(source, Index) else read_index(source)
    return Clips.of(index, look(index, None, 0, 60, **options), shape or Fixed(5, 32, 32, (4, 16, 16)), fps)


@pytest.fixture(scope="session")
def clips_of():
    return look_at
