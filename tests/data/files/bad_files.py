"""Bad and odd media files with what must become of each: python tests/data/files/bad_files.py FOLDER writes them.

Frames are flat grey, frame k of level 20 + 9 k, so that whoever reads them knows which frame he holds. No ffmpeg binary is needed.
"""

import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

os.environ.setdefault("SVT_LOG", "0")
WIDTH, HEIGHT = 64, 48
X264 = {"crf": "12", "g": "6", "bf": "2", "preset": "veryfast", "x264-params": "log-level=none:threads=1"}


@dataclass(frozen=True)
class Case:
    """A file and what must become of it.

    Args:
        kinds: the typed reasons that are right; empty if it must be read.
        frames: the numbers that its frames show.
        times_ms: of its frames, from the first; empty if they are not looked at.
        start, size: of a member of a tar file.
        fps: of a folder of pictures.
        shape: (height, width) as shown.
    """

    name: str
    kinds: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    times_ms: tuple[int, ...] = ()
    start: int = 0
    size: int | None = None
    fps: float | None = None
    shape: tuple[int, int] = (HEIGHT, WIDTH)


def level(number: int) -> int:
    return 20 + 9 * number


def grey(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), level(number), np.uint8)


def write(
    path: Path,
    numbers: Iterable[int],
    codec: str = "libx264",
    *,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    muxer: str | None = None,
    muxing: dict[str, str] | None = None,
    sound_s: float = 0,
    setup: Callable[[Any], None] | None = None,
) -> Path:
    """A video at 10 fps, or at the given times."""
    with av.open(str(path), "w", format=muxer, options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=10, options=(X264 if codec == "libx264" else {}) | (options or {}))
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000) if times_ms else Fraction(1, 10)
        stream.codec_context.thread_count = 1
        if setup:
            setup(stream)
        sound = container.add_stream("aac", rate=8000, layout="mono") if sound_s else None
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(grey(number, *size), format="rgb24")
            frame.pts, frame.time_base = times_ms[place] if times_ms else place, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_sound(container, sound, sound_s)
    return path


