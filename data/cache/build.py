"""Filling a store part by part: what a kill at any moment leaves is whole parts and whole shards, and the next start goes on after them."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data.cache.store import FORMAT, MANIFEST, TEXT_LIMIT_BYTES, Identity, Store, sha256, shard_name, unreadable
from runtime.files import sync_file, sync_folder, write_text

try:
    import fcntl
except ImportError:  # not POSIX: only ranks are kept apart, not two builds of one folder
    fcntl = None

POLL_S = 0.5
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

Part = tuple[str, ...]
Made = tuple[Mapping[str, Tensor], Sequence[Mapping[str, Any]]]
Make = Callable[[Iterator[Part]], Iterable[Made]]


def build(
    folder: str | Path,
    identity: Identity,
    shards: Sequence[Sequence[Part]],
    make: Make,
    rank: int = 0,
    ranks: int = 1,
    patience_s: float = 1800.0,
) -> Store:
    """Make what is missing of a store and return it; a complete one is only looked at.

    A killed build goes on after its last part, and ends with the same files as an undisturbed one; so do several ranks, and several
    processes that were started alike. While a shard is written the folder takes one shard more; the parts are mapped, so memory does not.

    Args:
        shards: the keys of each part of each shard, every key once. It must follow from the set alone: then no bit depends on who made a
            part, or when.
        make: gives, for each part that it takes, in that order, tensors for keys of it and notes (JSON) on the keys that get none. It may
            take parts ahead, in the thread that it was called in. It is not called if nothing is missing, and called again if another
            process gave up shards.
        rank, ranks: this process makes shards rank, rank + ranks, ... and then waits for the others.
        patience_s: how long nothing may happen in the folder while waiting.
    Raises: ValueError naming what differs if the folder holds anything else. OSError naming the path if it cannot be written.
        RuntimeError naming the shards if nobody makes them.
    """
    folder = Path(folder)
    identity = _with_division(identity, shards)
    if not identity.holds(folder) or _missing(folder, len(shards)):
        with _writing(folder, identity):
            folder.mkdir(parents=True, exist_ok=True)
            lock_file = open(folder / "build.lock", "ab")  # noqa: SIM115, closed below
        with lock_file:
            locks = _Locks(lock_file)
            with _writing(folder / MANIFEST, identity):
                _claim(folder, identity, len(shards), locks)
            _Builder(folder, identity, shards, locks).run(make, range(rank, len(shards), ranks), patience_s)
    for litter in folder.glob("shard-*.parts"):  # of the killed: every shard is there, so nobody alive needs them
        shutil.rmtree(litter, ignore_errors=True)
    for litter in folder.glob(f"{MANIFEST}.tmp-*"):
        with contextlib.suppress(OSError):
            litter.unlink()
    return Store(folder)


class _Locks:
    """Byte 0 of a file is the manifest's, byte n + 1 shard n's.

    POSIX record locks: they are gone with the process that took them, and its workers do not inherit them.
    """

    def __init__(self, file: Any) -> None:
        self.file = file

    def take(self, byte: int, wait: bool = False) -> bool:
        """False if another process has it. On a system without locks it is everybody's."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, *NO_LOCKS):
                raise
            return error.errno in NO_LOCKS
        return True

    def free(self, byte: int) -> None:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, byte)


