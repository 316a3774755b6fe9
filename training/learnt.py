"""Networks that learnt features, and what they know of the clips that they judge."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data.index import Row
from evaluation.learnt_features import DIGITS, LearntFeatures, run_of
from models.attention import check_kernel
from models.video_encoder import VideoEncoder
from runtime.build import build
from runtime.checkpoint import restore
from runtime.config import load_run_config
from runtime.run_folder import read_facts
from training.inference import newest_averages, part_of


def load_encoder(run: str | Path, device: torch.device | str = "cpu") -> tuple[VideoEncoder, str, tuple[int, int]]:
    """The network that a run of objective=features trained, the sha256 of its weights, and height and width of most clips that it saw.

    Raises: ValueError or RuntimeError as `load_networks`.
    """
    run = Path(run)
    config = load_run_config(run)
    objective = config.get("objective")
    if not isinstance(objective, Mapping) or "encoder" not in objective:
        recipe = "python train.py experiment=features/videos videos=<folder> run=<a new folder>"
        raise ValueError(f"{run} trained no features. Give the run folder of: {recipe}")
    saved, digest = newest_averages(run)
    encoder = build(objective["encoder"])
    restore(encoder.state_dict(), part_of(saved, "encoder"), f"{saved.folder}/ema.safetensors")
    largest = build(config["data"]["shape"]).largest
    _, height, width = read_facts(run).get("shape") or (largest.frames, largest.height, largest.width)
    check_kernel(encoder, device, key="objective.encoder.kernel")  # float32
    return encoder.to(device).eval().requires_grad_(False), digest, (height, width)


def load_features(given: str, device: torch.device | str = "cpu") -> LearntFeatures:
    """Features by "learnt:<run>", or "learnt:<run>@<first digits of the sha256 of its weights>".

    Raises: ValueError or RuntimeError as `load_encoder`, or if the weights are others.
    """
    run, digits = run_of(given)
    encoder, sha256, (height, width) = load_encoder(run, device)
    if not sha256.startswith(digits):
        raise ValueError(f"{given} wants other weights than {run} holds. For these set features=[learnt:{run}@{sha256[:DIGITS]}].")
    return LearntFeatures(Path(run).resolve().name, sha256, lambda video: encoder.features(video.to(device)), encoder.frames, height, width)


def seen_by_features(given: Sequence[str], found: Sequence[object], judged: Sequence[Row], fps: float) -> dict[str, dict[str, Any]]:
    """How learnt features know the judged real clips, by the features' names.

    Args:
        given, found: what `features` holds and what it led to, one for one; of those that no run of ours learnt nothing is said.
        judged: the clips, which may look more usual to features that were trained on them than clips of the same sort that they never saw.
        fps: that they are judged at.
    Returns: for each `clips`, how many come from files that it was trained on, or `why` that cannot be told; and a `note` if it learnt at another
        rate.
    """
    known = {}
    for each, features in zip(given, found, strict=True):
        if not isinstance(features, LearntFeatures):
            continue
        data = load_run_config(run_of(each)[0])["data"]
        try:
            trained = {row.media for row in build(data).training_index().rows if row.weight > 0}
            known[features.name] = {"clips": sum(row.media in trained for row in judged)}
        except (ValueError, RuntimeError, OSError) as error:  # the training set has moved, or what reads it is not installed
            known[features.name] = {"why": str(error)}
        if data["fps"] != fps:
            known[features.name]["note"] = f"learnt at {data['fps']} fps what they judge at {fps}: motion is another to them"
    return known
