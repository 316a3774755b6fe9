"""From a path as an index writes it to a file under the set's root, or a refusal."""

import os
import re

# What another system, a shell or a browser would understand, and open() does not.
FOREIGN = re.compile(r"[A-Za-z]:[\\/]|\\\\|~(?:[^/\\]*[/\\]|$)|[A-Za-z][A-Za-z0-9+.-]+://")


class Paths:
    """Resolves paths under a root, one realpath a folder rather than one a file."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.inside = self.root.rstrip(os.sep) + os.sep
        self.folders: dict[str, str] = {}

    def resolve(self, path: str, where: str) -> str:
        """The absolute path, links followed. Raises: ValueError if it lies outside the root or cannot be a file's name here."""
        if "\0" in path:
            raise ValueError(f"{where}: the path {path!r} holds a NUL character, no file can have that name")
        if FOREIGN.match(path):
            raise ValueError(f"{where}: the path {path!r} is a Windows path, a home folder or an address. Write it as seen from {self.root}.")
        if "\\" in path and os.sep == "/":
            raise ValueError(f"{where}: the path {path!r} holds a backslash. Write {path.replace(chr(92), '/')!r}.")
        return self.find(path, where)

    def find(self, path: str, where: str) -> str:
        """Like `resolve`, for a name that was read from a folder: it may hold what only a person would not write."""
        cut = path.replace(os.sep, "/").rfind("/") + 1
        folder, name = path[:cut], path[cut:]
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(os.path.join(self.root, folder)).rstrip(os.sep) + os.sep
        resolved = self.folders[folder] + name
        if name in ("", ".", "..") or os.path.islink(resolved):
            resolved = os.path.realpath(os.path.join(self.root, path))
        if resolved != self.root and not resolved.startswith(self.inside):
            raise ValueError(
                f"{where}: the path {path!r} leads out of {self.root} (to {resolved}). "
                "Put the file under that folder, or set root to a folder that holds both."
            )
        return resolved