def _write_sound(container: Any, stream: Any, seconds: float) -> None:
    for place in range(int(seconds * 8000) // 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, place * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def copy(source: Path, target: Path, change: Callable[[Any], bool] = lambda packet: True, muxing: dict[str, str] | None = None) -> Path:
    """The packets for which `change` returns true, in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=muxing or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None and change(packet):
                packet.stream = stream
                new.mux(packet)
    return target


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", len(content) + 8) + kind + content


def patched(source: Path, target: Path, change: Callable[[bytearray], Any]) -> Path:
    content = bytearray(source.read_bytes())
    changed = change(content)
    target.write_bytes(content if changed is None else changed)
    return target


def _plain(folder: Path) -> list[Case]:
    """Files that must be read, in the containers and codecs that people have."""
    whole = tuple(range(9))
    regular = tuple(100 * number for number in whole)
    write(folder / "plain.mp4", whole)
    written = {
        "plain.mkv": {},
        "plain.mov": {"sound_s": 0.9},
        "plain.flv": {},
        "plain.ts": {},
        "av1.mp4": {"codec": "libsvtav1", "options": {"svtav1-params": "preset=12"}},
        "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=4", "crf": "8"}},
        "ten_bit.mp4": {"codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=none:pools=1", "crf": "8"}},
        "vp8.webm": {"codec": "libvpx", "options": {"b": "400k"}},
        "vp9_alpha.webm": {"codec": "libvpx-vp9", "pixels": "yuva420p", "options": {"b": "400k", "cpu-used": "8"}},
        "alpha.mov": {"codec": "qtrle", "pixels": "argb"},
        "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
        "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "b": "2M"}, "muxer": "mpeg"},
        "xvid.avi": {"codec": "mpeg4", "options": {"b": "2M", "g": "4"}},
        "b_frames_without_times.avi": {},
        "xvid_b_frames.avi": {"codec": "mpeg4", "options": {"b": "2M", "bf": "2"}},
        "long_sound.mkv": {"sound_s": 3},
        "fragmented.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
        "animated.gif": {"codec": "gif", "pixels": "gray"},
        "animated.png": {"codec": "apng", "pixels": "rgb24", "muxer": "apng"},
        "open_groups.mp4": {"options": {"x264-params": "log-level=none:threads=1:open-gop=1:keyint=4:min-keyint=1:bframes=2"}},
    }
    cases = [Case("plain.mp4", frames=whole, times_ms=regular)]
    for name, how in written.items():
        write(folder / name, whole, **{"codec": "libx264", **how})
        cases.append(Case(name, frames=whole, times_ms=regular))
    for name in ("mp4_named.avi", "mp4_named.txt", "no_suffix", "a b,c;d%03d|e's:f.mp4", "line\nbreak.mp4", "ünï 東京.mp4", "-y.mp4"):
        (folder / name).write_bytes((folder / "plain.mp4").read_bytes())
        cases.append(Case(name, frames=whole, times_ms=regular))
    (folder / "concat:plain.mp4|plain.mp4").write_bytes((folder / "plain.mp4").read_bytes())
    return [*cases, Case("concat:plain.mp4|plain.mp4", frames=whole)]


def _odd(folder: Path) -> list[Case]:
    """Files that must be read although they are unlike most."""
    plain, whole = folder / "plain.mp4", tuple(range(9))
    uneven = (0, 100, 200, 300, 700, 1100, 1200, 1900, 2000)
    write(folder / "uneven.mp4", whole, times_ms=uneven)
    write(folder / "single.mp4", [4])
    write(folder / "odd_size.mp4", whole, pixels="yuv444p", size=(37, 51))
    write(folder / "8k.mp4", [3], size=(4320, 8192), options={"preset": "ultrafast"})
    for degrees in (90, 180, 270):
        write(folder / f"turned_{degrees}.mp4", whole, setup=lambda stream, degrees=degrees: stream.set_display_rotation(degrees))
    write(folder / "mirrored.mp4", whole, setup=lambda stream: stream.set_display_rotation(0, hflip=True))
    step = 1 / (10 * av_time_base(plain))
    copy(plain, folder / "edit_list.mp4", lambda packet: _moved(packet, round(-3 * step)))
    write(folder / "before_zero.mkv", whole, "mpeg4", options={"b": "2M"}, times_ms=range(-300, 600, 100), muxing={"avoid_negative_ts": "disabled"})
    copy(folder / "plain.mkv", folder / "no_first_key.mkv", _from_second())
    copy(folder / "open_groups.mp4", folder / "open_start.mkv", _from_key(1))
    copy(plain, folder / "bare.h264")
    patched(folder / "xvid.avi", folder / "claims_more.avi", lambda content: struct.pack_into("<I", content, content.find(b"avih") + 8 + 16, 5000))
    header = (plain.read_bytes(), b"\0" * 512)
    picture = folder / "in_tar.png"
    Image.fromarray(grey(7)).save(picture)
    (folder / "shard.tar").write_bytes(header[1] + header[0] + header[1] + picture.read_bytes() + header[1])
    (folder / "end,9,,:a b%0\nü.tar").write_bytes((folder / "shard.tar").read_bytes())
    return [
        Case("uneven.mp4", frames=whole, times_ms=uneven),
        Case("single.mp4", frames=(4,)),
        Case("odd_size.mp4", frames=whole, shape=(37, 51)),
        Case("8k.mp4", frames=(3,), shape=(4320, 8192)),
        Case("turned_90.mp4", frames=whole, shape=(WIDTH, HEIGHT)),
        Case("turned_180.mp4", frames=whole),
        Case("turned_270.mp4", frames=whole, shape=(WIDTH, HEIGHT)),
        Case("mirrored.mp4", frames=whole),
        Case("edit_list.mp4", frames=whole[3:], times_ms=(0, 100, 200, 300, 400, 500)),
        Case("before_zero.mkv", frames=whole, times_ms=tuple(range(0, 900, 100))),
        Case("no_first_key.mkv", frames=(6, 7, 8)),
        Case("open_start.mkv", frames=OPEN_START),
        Case("bare.h264", frames=whole),
        Case("claims_more.avi", frames=whole),
        Case("shard.tar", frames=whole, start=512, size=len(header[0])),
        Case("end,9,,:a b%0\nü.tar", frames=whole, start=512, size=len(header[0])),
        Case("shard.tar", frames=(7,), start=1024 + len(header[0]), size=picture.stat().st_size),
    ]


OPEN_START = (4, 5, 6, 7, 8)


def av_time_base(path: Path) -> float:
    with av.open(str(path)) as container:
        return float(container.streams.video[0].time_base)


def _moved(packet: Any, ticks: int) -> bool:
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
    return True


def _from_second() -> Callable[[Any], bool]:
    places = iter(range(1000))
    return lambda packet: next(places) > 0


def _from_key(number: int) -> Callable[[Any], bool]:
    seen = [-1]

    def change(packet: Any) -> bool:
        seen[0] += packet.is_keyframe
        return seen[0] >= number

    return change


def _pictures(folder: Path) -> list[Case]:
    Image.fromarray(grey(2)).save(folder / "picture.png")
    Image.fromarray(grey(2)).save(folder / "picture_named.mp4", format="JPEG", quality=95)
    Image.fromarray(grey(2)).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey(2)).save(folder / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(grey(2)).save(folder / "animated.webp", save_all=True, append_images=[Image.fromarray(grey(5))], lossless=True)
    whole = (folder / "picture.png").read_bytes()

    def sized(width: int, height: int) -> bytes:
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]

    (folder / "bomb.png").write_bytes(sized(60000, 60000))
    (folder / "no_size.png").write_bytes(sized(0, 0))
    (folder / "cut.png").write_bytes(whole[:70])
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:1500])
    (folder / "photo.heic").write_bytes(box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(200))
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for name, numbers in {"frames": (2, 10, 1), "mixed": (1, 2)}.items():
        (folder / name).mkdir()
        for number in numbers:
            size = (HEIGHT, WIDTH) if (name, number) != ("mixed", 2) else (20, 20)
            Image.fromarray(grey(number, *size)).save(folder / name / f"frame_{number}.png")
    (folder / "frames" / "caption.txt").write_text("not a picture")
    return [
        Case("picture.png", frames=(2,)),
        Case("picture_named.mp4", frames=(2,)),
        Case("cmyk.jpg", frames=(2,)),
        Case("turned.jpg", frames=(2,), shape=(WIDTH, HEIGHT)),
        Case("animated.webp", frames=(2,)),
        Case("frames", frames=(1, 2, 10), times_ms=(0, 200, 400), fps=5),
        Case("mixed", ("damaged",), fps=5),
        Case("bomb.png", ("too_large",)),
        Case("no_size.png", ("unreadable", "damaged")),
        Case("cut.png", ("damaged",)),
        Case("cut.jpg", ("damaged",)),
        Case("photo.heic", ("unreadable",)),
        Case("script.png", ("unreadable",)),
    ]


def _bad(folder: Path) -> list[Case]:
    """Files that give no clip."""
    plain = (folder / "plain.mp4").read_bytes()
    write(folder / "header_first.mp4", range(9), muxing={"movflags": "faststart"})
    first = (folder / "header_first.mp4").read_bytes()
    content = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"this is not a video\n" * 200, "unreadable"),
        "noise.mp4": (np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8).tobytes(), "unreadable"),
        "html.mp4": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9, "unreadable"),
        "zeros.mp4": (bytes(5000), "unreadable"),
        "program.mp4": (b"\x7fELF\x02\x01\x01" + bytes(800), "unreadable"),
        "pickle.mp4": (b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94." * 9, "unreadable"),
        "wav.mp4": (b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\x08\0\0" + bytes(2048), "no_video"),
        "cut_header_behind.mp4": (plain[: len(plain) * 6 // 10], "damaged"),
        "cut_header_in_front.mp4": (first[: len(first) * 8 // 10], "damaged"),
        "header_alone.mp4": (plain[:40], "damaged"),
        "playlist.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nplain.ts\n#EXT-X-ENDLIST\n", "unreadable"),
        "playlist.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nplain.ts\n#EXT-X-ENDLIST\n", "unreadable"),
        "concat.mp4": (b"ffconcat version 1.0\nfile plain.mp4\n", "unreadable"),
        "session.sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n", "unreadable"),
        "compressed_header.mov": (box(b"moov", box(b"cmov", box(b"dcom", b"zlib"))), "unreadable"),
    }
    cases = []
    for name, (data, kind) in content.items():
        (folder / name).write_bytes(data)
        cases.append(Case(name, (kind,)))
    with zipfile.ZipFile(folder / "zip.mp4", "w") as archive:
        archive.writestr("plain.mp4", plain)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    with av.open(str(folder / "sound.m4a"), "w", format="mp4") as container:
        _write_sound(container, container.add_stream("aac", rate=8000, layout="mono"), 0.5)
    _write_cover(folder / "cover.m4a")
    _write_resized(folder / "resized.h264")
    textured = write_textured(folder / "textured.mp4", 24, 64, 96)
    with_wrong_bytes(textured, 40)
    with_zeros(textured)
    return [
        *cases,
        Case("zip.mp4", ("unreadable",)),
        Case("folder.mp4", ("not_a_file",)),
        Case("pipe.mp4", ("not_a_file",)),
        Case("loop.mp4", ("missing",)),
        Case("dangling.mp4", ("missing",)),
        Case("absent.mp4", ("missing",)),
        Case("nul\0.mp4", ("missing",)),
        Case("sound.m4a", ("no_video",)),
        Case("cover.m4a", ("no_video",)),
        Case("resized.h264", ("damaged",)),
        Case("wrong_bytes_textured.mp4", ("damaged",)),
        Case("zeros_textured.mp4", ("damaged",)),
        Case("shard.tar", ("damaged",), start=512, size=10**6),
        Case("shard.tar", ("empty",), start=512, size=0),
        Case("shard.tar", ("unreadable",), start=0, size=512),
    ]


def _write_cover(path: Path) -> None:
    """Sound with a picture attached, as music shops sell it."""
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(1), format="rgb24")))
        container.mux(cover.encode(None))
        _write_sound(container, sound, 0.5)


def _write_resized(path: Path) -> None:
    """A stream whose frames become larger half way."""
    parts = []
    for size in ((HEIGHT, WIDTH), (HEIGHT + 16, WIDTH + 16)):
        write(path.with_suffix(".part"), range(4), muxer="h264", size=size)
        parts.append(path.with_suffix(".part").read_bytes())
    path.with_suffix(".part").unlink()
    path.write_bytes(b"".join(parts))


def _bombs(folder: Path) -> list[Case]:
    """Small files that claim a lot."""
    first, fragmented = folder / "header_first.mp4", folder / "fragmented.mp4"

    def at(content: bytearray, kind: bytes, offset: int, *numbers: int) -> None:
        struct.pack_into(f">{len(numbers)}I", content, content.find(kind) + 4 + offset, *numbers)

    def edits(content: bytearray) -> bytes:
        """As many cuts as frames are claimed: FFmpeg would list every frame for each of them."""
        count = 200_000
        return bytes(content) + box(
            b"moov",
            box(
                b"trak",
                box(b"edts", box(b"elst", bytes(4), struct.pack(">I", count), struct.pack(">IIHH", 9, 0, 1, 0) * count)),
                box(b"mdia", box(b"minf", box(b"stbl", box(b"stsz", bytes(4), struct.pack(">II", 0, 1000), bytes(4000))))),
            ),
        )

    nested = b""
    for _ in range(5000):
        nested = box(b"udta", nested)
    patched(first, folder / "bad_stsz.mp4", lambda content: at(content, b"stsz", 8, 0x7FFFFFFF))
    patched(first, folder / "billion.mp4", lambda content: (at(content, b"stsz", 4, 1, 10**9), at(content, b"stts", 8, 10**9), None)[-1])
    patched(fragmented, folder / "billion_in_fragment.mp4", lambda content: at(content, b"trun", 0, 0, 10**9))
    patched(first, folder / "edits.mp4", edits)
    (folder / "nested.mp4").write_bytes(box(b"ftyp", b"isom\0\0\0\0") + box(b"moov", nested))
    (folder / "many_boxes.mp4").write_bytes(box(b"ftyp", b"isom\0\0\0\0") + box(b"free") * 200_000)
    return [
        Case("bad_stsz.mp4", ("damaged",)),
        Case("billion.mp4", ("damaged", "too_large")),
        Case("billion_in_fragment.mp4", ("too_large",)),
        Case("edits.mp4", ("too_large",)),
        Case("nested.mp4", ("unreadable",)),
        Case("many_boxes.mp4", ("too_large",)),
    ]


def write_textured(path: Path, frames: int, height: int, width: int) -> Path:
    """A panned texture, whose packets are large enough to be damaged in the middle; the header is in front."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 200, (height // 4 + 40, width // 4 + 40, 3)), np.ones((8, 8, 1)))
    texture = (coarse + rng.integers(0, 50, coarse.shape)).astype(np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options=X264 | {"crf": "21", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            picture = np.ascontiguousarray(texture[number % 90 :, 2 * (number % 90) :][:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def with_wrong_bytes(clean: Path, count: int) -> Path:
    """Random bytes of the pictures are others; the header is sound."""
    rng = np.random.default_rng(1)

    def change(content: bytearray) -> None:
        for place in rng.integers(content.find(b"mdat") + 1000, len(content), count):
            content[place] = rng.integers(256)

    return patched(clean, clean.with_name(f"wrong_bytes_{clean.name}"), change)


def with_zeros(clean: Path) -> Path:
    """A fifth of the pictures' bytes is zero, as after a broken download."""

    def change(content: bytearray) -> None:
        first = content.find(b"mdat") + 4
        size = (len(content) - first) // 5
        start = first + (len(content) - first) // 2
        content[start : start + size] = bytes(size)

    return patched(clean, clean.with_name(f"zeros_{clean.name}"), change)


def make(folder: Path) -> list[Case]:
    """Write all files into an empty folder."""
    return [case for part in (_plain, _odd, _pictures, _bad, _bombs) for case in part(folder)]


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True)
    for case in make(where):
        print(json.dumps(asdict(case), ensure_ascii=False))
