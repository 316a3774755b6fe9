"""One page that shows what a run made and can be sent to anyone: videos, pictures and charts are inside, nothing is loaded."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from evaluation import report_sets
from evaluation.charts import Bar, Points, bars, curves, thin
from evaluation.markup import Media, absent, card, definitions, document, interval, key, listed, number, pair, percent, section, table, verdict

LIMIT_BYTES = 10_000_000
Figures = Mapping[str, Any]
KINDS = {
    "shape_colour": "new pair of shape and colour",
    "colour_motion": "new pair of colour and motion",
    "triple": "new triple of shape, colour, motion",
}
MODES = {"full": "full caption", "motion": "caption with the motion alone", "empty": "no caption"}
FAST = (
    '<p class="banner" role="note"><strong>Made with <code>--fast</code>.</strong> This run goes through every stage in a few minutes '
    "to show that each works. Its samples are not meant to be good.</p>"
)
SHARE_HEAD = ("right in everything", "share", "95&nbsp;% interval", "videos")


def page(root: Path) -> str:
    """The page of a folder that holds the run folders `vae/` and `dit/` and stages.json; what is missing is said on it.

    Raises: ValueError if there is nothing to show, or a file is damaged.
    """
    stages = read_json(root / "stages.json")
    vae, dit = (read_json(root / name / "evaluation.json") for name in ("vae", "dit"))
    if not stages and not vae and not dit:
        raise ValueError(f"root={root} holds neither stages.json nor an evaluation of vae/ or dit/. Run scripts/evaluate.py first, or set root.")
    media = Media()
    folders = {name: root / name / "evaluation" for name in ("vae", "dit")}
    samples = {name: read_json(folder / "gallery.json") for name, folder in folders.items()}
    sections = [
        _headline(dit),
        _prompts(media, folders["dit"], samples["dit"]),
        _attributes(dit),
        _image_to_video(media, folders["dit"], samples["dit"], dit),
        report_sets.from_real(dit),
        report_sets.from_training(media, folders["dit"], samples["dit"], dit),
        _reconstructions(media, folders["vae"], samples["vae"], vae),
        _losses(root),
        _stages(stages),
    ]
    sections.append(_facts(dit or vae, media))
    height, width = (dit or vae).get("protocol", {}).get("size", (1, 1))
    made_by = "Made by <code>scripts/report.py</code>."
    result = document("Kinora: from words to video", _lead(stages), sections, made_by, f"{width} / {height}")
    assert len(result.encode("utf-8")) <= LIMIT_BYTES, "the words and charts of a page take less than a megabyte"
    return result


def losses(path: Path) -> tuple[Points, Points]:
    """(step, loss) of training and of validation from a metrics.jsonl; both empty if there is none. A last line cut by a kill is left out."""
    train: list[tuple[float, float]] = []
    validation: list[tuple[float, float]] = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for place, line in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError:
            if place == len(lines) - 1:
                break
            raise ValueError(f"{path}, line {place + 1} is not JSON. Only train.py writes this file: restore it, or start the run again.") from None
        points = {"train": train, "val": validation}.get(row.get("kind"))
        if points is not None and isinstance(row.get("loss"), int | float):
            points.append((float(row["step"]), float(row["loss"])))
    return train, validation


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, empty if there is none."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}). Remove it and run the stage that wrote it again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted a JSON object. Remove it and run the stage that wrote it again.")
    return content


def _lead(stages: Figures) -> str:
    minutes = sum(stage["seconds"] for stage in stages.get("stages", [])) / 60
    time = f" in {minutes:.0f} minutes" if minutes >= 1 else ""
    words = f"An autoencoder, a text encoder and a video diffusion transformer, all trained from nothing{time} on one machine, without a download."
    return f'<p class="lead">{words}</p>{FAST if stages.get("recipe") == "fast" else ""}'


def _headline(dit: Figures) -> str:
    following = dit.get("prompt_following")
    if not following:
        return absent("Does a video do what its prompt says?", "Not measured: dit/ has no evaluation.json.")
    share, names = following["all"], listed(list(following["attributes"]))
    value, unit = percent(share["value"]).split("\u202f")
    cells = [
        f'<div class="main"><dt>of {share["n"]} prompts are followed in everything they say<br>'
        f"(95&nbsp;% interval: {interval(share)})</dt>"
        f'<dd>{value}<span class="unit">&#8239;{unit}</span></dd></div>',
        f"<div><dt>by chance, every<br>attribute drawn blindly</dt><dd>{percent(dit['chance'])}</dd></div>",
        f"<div><dt>ceiling: real clips through<br>the autoencoder alone</dt><dd>{percent(dit['ceiling']['value'])}</dd></div>",
    ]
    words = (
        f"A video counts only if {names} are all right, as a strict program reads them from the pixels alone. "
        "Every prompt asks for a combination that training never showed."
    )
    return f'<section class="first"><dl class="headline">{"".join(cells)}</dl>\n<p>{words}</p></section>'


def _prompts(media: Media, folder: Path, samples: Figures) -> str:
    title, items = "Prompts and their videos", samples.get("prompts", [])
    if not items:
        return absent(title, "The evaluation of dit/ has left no samples.")
    cards = [
        card(
            media.video(folder, item, "video", "Generated video: " + item["prompt"]),
            f"<q>{escape(item['prompt'])}</q>",
            verdict(item["correct"], item["attributes"]),
            wrong=not item["correct"],
        )
        for item in items
    ]
    drawn, wrong = samples["drawn"], sum(not item["correct"] for item in items)
    words = f"The first {number(drawn)} prompts of the evaluation, one video each, none picked by hand"
    words += f"; then {number(len(items) - drawn)} that went wrong" if len(items) > drawn else ""
    words += ". All are right." if not wrong else f". Of these {len(items)}, {number(wrong)} {'is' if wrong == 1 else 'are'} wrong and marked so."
    return section(title, f'<p>{words}</p>\n<ul class="grid">{"".join(cards)}</ul>')


def _attributes(dit: Figures) -> str:
    title, following = "Attribute by attribute", dit.get("prompt_following")
    if not following:
        return absent(title, "Not measured: dit/ has no evaluation.json.")
    chances, ceiling = dit["chance_attributes"], dit["ceiling"]
    rows = [_bar("everything", following["all"], dit["chance"], ceiling["value"])]
    for name, share in following["attributes"].items():
        rows.append(_bar(name, share, chances.get(name), ceiling["attributes"].get(name, {}).get("value")))
    legend = key(
        ("flat", "accent", "right, with its 95&nbsp;% interval"),
        ("up", "bad", "chance"),
        ("up", "good", "ceiling: real clips through the autoencoder"),
    )
    lines = [
        ("held-out combinations, strict rule", following["all"]),
        *((f"&emsp;{KINDS.get(kind, escape(kind))}", share) for kind, share in following["kinds"].items()),
        ("held-out combinations, lenient rule for shapes", following["lenient"]),
        ("combinations seen in training", following["seen"]),
        ("control: judged by other prompts", dit["shuffled"]),
        ("ceiling: real clips through the autoencoder", ceiling),
        ("real clips as they are", ceiling["mp4"]),
    ]
    cells = [(words, percent(node["value"]), interval(node), str(node["n"])) for words, node in lines]
    return section(title, bars(rows) + legend + table(SHARE_HEAD, cells, numbers=range(1, 4)))


def _bar(name: str, share: Figures, chance: float | None, ceiling: float | None) -> Bar:
    return Bar(name, share["value"], share["low"], share["high"], chance, ceiling)


def _image_to_video(media: Media, folder: Path, samples: Figures, dit: Figures) -> str:
    title, figures = "A picture that starts to move", dit.get("image_to_video")
    if not figures:
        return absent(title, "Image to video has not been measured.")
    cards = []
    for item in samples.get("image_to_video", []):
        given = media.image(folder / item["given"], "The given first frame")
        made = media.video(folder, item, "video", "Generated video: " + (item["caption"] or "no caption"))
        caption = f"<q>{escape(item['caption'])}</q>" if item["caption"] else "<em>no caption</em>"
        right = all(item["attributes"].values())
        cards.append(card(pair(given, "given", made, "made"), caption, verdict(right, item["attributes"]), wrong=not right))
    seen = {f"{MODES.get(mode, mode)}, seen combinations": node for mode, node in dit.get("image_to_video_seen", {}).items()}
    shares = {name for node in figures.values() for name in node if isinstance(node[name], Mapping)}
    names = [name for name in ("shape", "colour", "motion", "background") if name in shares]
    rows = [
        [
            MODES.get(mode, escape(mode)),
            *(percent(node[name]["value"]) if name in node else "–" for name in names),
            f"{node['first_frame_psnr_db']:.1f} dB",
            f"{node['vae_first_frame_psnr_db']:.1f} dB",
        ]
        for mode, node in {**figures, **seen}.items()
    ]
    head = [f"right in, of {next(iter(figures.values()))['n']} clips", *names, "first frame kept at", "autoencoder alone"]
    words = (
        "The first frame of a real clip is given, the rest is made. These captions leave out what the picture shows, "
        "so shape and colour can come from the picture alone."
    )
    grid = f'<ul class="grid wide">{"".join(cards)}</ul>' if cards else ""
    return section(title, f"<p>{words}</p>\n{grid}{table(head, rows, numbers=range(1, len(head)))}")


def _reconstructions(media: Media, folder: Path, samples: Figures, vae: Figures) -> str:
    title, figures = "What the autoencoder keeps", vae.get("vae")
    if not figures:
        return absent(title, "Not measured: vae/ has no evaluation.json.")
    cards = []
    for item in samples.get("reconstructions", []):
        source = media.video(folder, item, "source", "Source: " + item["caption"])
        result = media.video(folder, item, "video", "Reconstruction: " + item["caption"])
        cards.append(card(pair(source, "source", result, "reconstruction"), escape(item["caption"]), f"{item['psnr_db']:.1f} dB"))
    inside = "" if figures["psnr_box_db"] is None else f", {figures['psnr_box_db']:.1f} dB inside the object's box"
    words = (
        f"On {figures['n']} clips of combinations it never saw: PSNR {figures['psnr_db']:.1f} dB{inside}, SSIM {figures['ssim']:.3f}. "
        f"The strict program still reads everything right in {percent(vae['ceiling']['value'])} of the reconstructions."
    )
    about, sets = _cost(figures, vae.get("tokenizer")), report_sets.distance_tables(figures) + report_sets.known_to_features(vae)
    return section(title, f'<p>{words}</p>\n{about}<ul class="grid wide">{"".join(cards)}</ul>{sets}')


def _cost(figures: Figures, tokenizer: Figures | None) -> str:
    """What the latents are and cost, and whether their edges show; nothing of an older evaluation."""
    words = ""
    if tokenizer:
        stride = " x ".join(map(str, tokenizer["stride"]))
        words = (
            f"One latent position stands for {stride} frames and pixels and holds {tokenizer['latent_channels']} values: one for every "
            f"{tokenizer['values_ratio']:.0f} of the clip, at most {tokenizer['bits_per_pixel']:.2f} bits for each pixel. "
            f"Encoding and decoding take {tokenizer['encode_tflop']:.2g} and {tokenizer['decode_tflop']:.2g} TFLOP for a million pixels. "
        )
    seams = figures.get("edge_ratio", {}).get("stride")
    words += "" if seams is None else f"Across the edges of latent positions pictures change {seams:.2f} times as much as the source's do."
    return f"<p>{words}</p>\n" if words else ""


def _losses(root: Path) -> str:
    charts = []
    for name, words in (("vae", "Autoencoder"), ("dit", "Transformer")):
        train, validation = losses(root / name / "metrics.jsonl")
        if train or validation:
            told = f"{words}: loss over steps, from {(validation or train)[0][1]:.3g} to {(validation or train)[-1][1]:.3g}"
            charts.append(f"<div><h3>{words}</h3>{curves(thin(train), validation, told)}</div>")
        else:
            charts.append(f'<div><h3>{words}</h3><p class="soft">No losses in {name}/metrics.jsonl.</p></div>')
    legend = key(("flat", "accent", "training"), ("flat", "second", "validation, on fixed clips"))
    return section("Loss", f'<div class="charts">{"".join(charts)}</div>{legend}')


def _stages(record: Figures) -> str:
    title, stages = "How it was made", record.get("stages", [])
    if not stages:
        return absent(title, "There is no stages.json: the stages were started one by one, not by the demo.")
    rows = [(escape(stage["stage"]), f"{stage['seconds']:.0f} s", f"<code>{escape(stage['command'])}</code>") for stage in stages]
    total = sum(stage["seconds"] for stage in stages)
    memory = f"; largest process {record['peak_memory_bytes'] / 2**30:.1f} GiB" if "peak_memory_bytes" in record else ""
    foot = ("total", f"{total:.0f} s", f"{total / 60:.1f} minutes{memory}")
    return section(title, table(("stage", "time", "command"), rows, numbers=range(1, 2), foot=foot))


def _facts(figures: Figures, media: Media) -> str:
    title, protocol = "Machine, versions, seed", figures.get("protocol")
    if not protocol:
        return absent(title, "Not recorded, as nothing was evaluated.")
    facts = {"machine": protocol["machine"], "versions": ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())}
    names = {"seed": "seed", "steps": "solver steps", "solver": "solver", "guidance": "guidance", "weights_sha256": "sha256 of the weights"}
    facts |= {words: str(protocol[name]) for name, words in names.items() if name in protocol}
    facts |= {"not shown": "; ".join(media.missing)} if media.missing else {}
    return section(title, definitions(facts.items()))
