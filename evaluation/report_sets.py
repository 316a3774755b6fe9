"""Parts of the page about clips as sets: how far they lie from real ones, and whether they repeat training clips."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from evaluation.learnt_features import acquaintance
from evaluation.markup import Media, absent, card, interval, number, pair, percent, section, table

Figures = Mapping[str, Any]


def from_real(dit: Figures) -> str:
    """Of generated videos, both distances."""
    title, figures = "How far its videos lie from real ones", dit.get("generated")
    if not figures:
        return absent(title, "Not measured: dit/ has no evaluation.json, or one of before this was measured.")
    if "why" in figures:
        return absent(title, f"Not measured: {escape(figures['why'])}")
    words = (
        f"{figures['n']} videos of held-out prompts against as many real clips of the same sort, as two sets. "
        "The features are Kinora's own unless a name says otherwise: figures compare with those of other such pages, not with published ones."
    )
    return section(title, f"<p>{words}</p>\n{distance_tables(figures)}{known_to_features(dit)}")


def from_training(media: Media, folder: Path, samples: Figures, dit: Figures) -> str:
    """How near samples come to training clips, and the nearest pairs."""
    title, figures = "New videos, or training clips again?", dit.get("memorisation")
    if not figures:
        return absent(title, "Not measured: dit/ has no evaluation.json, or it looked at no training clips.")
    if "why" in figures:
        return absent(title, f"Not measured: {escape(figures['why'])}")
    rows = [
        (
            words,
            *(percent(node["value"]), interval(node), str(node["n"])),
            percent(node["expected"]),
            f"{percent(node['expected_low']).split(chr(0x202F))[0]} to {percent(node['expected_high'])}",
            *(f"{node[key]:.1f}" for key in ("median", "median_real")),
        )
        for name, words in (("heldout", "prompts of held-out combinations"), ("seen", "prompts of combinations seen in training"))
        for node in [figures[name]]
    ]
    head = ("nearer to a training clip than new real clips are", "share", "95&nbsp;% interval", "videos", "expected of new ones", "by chance")
    head += ("median distance", "of real clips")
    unreadable = f" {figures['unreadable']} more were to be looked at and could not be read." if figures["unreadable"] else ""
    about = (
        f"For each sample the nearest of {figures['training_clips']} training clips, of {figures['of']}, by coarse layout and motion over the "
        f"whole clip without its tint.{unreadable} Counted is what lies nearer than almost all real clips that training did not "
        "show; the share that is expected of new clips, and what chance makes of it, stand beside. "
        "More than chance would be a sign of clips learnt by heart, or of samples less varied than real clips: look at the pairs."
    )
    cards = [
        card(
            pair(
                media.video(folder, item, "sample", "Generated video: " + item["prompt"]),
                "sample",
                media.video(folder, item, "training", "The nearest training clip"),
                "training clip",
            ),
            f"<q>{escape(item['prompt'])}</q>",
            f"{item['distance']:.1f} levels apart; counted below {item['threshold']:.1f}",
        )
        for item in samples.get("nearest", [])
    ]
    grid = f'<p>The {number(len(cards))} nearest pairs of all:</p>\n<ul class="grid wide">{"".join(cards)}</ul>' if cards else ""
    return section(title, f"<p>{about}</p>\n{table(head, rows, numbers=range(1, 8))}{grid}")


def distance_tables(figures: Figures) -> str:
    """How far clips as a whole are from real ones, by both distances, and what that leaves out; nothing of an older evaluation."""
    found, kernel = figures.get("frechet", {}), figures.get("kernel", {})
    rows = [
        (
            *(f"<code>{escape(name)}</code>", str(node["samples"])),
            *(*(_short(node[key]) for key in ("value", "bias")), f"{_short(node['low'])} to {_short(node['high'])}", half),
        )
        for name, node in found.items()
        if node["value"] is not None
        for half in ["–" if node["halves"] is None else _short(node["halves"])]
    ]
    head = ("Frechet distance to the real clips", "samples", "measured", "of it by chance", "95&nbsp;% interval without that")
    head += ("two halves of the real clips",)
    parts = [table(head, rows, numbers=range(1, 6))] if rows else []
    rows = [
        (
            *(f"<code>{escape(name)}</code>", str(node["samples"]), _short(node["value"]), f"{_short(node['low'])} to {_short(node['high'])}"),
            "–" if node["halves"] is None else _short(node["halves"]),
        )
        for name, node in kernel.items()
        if node["value"] is not None
    ]
    head = ("kernel distance, 0 on average where nothing is unlike", "samples", "measured", "95&nbsp;% interval", "two halves of the real clips")
    parts += [table(head, rows, numbers=range(1, 5))] if rows else []
    left_out = max((node.get("left_out", 0) for node in found.values()), default=0)
    words = [f"{left_out} of {figures['n']} clips are left out of these distances: they are smaller than a window."] if left_out else []
    missing = [(name, node["why"]) for nodes in (found, kernel) for name, node in nodes.items() if node["value"] is None]
    words += [f"None over <code>{escape(name)}</code>: {escape(why)}" for name, why in dict.fromkeys(missing)]  # both may lack it for one cause
    return "".join(parts) + (f'<p class="soft">{" ".join(words)}</p>' if words else "")


def known_to_features(evaluation: Figures) -> str:
    """Which learnt features were trained on real clips that are judged here, or at another rate, and of which that cannot be told."""
    return "".join(f'<p class="soft"><code>{escape(name)}</code> {escape(words)}</p>' for name, words in acquaintance(evaluation))


def _short(value: float) -> str:
    """Three digits, never as a power of ten above one."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
