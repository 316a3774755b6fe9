"""Write the procedural world as mp4 files with captions and exact truth: python scripts/make_world.py out=FOLDER [clips=5000 ...].

Stopped at any moment, the same command goes on where it was.
"""

from pathlib import Path

from data.world.folder import World, make_world
from runtime.config import Config, ConfigError, entry


@entry("make_world")
def main(config: Config) -> None:
    out, processes = config.pop("out"), config.pop("processes")
    if type(processes) is not int or processes < 1:
        raise ConfigError(f"processes={processes!r} must be a whole number >= 1. Set processes.")
    make_world(World(**config), Path(str(out)), processes)


if __name__ == "__main__":
    main()
