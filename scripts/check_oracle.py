"""Prints the oracle's own error: honest clips it accepts, forgeries it refuses, and chance: python scripts/check_oracle.py [clips=300 ...]."""

from data.world.sampling import LEVELS
from evaluation.calibration import TREATMENTS, Tally, exchanged, forged, honest, tally, told
from evaluation.oracle import chance
from runtime.config import Config, entry


def row(name: str, found: Tally) -> str:
    wrong = ", ".join(f"{attribute} {count}" for attribute, count in found.wrong.most_common(5))
    return f"{name:28s} {found.clips:6d} {100 * found.strict / found.clips:8.2f} % {100 * found.lenient / found.clips:8.2f} %   {wrong}"


@entry("check_oracle")
def main(config: Config) -> None:
    clips, seed, frames, size = (config[key] for key in ("clips", "seed", "frames", "size"))
    print(f"{'accepted':28s} {'clips':>6s} {'strict':>10s} {'lenient':>10s}   clips by wrong attribute")
    for difficulty in config["difficulties"]:
        for name in config["treatments"]:
            print(row(f"{difficulty}, {name}", tally(honest(difficulty, clips, seed, TREATMENTS[name], frames, size))), flush=True)
            if LEVELS[difficulty].stories:
                print(row(f"{difficulty}, {name}, shots", tally(told(difficulty, clips, seed, TREATMENTS[name], frames, size))), flush=True)
        print(row(f"{difficulty}, claims exchanged", tally(exchanged(difficulty, clips, seed))), flush=True)
    found = tally(forged(config["forgeries"], seed, frames, size))
    print(row("forgeries", found))
    print("accepted by kind: " + ", ".join(f"{kind} {yes}/{of}" for kind, (yes, of) in found.yes_by_kind.items()))
    print(f"chance at easy, all attributes: {100 * chance():.3f} %")


if __name__ == "__main__":
    main()
