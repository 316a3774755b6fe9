"""SkyTimelapse: every folder of pictures is a clip, sky_train for training and sky_test for validation."""

import os
from pathlib import Path, PurePosixPath

from data.public.listing import PICTURES, Clip, LeftOut, Listing, folders_under, leave_out


class SkyTimelapse:
    """Time lapses of the sky, without labels or captions: <root>/sky_train/<video>/<video>_1/*.jpg, 640x360.

    997 videos in 2,392 clips for training, 111 in 225 for testing, of two to a few hundred frames; no video is in both.

    Args:
        fps: that the pictures are taken to have, for they carry no time. Any number gives the same frames if data.fps is the same share of it.
        min_frames: shorter clips are left out. Latte leaves out those of up to 48 frames.
    Source: Xiong et al. 2018 (MD-GAN) and the data set's readme (in zhangzjn/DTVNet); Latte's datasets/sky_datasets.py (Vchitect/Latte).
    """

    def __init__(self, fps: float, min_frames: int) -> None:
        if not 0 < fps <= 1000 or min_frames < 1:
            raise ValueError(f"fps={fps}, min_frames={min_frames}: both must be above 0, fps at most 1000. Set sky_timelapse.fps and .min_frames.")
        self.fps, self.min_frames = fps, min_frames

    def find(self, root: Path) -> Listing:
        """The clips under `root`; all of them for training if there is no folder sky_test."""
        left_out: LeftOut = {}
        splits: dict[bool, list[Clip]] = {False: [], True: []}
        for folder, names in folders_under(root, PICTURES, left_out):
            empty = [name for name in names if not os.path.getsize(root / folder / name)]
            if empty:  # some copies have them
                leave_out(left_out, "has an empty picture", f"{folder} ({empty[0]})")
            elif len(names) < self.min_frames:
                leave_out(left_out, f"fewer than {self.min_frames} pictures", f"{folder} ({len(names)})")
            else:
                path = PurePosixPath(folder)
                splits["sky_test" in path.parts].append(Clip(folder, {}, str(path.parent), fps=self.fps))
        return Listing(tuple(splits[False]), tuple(splits[True]), left_out)
