"""What an evaluation says on the terminal: a short table and, last, the one number that matters."""

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.autoencoder import in_words
from evaluation.learnt_features import acquaintance
from evaluation.video_features import in_words as distances_in_words

Figures = Mapping[str, Any]


def lines(figures: Figures) -> Iterator[str]:
    """Of a VAE or of a flow run, as evaluation.json holds them."""
    vae, following = figures["vae"], figures.get("prompt_following")
    inside = "" if vae["psnr_box_db"] is None else f", {vae['psnr_box_db']:.2f} dB inside the box"
    yield f"  VAE: PSNR {vae['psnr_db']:.2f} dB{inside}, SSIM {vae['ssim']:.4f}, flicker {vae['flicker']:.2f} levels"
    yield from (f"  {words}" for words in in_words(figures))
    yield from (f"  {name} {words}" for name, words in acquaintance(figures))
    if "ceiling" in figures:
        yield _line("ceiling: reconstructions read right", figures["ceiling"])
    if following is None:
        yield f"held-out PSNR {vae['psnr_db']:.1f} dB"
        return
    for name in ("lenient", "seen"):
        yield _line(name, following[name])
    yield _line("frames that show all of the object", following["framed"])
    for name, share in [*following["attributes"].items(), *following["kinds"].items()]:
        yield _line(name, share)
    yield _line("shuffled prompts", figures["shuffled"])
    for count, share in figures.get("objects", {}).items():
        yield _line(f"prompts of {count} object{'s' * (count != '1')}", share)
    if "swapped" in figures:
        yield _line("two objects, colours exchanged", figures["swapped"])
    for part, combinations in (("image_to_video", "held out"), ("image_to_video_seen", "seen")):
        yield f"  image to video, fresh clips of combinations that were {combinations}, by caption:"
        for mode, node in figures[part].items():
            for name in ("shape_and_colour", "motion", "first_frame_kept"):
                if name in node:
                    yield _line(f"  {mode}: {name}", node[name])
    yield from sets(figures)
    share = following["all"]
    yield f"held-out prompts with everything right: {100 * share['value']:.1f} % of {share['n']} (chance {100 * figures['chance']:.2f} %)"


def sets(figures: Figures) -> Iterator[str]:
    """How far made videos lie from real ones, and whether they repeat training clips; why not, where that is not measured."""
    if "generated" in figures:
        node = figures["generated"]
        yield f"  videos of {node['n']} held-out prompts against as many real held-out clips:"
        yield from (f"    {words}" for words in ([f"not measured: {node['why']}"] if "why" in node else distances_in_words(node, node["n"])))
    if "memorisation" not in figures:
        return
    node = figures["memorisation"]
    if "why" in node:
        yield f"  whether samples repeat training clips is not measured: {node['why']}"
        return
    unreadable = f", {node['unreadable']} more could not be read" if node["unreadable"] else ""
    yield f"  nearer to one of {node['training_clips']} training clips (of {node['of']}{unreadable}) than almost all new real clips are:"
    for name, words in (("heldout", "held-out"), ("seen", "seen")):
        share = node[name]
        yield _line(f"  {words} (expected {100 * share['expected']:.1f}, to {100 * share['expected_high']:.0f})", share)


def _line(name: str, share: Mapping[str, Any]) -> str:
    return f"  {name:36} {100 * share['value']:5.1f} %   [{100 * share['low']:.1f}, {100 * share['high']:.1f}]  n={share['n']}"