@dataclass(slots=True)
class _Builder:
    """Fills a claimed folder. A shard's parts lie in shard-00003.parts/, named by number and hash, until the shard is there."""

    folder: Path
    identity: Identity
    shards: Sequence[Sequence[Part]]
    locks: _Locks
    lacking: dict[int, int] = field(default_factory=dict)  # how many parts a shard that we hold the lock of lacks
    taken: deque[tuple[int, int]] = field(default_factory=deque)  # (shard, part) that `make` took and has not given

    def run(self, make: Make, mine: range, patience_s: float) -> None:
        seen, since = frozenset(), time.monotonic()
        while True:
            self._make_missing(make, mine)
            missing = _missing(self.folder, len(self.shards))
            if not missing:
                return
            files = frozenset((at, name) for at, _, names in os.walk(self.folder) for name in names)
            if files != seen:
                seen, since = files, time.monotonic()
            elif time.monotonic() - since > patience_s:
                names = ", ".join(map(shard_name, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
                raise RuntimeError(
                    f"{self.folder} still lacks {names}, and whoever makes them has written nothing for {patience_s / 60:g} minutes. "
                    "See what the other ranks or processes say, stop them, and start the same command again: what is there is kept."
                )
            time.sleep(POLL_S)

    def _make_missing(self, make: Make, mine: range) -> None:
        """Make every shard of ours that is neither there nor in another process's hands."""
        parts = self._lacking_parts([number for number in _missing(self.folder, len(self.shards)) if number in mine])
        for first in parts:
            for tensors, notes in make(chain([first], parts)):
                number, part = self.taken.popleft()
                self._write_part(number, part, tensors, notes)
                self.lacking[number] -= 1
                if not self.lacking[number]:
                    self._publish(number)
            assert not self.taken, f"make took {len(self.taken)} parts for which it gave nothing"

    def _lacking_parts(self, numbers: Sequence[int]) -> Iterator[Part]:
        """A shard is locked when its first part is asked for, never waited for: two processes would wait for each other."""
        for number in numbers:
            if not self.locks.take(number + 1):
                continue
            if (self.folder / shard_name(number, "json")).exists():  # since we looked
                self.locks.free(number + 1)
                continue
            kept = self._kept_parts(number)
            lacking = [part for part in range(len(self.shards[number])) if part not in kept]
            self.lacking[number] = len(lacking)
            if not lacking:
                self._publish(number)
            for part in lacking:
                self.taken.append((number, part))
                yield self.shards[number][part]

    def _kept_parts(self, number: int) -> dict[int, Path]:
        """The whole parts of a shard by their numbers, in order; damaged ones are deleted."""
        kept = {}
        for path in sorted(self._parts(number).glob("*.part")):
            name = re.fullmatch(r"(\d+)-([0-9a-f]{64})\.part", path.name)
            if name and sha256(path) == name[2]:
                kept[int(name[1])] = path
            else:
                path.unlink()
        return kept

    def _write_part(self, number: int, part: int, tensors: Mapping[str, Tensor], notes: Sequence[Mapping[str, Any]]) -> None:
        assert set(tensors) <= set(self.shards[number][part]), "make gave tensors for keys that are not of the part"
        temporary = self._parts(number) / "writing"
        owned = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}  # no views of a batch
        with _writing(temporary, self.identity, owned):
            temporary.parent.mkdir(exist_ok=True)
            save_file(owned, temporary, {"notes": json.dumps(list(notes))})  # one entry: several are written in any order
            os.replace(temporary, temporary.with_name(f"{part:08d}-{sha256(temporary)}.part"))  # not synced: the hash tells

    def _publish(self, number: int) -> None:
        """Merge the parts of a shard: first the shard's file, then the record that makes it exist."""
        folder, path, tensors, notes = self._parts(number), self.folder / shard_name(number), {}, []
        kept = self._kept_parts(number)
        if len(kept) != len(self.shards[number]):
            raise OSError(f"{folder}: parts were changed after they had been written. See what else writes there, and start again.")
        for part in kept.values():
            try:
                with safe_open(part, framework="pt") as file:
                    tensors.update((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118, it is no dict
                    notes += json.loads(file.metadata()["notes"])
            except (SafetensorError, TypeError, KeyError, ValueError, RecursionError) as error:  # whole by its name, yet not ours
                raise unreadable(part, error) from error
        keys = [key for part in self.shards[number] for key in part if key in tensors]
        with _writing(path, self.identity, tensors):
            folder.mkdir(exist_ok=True)
            merged, record = folder / "merged", folder / "record"  # in there, as a killed save_file leaves a random name beside
            save_file(tensors, merged)
            merged.chmod(folder.stat().st_mode & 0o666)  # save_file gives 600, whatever the umask says
            sync_file(merged)
            text = json.dumps({"sha256": sha256(merged), "bytes": merged.stat().st_size, "keys": keys, "notes": notes})
            assert len(text) < TEXT_LIMIT_BYTES, "a shard of so many keys could not be read back"
            record.write_text(text, encoding="utf-8")
            sync_file(record)
            os.replace(merged, path)
            sync_folder(self.folder)
            os.replace(record, self.folder / shard_name(number, "json"))
            sync_folder(self.folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.locks.free(number + 1)

    def _parts(self, number: int) -> Path:
        return self.folder / shard_name(number, "parts")


def _with_division(identity: Identity, shards: Sequence[Sequence[Part]]) -> Identity:
    """The identity together with the division into shards and parts."""
    keys = [key for shard in shards for part in shard for key in part]
    assert len(set(keys)) == len(keys), "a key stands in one part only"
    digest = hashlib.sha256(json.dumps([[list(part) for part in shard] for shard in shards]).encode()).hexdigest()
    facts = {**identity.facts, "shards": f"{len(shards)} shards of {len(keys)} keys, {digest:.32}"}
    return replace(identity, facts=facts, reasons={"shards": "another division ({0}; now {1})", **identity.reasons})


def _claim(folder: Path, identity: Identity, shards: int, locks: _Locks) -> None:
    """Write the manifest if nobody has. Raises: ValueError if the folder is another's."""
    locks.take(0, wait=True)
    orphans = any(folder.glob("shard-*"))  # looked for first: whoever is at work has written the manifest before
    if not identity.holds(folder):
        if orphans:
            raise ValueError(
                f"{folder} holds shards but no {MANIFEST}, so nobody can tell what they were made from. "
                f"Delete that folder, or set {identity.setting} to another one."
            )
        content = {"format": FORMAT, "facts": dict(identity.facts), "shards": shards}
        write_text(folder / MANIFEST, json.dumps(content, indent=1, sort_keys=True))
    locks.free(0)


def _missing(folder: Path, shards: int) -> list[int]:
    """The shards that do not exist yet."""
    names = set(os.listdir(folder))
    return [number for number in range(shards) if shard_name(number, "json") not in names]


@contextlib.contextmanager
def _writing(path: Path, identity: Identity, tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Raises: OSError that says what to do, for the system's own and for safetensors'."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        needs = f"; it takes {sum(tensor.nbytes for tensor in tensors.values()) / 2**20:.1f} MiB" if tensors else ""
        raise OSError(
            f"{path} cannot be written ({error}){needs}. Make room or permit it, and start the same command again: what is there is kept. "
            f"Or set {identity.setting} to another folder."
        ) from error
