"""Write the page that shows what was made: python scripts/report.py root=runs/demo; needs no network and nothing beside it when opened."""

import json
from pathlib import Path

from evaluation.report import page
from runtime.config import Config, ConfigError, entry
from runtime.files import write_text


@entry("report")
def main(config: Config) -> None:
    root = Path(config["root"])
    if not root.is_dir():
        raise ConfigError(f"root={root} is no folder. Give the one that holds the run folders vae/ and dit/.")
    out = Path(config["out"]) if config["out"] is not None else root / "report.html"
    write_text(out, page(root))
    figures = root / "dit" / "evaluation.json"
    if figures.exists():
        share = json.loads(figures.read_text(encoding="utf-8"))["prompt_following"]["all"]
        print(f"held-out prompts with everything right: {100 * share['value']:.1f} % of {share['n']}")
    print(out)


if __name__ == "__main__":
    main()
