"""What sampling costs beside its networks, counted by hooks so that what is measured is what runs, and how a page tells of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from bench.tables import table

Found = Mapping[str, Any]
BARS = {"overhead": 0.03, "seeds": 1e-5, "memory": 1.10}


class Watch:
    """Counts the calls of a network and the seconds within them, as a context; the time of its own hooks counts as outside.

    Args:
        clock: seconds.
    """

    def __init__(self, network: nn.Module, clock: Callable[[], float]) -> None:
        self._network, self._clock = network, clock
        self._hooks: list[RemovableHandle] = []
        self.calls, self.seconds, self._begun = 0, 0.0, 0.0

    def __enter__(self) -> "Watch":
        self.calls, self.seconds = 0, 0.0
        self._hooks = [self._network.register_forward_pre_hook(self._begin), self._network.register_forward_hook(self._end)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *_: object) -> None:
        self._begun = self._clock()

    def _end(self, *_: object) -> None:
        self.seconds += self._clock() - self._begun
        self.calls += 1


def spent(call: Callable[[], object], network: nn.Module, text: nn.Module, clock: Callable[[], float]) -> dict[str, float]:
    """One sampling call in parts: seconds in the network, in the text encoder and in neither, and how often each was asked."""
    with Watch(network, clock) as inside, Watch(text, clock) as said:
        begun = clock()
        call()
        whole = clock() - begun
    outside = whole - inside.seconds - said.seconds
    return {"network_s": inside.seconds, "text_s": said.seconds, "outside_s": outside, "network_calls": inside.calls, "text_calls": said.calls}


def overhead(rounds: Sequence[Mapping[str, float]]) -> float:
    """Seconds outside the networks over those inside the network, the median over calls."""
    return median(each["outside_s"] / each["network_s"] for each in rounds)


def worst_overhead(found: Found) -> float:
    """Of all batch sizes."""
    return max(overhead(rounds) for rounds in found["calls"].values())


def growth(found: Found) -> float:
    """Peak memory of the longest video over that of the shortest, medians."""
    peaks = {int(times): median(each) for times, each in found["peak_mb"].items()}
    return peaks[max(peaks)] / peaks[min(peaks)]


def worst_difference(found: Found) -> float:
    """Of latents made in any other way; infinite if the noise was not the same bit for bit."""
    return max(found["differences"].values()) if found["noise_same"] else float("inf")


def section(raw: Found) -> str:
    """Everything that was measured, as a part of a page; what was not is said to be open."""
    parts = [verdicts(raw)]
    for name, (title, content) in CONTENTS.items():
        if name in raw:
            parts.append(f"**{title}**\n\n{content(raw[name]['figures'])}\n\n{conditions(raw[name])}")
    return "\n\n".join(parts)


def verdicts(raw: Found) -> str:
    """What was promised beside what was measured."""
    rows = []
    for name, (said, value) in PROMISED.items():
        bar = BARS[name]
        if name not in raw:
            rows.append([said, f"<= {bar:g}", "not measured", "open"])
            continue
        measured = value(raw[name]["figures"])
        rows.append([said, f"<= {bar:g}", f"{measured:.2g}" if bar < 1e-2 else f"{measured:.3f}", "**pass**" if measured <= bar else "**fail**"])
    return table(["figure", "bar", "measured", ""], rows)


def conditions(part: Found) -> str:
    return f"`{part['command']}`; {part['machine']}; load {part['load']}."


def overhead_table(found: Found) -> str:
    rows = []
    for batch, rounds in found["calls"].items():
        each = {name: median(one[name] for one in rounds) for name in rounds[0]}
        ratios = [one["outside_s"] / one["network_s"] for one in rounds]
        per_step = 1e3 / found["steps"]
        rows.append(
            [
                batch,
                f"{per_step * each['network_s']:.2f}",
                f"{per_step * each['outside_s']:.3f}",
                f"**{100 * median(ratios):.2f} %** ({100 * min(ratios):.2f} to {100 * max(ratios):.2f})",
                f"{1e3 * each['text_s']:.1f}",
                f"{each['network_calls'] / found['steps']:g}",
                f"{each['text_calls']:g}",
            ]
        )
    heads = [
        "clips",
        "network, ms a step",
        "outside, ms a step",
        "outside / network (calls)",
        "text, ms a call",
        "network calls a step",
        "text calls",
    ]
    return table(heads, rows)


def seeds_table(found: Found) -> str:
    rows = [[name, f"{difference:.2g}"] for name, difference in found["differences"].items()]
    noise = "Their noise was the same bit for bit." if found["noise_same"] else "Their noise was **not** the same."
    return f"{table(['made', 'largest difference to each clip made alone'], rows)}\n\n{noise}"


def memory_table(found: Found) -> str:
    rows = []
    for times, peaks in found["peak_mb"].items():
        rows.append([f"{times} x", str(found["frames"][times]), f"{median(peaks):.0f} ({min(peaks):.0f} to {max(peaks):.0f})"])
    return table(["trained length", "frames", "peak MB of sample.py, with text, VAE and mp4"], rows)


def steps_table(found: Found) -> str:
    cells = found["cells"]
    counts = sorted({cell["evaluations"] for cell in cells.values()})
    solvers = dict.fromkeys(cell["name"] for cell in cells.values())
    by = {(cell["name"], cell["evaluations"]): cell for cell in cells.values()}
    rows = [[name, *(_share(by[name, count]) if (name, count) in by else "–" for count in counts)] for name in solvers]
    return table(["solver", *map(str, counts)], rows)


def guidance_table(found: Found) -> str:
    rows = [[cell["name"], _share(cell), f"{cell['graded']:.3f}", f"{cell['asked_network']:g}"] for cell in found["cells"].values()]
    return table(["guidance", "prompts followed, %", "attributes right", "network calls"], rows)


def chart(found: Found, path: Path) -> None:
    """Prompts followed over evaluations of the network, one line a solver, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(cell["name"] for cell in found["cells"].values()))
    for place, name in enumerate(names):
        own = sorted((cell for cell in found["cells"].values() if cell["name"] == name), key=lambda cell: cell["evaluations"])
        x = [cell["evaluations"] * 1.02 ** (place - len(names) / 2) for cell in own]  # side by side: intervals would hide each other
        spread = [[100 * (cell["value"] - cell["low"]) for cell in own], [100 * (cell["high"] - cell["value"]) for cell in own]]
        axes.errorbar(x, [100 * cell["value"] for cell in own], yerr=spread, marker="o", capsize=2, linewidth=1, label=name)
    ticks = sorted({cell["evaluations"] for cell in found["cells"].values()})
    axes.set(xscale="log", xlabel="evaluations of the network", ylabel="prompts followed, % (95 % intervals)", ylim=(0, 100))
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _share(cell: Found) -> str:
    return f"{100 * cell['value']:.0f} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


PROMISED: Mapping[str, tuple[str, Callable[[Found], float]]] = {
    "overhead": ("sampling outside the network / inside, worst batch size", worst_overhead),
    "memory": ("peak memory of the longest rollout / the shortest", growth),
    "seeds": ("same seed, other batch, chunk or processes: largest difference of latents", worst_difference),
}
CONTENTS: Mapping[str, tuple[str, Callable[[Found], str]]] = {
    "overhead": ("Beside the network.", overhead_table),
    "seeds": ("The same seed.", seeds_table),
    "memory": ("Memory of a rollout.", memory_table),
    "steps": ("Prompts followed, %, by evaluations of the network, with 95 % intervals.", steps_table),
    "guidance": ("Guidance.", guidance_table),
}
