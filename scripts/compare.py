"""Runs side by side on one page: python scripts/compare.py "runs=[runs/a,runs/b]" [out=runs/compare]; flow models or VAEs, two to six of them.

Reads what train.py and scripts/evaluate.py left in the run folders, and runs nothing. Writes <out>/comparison.json and, from it, table.md and
page.html.
"""

import json
import shlex
import sys
from pathlib import Path

from ablation.compare import compared
from ablation.compare_page import page
from ablation.compare_words import markdown, sentences
from runtime.config import Config, ConfigError, entry
from runtime.files import write_text


@entry("compare")
def main(config: Config) -> None:
    folders, out = config["runs"], Path(config["out"])
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise ConfigError(f'runs={folders!r} is no list of run folders. Set "runs=[runs/a,runs/b]".')
    comparison = compared(folders, shlex.join(["python", "scripts/compare.py", *sys.argv[1:]]))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "comparison.json", json.dumps(comparison, indent=1, allow_nan=False) + "\n")
    write_text(out / "table.md", markdown(comparison))
    write_text(out / "page.html", page(comparison))
    print("\n".join([*sentences(comparison), str(out / "page.html")]))


if __name__ == "__main__":
    main()
