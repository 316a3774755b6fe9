"""Tensors that are made once and kept in shards: a shard is whole or absent, and a folder made from anything else is refused by name."""

import hashlib
import json
from collections.abc import KeysView, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

FORMAT = 2
MANIFEST = "manifest.json"
TEXT_LIMIT_BYTES = 2**25  # of a JSON file: what is larger was not written by us, and would take 20 times its size in memory


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that a store's content depends on. Two stores with equal facts hold the same numbers.

    Args:
        what: one of the things that are kept, as messages name it ("latent").
        setting: where the user names another folder ("data.latents").
        facts: text by name.
        absent: what a fact is taken to be where a side does not name it, by name; else "unknown".
        reasons: how a refusal puts a fact that differs, {0} then, {1} now: {"vae": "another VAE (weights {0:.12}, now {1:.12})"}.
    """

    what: str
    setting: str
    facts: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def holds(self, folder: Path) -> bool:
        """Whether the folder's manifest is this identity's; False if there is none.

        Raises: ValueError naming every fact that differs if it is another's.
        """
        manifest = read_manifest(folder, f"{self.what} cache", f"Delete {folder} or set {self.setting} to another folder.")
        if manifest is None:
            return False
        differ = []
        for name in dict.fromkeys([*self.facts, *manifest["facts"]]):
            then, now = (facts.get(name, self.absent.get(name, "unknown")) for facts in (manifest["facts"], self.facts))
            if then != now:
                differ.append(self.reasons.get(name, f"another {name} ({{0}}, now {{1}})").format(then, now))
        if differ:
            made = f"the {self.what}s in {folder} were made from {'; '.join(differ)}"
            raise ValueError(f"{made}. Delete that folder, or set {self.setting} to another one.")
        return True


class Store:
    """A complete store, mapped: a shard is opened in each process that reads from it. data/cache/build.py makes one.

    Attributes:
        notes: what was noted on the keys that have no tensor, in the order of the parts.
        bytes: of all shards.
    Raises: ValueError if the folder holds no complete store, or a shard's size is not the one that was written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder, "cache", f"Delete {self.folder}: it will be made anew.")
        if manifest is None:
            raise ValueError(f"{self.folder} is not a cache: it has no {MANIFEST}. Make it first.")
        self._records = [_read_record(self.folder, number) for number in range(manifest["shards"])]
        for number in range(len(self._records)):
            self._check(number, whole=False)
        self._shard_of = {key: number for number, record in enumerate(self._records) for key in record["keys"]}
        self.notes: tuple[dict[str, Any], ...] = tuple(note for record in self._records for note in record["notes"])
        self.bytes: int = sum(record["bytes"] for record in self._records)
        self._open: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, key: object) -> bool:
        return key in self._shard_of

    def keys(self) -> KeysView[str]:
        """In the order of the shards and their parts; only those that have a tensor."""
        return self._shard_of.keys()

    def get(self, key: str) -> Tensor:
        """A copy, dtype as stored; of its shard only the size was checked. Raises: KeyError; ValueError if its shard cannot be read."""
        number = self._shard_of[key]
        path = self.folder / shard_name(number)
        try:
            if number not in self._open:
                self._open[number] = safe_open(path, framework="pt")
            return self._open[number].get_tensor(key).clone()  # the mapped one is shared with the next reader of `key`
        except (OSError, SafetensorError) as error:
            raise unreadable(path, error) from error

    def load(self) -> dict[str, Tensor]:
        """Every tensor, in memory. Raises: ValueError if a shard's hash is not the one that was written."""
        tensors = {}
        for number, record in enumerate(self._records):
            self._check(number, whole=True)
            tensors.update((key, self.get(key)) for key in record["keys"])
            self._open.pop(number, None)
        return tensors

    def _check(self, number: int, whole: bool) -> None:
        path, record = self.folder / shard_name(number), self._records[number]
        size = path.stat().st_size if path.is_file() else None
        if size != record["bytes"] or (whole and sha256(path) != record["sha256"]):
            state = "is missing" if size is None else "is not what was written (its size or hash differs)"
            raise ValueError(f"{path} {state}. Delete {self.folder}: it will be made anew.")


def shard_name(number: int, ending: str = "safetensors") -> str:
    return f"shard-{number:05d}.{ending}"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path, kind: str, advice: str) -> dict[str, Any] | None:
    """{"facts": text by name, "shards": how many}, or None if there is none. Raises: ValueError if it is no such thing."""
    path = folder / MANIFEST
    try:
        fields = _read_json(path)
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']}, this version reads {FORMAT}")
        return {"facts": {name: str(text) for name, text in fields["facts"].items()}, "shards": int(fields["shards"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a {kind}'s manifest ({error}). {advice}") from error


def _read_record(folder: Path, number: int) -> dict[str, Any]:
    """What stands in the file that makes a shard exist: sha256, bytes, keys, notes."""
    path = folder / shard_name(number, "json")
    try:
        fields = _read_json(path)
        keys, notes = list(map(str, fields["keys"])), list(map(dict, fields["notes"]))
        return {"sha256": fields["sha256"], "bytes": int(fields["bytes"]), "keys": keys, "notes": notes}
    except FileNotFoundError:
        raise ValueError(f"{folder} is not complete: {path.name} is missing. Start what makes it again.") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise unreadable(path, error) from error


def _read_json(path: Path) -> Any:
    with path.open("rb") as file:
        text = file.read(TEXT_LIMIT_BYTES + 1)
    if len(text) > TEXT_LIMIT_BYTES:
        raise ValueError(f"it has more than {TEXT_LIMIT_BYTES} bytes")
    return json.loads(text)


def unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}). Delete {path.parent}: it will be made anew.")
