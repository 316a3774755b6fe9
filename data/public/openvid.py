"""OpenVid-1M and its like: a csv of file names, captions and scores, and the videos in any folders below."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from data.public.listing import MISSING, VIDEOS, Clip, LeftOut, Listing, files_under, leave_out
from data.public.tables import number_of, read_table

_PART = re.compile(r"_\d+(?:_\d+to\d+)?$")
PLACES = ("data/train/OpenVid-1M.csv", "OpenVid-1M.csv", "data/train/OpenVidHD.csv", "OpenVidHD.csv")


class OpenVid:
    """A million clips of at least 512 px with long captions; columns video, caption, aesthetic score, motion score,
    temporal consistency score, camera motion, frame, fps and seconds.

    Args:
        csv: the csv file; None looks for OpenVid-1M.csv and OpenVidHD.csv in the set's folder and its data/train.
        videos: folder of the videos inside the set's folder; None is all of it.
        min_aesthetic, min_motion, min_consistency, min_seconds: clips with less are left out; None for no limit.
    Source: Nan et al. 2024 (OpenVid-1M); the data set card of nkp37/OpenVid-1M and download_scripts of NJU-PCALab/OpenVid-1M.
    """

    def __init__(
        self,
        csv: str | None,
        videos: str | None,
        min_aesthetic: float | None,
        min_motion: float | None,
        min_consistency: float | None,
        min_seconds: float | None,
    ) -> None:
        self.csv, self.videos = csv, videos
        limits = {"aesthetic score": min_aesthetic, "motion score": min_motion, "temporal consistency score": min_consistency, "seconds": min_seconds}
        self.limits = {column: limit for column, limit in limits.items() if limit is not None}

    def find(self, root: Path) -> Listing:
        """The clips that the csv names, are there, and pass the limits."""
        left_out: LeftOut = {}
        files = by_name(root, self.videos, left_out)
        clips: dict[str, Clip] = {}
        for number, row in read_table(self._table(root), ("video", "caption", *self.limits)):
            name = PurePosixPath(row["video"].strip()).name
            path = files.get(name)
            if path is None:
                leave_out(left_out, MISSING, name or f"row {number}, without a name")
            elif fault := self._fault(row) or ("named twice" if path in clips else None):
                leave_out(left_out, fault, path)
            else:
                caption = row["caption"].strip()
                clips[path] = Clip(path, {"caption": (caption,)} if caption else {}, source_of(name))
        return Listing(tuple(clips.values()), (), left_out)

    def _fault(self, row: Mapping[str, str]) -> str | None:
        # "not >=", so that a cell that is no number does not pass
        return next((f"{column} below {limit:g}" for column, limit in self.limits.items() if not number_of(row[column]) >= limit), None)

    def _table(self, root: Path) -> Path:
        places = [Path(self.csv)] if self.csv is not None else [root / place for place in PLACES]
        for place in places:
            if place.is_file():
                return place
        raise ValueError(f"no table of captions: looked for {', '.join(map(str, places))}. Set openvid.csv to the csv file.")


def by_name(root: Path, inside: str | None, left_out: LeftOut) -> dict[str, str]:
    """Every video's path seen from `root`, by file name. What a table says is only looked up here, so it cannot point anywhere else."""
    found: dict[str, str] = {}
    for path in files_under(root, VIDEOS, left_out, inside):
        if found.setdefault(PurePosixPath(path).name, path) != path:
            leave_out(left_out, "a second file of its name", path)
    return found


def source_of(name: str) -> str:
    """The video that a clip was cut from: abc_13_0to241.mp4 and abc_14_0to99.mp4 are of abc."""
    stem = PurePosixPath(name).stem
    return _PART.sub("", stem) or stem
