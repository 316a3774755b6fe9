"""Writing so that a crash leaves the old file or the new one, never half of either."""

import os
import uuid
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, on disk before it returns."""
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where the system allows it (Windows does not)."""
    if os.name == "posix":
        sync_file(folder)
