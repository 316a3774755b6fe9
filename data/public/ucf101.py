"""UCF-101, and any folder with a folder of videos per class: the folder's name is the label."""

import re
from pathlib import Path, PurePosixPath

from data.public.listing import MISSING, VIDEOS, Clip, LeftOut, Listing, files_under, leave_out

_TAKE = re.compile(r"_c\d+$")  # v_ApplyEyeMakeup_g08_c01 is the first take of group 8, all of them cut from one video
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\s]+")


class UCF101:
    """101 classes of human action, 13,320 clips of 320x240 at 25 fps, 1 to 71 s long: <root>/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi.

    Latte, as most work on generation, trains on all of them; the official lists are of action recognition.

    Args:
        split: 1, 2 or 3 for the official trainlist0N.txt and testlist0N.txt; None for no split.
        lists: folder of these lists; None looks in the set's folder, its ucfTrainTestlist, and the ucfTrainTestlist beside it.
    Source: Soomro et al. 2012 (CRCV-TR-12-01); Latte's datasets/ucf101_datasets.py (Vchitect/Latte).
    """

    def __init__(self, split: int | None, lists: str | None) -> None:
        if split not in (None, 1, 2, 3):
            raise ValueError(f"split={split} is no list of UCF-101: there are 1, 2 and 3, and null for none. Set ucf101.split.")
        self.split, self.lists = split, lists

    def find(self, root: Path) -> Listing:
        """The clips under `root`, each with its class as captions of kind "label" and, in words, of kind "caption"."""
        left_out: LeftOut = {}
        clips = []
        for path in files_under(root, VIDEOS, left_out):
            label = PurePosixPath(path).parent.name
            if label:
                source = f"{label}/{_TAKE.sub('', PurePosixPath(path).stem)}"
                clips.append(Clip(path, {"label": (label,), "caption": (in_words(label),)}, source))
            else:
                leave_out(left_out, "not in the folder of a class", path)
        classes = tuple(sorted({label for clip in clips for label in clip.captions["label"]}))
        if self.split is None:
            return Listing(tuple(clips), (), left_out, classes)
        # by file name alone, and without its case: the lists say HandStandPushups where some copies' folders say HandstandPushups
        by_name = {PurePosixPath(clip.path).name.casefold(): clip for clip in clips}
        train, val = (self._listed(root, f"{kind}list0{self.split}.txt", by_name, left_out) for kind in ("train", "test"))
        for clip in by_name.values():
            leave_out(left_out, "in neither list of the split", clip.path)
        return Listing(train, val, left_out, classes)

    def _listed(self, root: Path, name: str, by_name: dict[str, Clip], left_out: LeftOut) -> tuple[Clip, ...]:
        """Takes the clips of a list out of `by_name`."""
        clips = []
        for line in self._list(root, name).read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                entry = line.split()[0].replace("\\", "/")  # a test list has no class number after the path
                if clip := by_name.pop(PurePosixPath(entry).name.casefold(), None):
                    clips.append(clip)
                else:
                    leave_out(left_out, MISSING, entry)
        return tuple(clips)

    def _list(self, root: Path, name: str) -> Path:
        folders = [Path(self.lists)] if self.lists is not None else [root, root / "ucfTrainTestlist", root.parent / "ucfTrainTestlist"]
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        looked = ", ".join(map(str, folders))
        raise ValueError(f"split={self.split} needs {name}, which is not in {looked}. Set ucf101.lists to its folder, or ucf101.split=null.")


def in_words(label: str) -> str:
    """ApplyEyeMakeup -> apply eye makeup."""
    return " ".join(_WORDS.sub(" ", label).split()).lower()
