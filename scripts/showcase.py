"""One page with every way of making video, its clips and its measured figures: python scripts/showcase.py run=runs/sora/dit

Shows what scripts/evaluate.py suite=tasks has measured; needs no network and nothing beside it when opened.
"""

from pathlib import Path

from evaluation.tasks.page import page
from runtime.config import Config, ConfigError, entry
from runtime.files import write_text


@entry("showcase")
def main(config: Config) -> None:
    run = Path(config["run"])
    out = Path(config["out"]) if config["out"] is not None else run / "showcase.html"
    html = page(run)
    try:
        write_text(out, html)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written: {error}. Set out=<a file in a folder that can>.") from None
    print(out)


if __name__ == "__main__":
    main()
