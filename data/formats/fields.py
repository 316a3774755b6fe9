"""From the named fields of one row, whatever file they stood in, to a Row: which field plays which role, and whether its value can be meant."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from data.files.media import Media
from data.formats import captions
from data.formats.paths import Paths
from data.formats.rows import Box, Row, TimedCaptions

Columns = Mapping[str, str]  # role -> the column that plays it
# The names that public sets use for each role. The first ones are ours: written exactly so they go before all others.
ROLES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "video", "video_path", "videopath", "video_file", "video_name", "file", "file_path", "filepath", "file_name", "filename"),
        *("media", "media_path", "clip", "clip_path", "image", "image_path", "image_file", "img", "img_path", "relpath", "relative_path"),
    ),
    "caption": captions.NAMES,
    "start_s": ("start_s", "start", "start_time", "start_sec", "start_seconds", "begin"),
    "end_s": ("end_s", "end", "end_time", "end_sec", "end_seconds", "stop"),
    "weight": ("weight", "sample_weight"),
    "fps": ("fps",),
    "boxes": ("boxes",),
    "shots": ("shots",),
}
OWN = {role: names[:2] if role == "caption" else names[:1] for role, names in ROLES.items()}
PLAIN = {role: frozenset(names) for role, names in ROLES.items()}
CLOCK = re.compile(r"([0-9]{1,9}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]+)?)")  # HH:MM:SS.mmm


class Fields:
    """Makes rows of fields.

    Args:
        columns: which column plays a role, for sets whose names are not known or not clear; roles it leaves out are found by name.
    """

    def __init__(self, paths: Paths, columns: Columns | None) -> None:
        self.paths = paths
        self.columns = dict(columns or {})
        unknown = [role for role in self.columns if role not in ROLES]
        if unknown:
            raise ValueError(f"columns names a role {unknown[0]!r} that does not exist. Roles: {', '.join(ROLES)}.")
        self._known: dict[tuple[str, ...], dict[str, str]] = {}

    def of_object(self, fields: Any, where: str) -> Row:
        """A row from a JSON object. Null is the same as no field; other fields are left alone."""
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: got a {type(fields).__name__}, wanted a JSON object such as {{'path': 'clips/0.mp4', 'caption': '...'}}")
        if None in fields.values():
            fields = {name: value for name, value in fields.items() if value is not None}
        names = tuple(fields)
        roles = self._known.get(names)
        if roles is None:
            roles = self.roles(names, where, whole=False)
            if len(self._known) < 1000:  # objects of one set have few shapes; one that has not must not fill the memory
                self._known[names] = roles
        return self.row({role: fields[name] for role, name in roles.items()}, roles, where)

    def roles(self, names: Sequence[str], where: str, whole: bool = True) -> dict[str, str]:
        """Which of a row's names plays each role: those in `columns`, else our own name, else a public one, else one that differs by case.

        Args:
            whole: whether a column that is asked for must be there; else it may be missing from single rows.
        Raises: ValueError if no column has the path, or two columns claim one role.
        """
        chosen = {}
        for role in ROLES:
            asked = self.columns.get(role)
            candidates = [name for name in names if name == asked] if asked is not None else _candidates(role, names)
            if len(candidates) > 1:
                raise ValueError(
                    f"{where}: the columns {' and '.join(map(repr, candidates))} could both be the {role}. "
                    f"Keep one, or choose: columns={{{role}: {candidates[0]}}}."
                )
            if candidates:
                chosen[role] = candidates[0]
            elif role == "path" or (asked is not None and whole):
                raise ValueError(f"{where}: {_missing(role, asked, names)}")
        return chosen

    def of_cells(self, values: dict[str, Any], names: Mapping[str, str], where: str) -> Row:
        """A row of a table, whose cells may hold as JSON what a cell cannot: boxes, shots, and captions in a column of that very name."""
        for role in ("caption", "boxes", "shots"):
            cell = values.get(role)
            if isinstance(cell, str) and (role != "caption" or (names[role] == "captions" and cell[:1] in "[{")):
                try:
                    values[role] = json.loads(cell) if cell else None
                except (ValueError, RecursionError) as error:
                    hint = "" if role != "caption" else " A column of plain texts is called 'caption'."
                    raise ValueError(f"{where}: the column {names[role]!r} must hold JSON, got {cell!r:.80} ({error}).{hint}") from error
        return self.row(values, names, where)

    def row(self, values: Mapping[str, Any], names: Mapping[str, str], where: str) -> Row:
        """A row from values by role; a role whose value is None counts as absent.

        Args:
            names: what the columns of these roles are called, for messages.
        """
        path = values.get("path")
        if not isinstance(path, str) or not path:
            raise ValueError(f"{where}: {names['path']!r} must be a text naming the video, got {path!r:.80}")
        media = Media(self.paths.resolve(captions.text(path, names["path"], where), where))
        given = values.get("caption")
        found = {} if given is None else captions.captions(given, where)
        if len(values) <= 2 and values.keys() <= {"path", "caption"}:
            return Row(media, found)
        start_s = _time(values, names, "start_s", where) or 0.0
        end_s = _time(values, names, "end_s", where)
        if end_s is not None and end_s <= start_s:
            raise ValueError(f"{where}: the end, {end_s:g} s, must come after the start, {start_s:g} s")
        weight = _number(values, names, "weight", where)
        fps = _number(values, names, "fps", where)
        if fps == 0:
            raise ValueError(f"{where}: {names['fps']!r} must be a number above 0, got 0")
        boxes, shots = _boxes(values.get("boxes"), where), _shots(values.get("shots"), where)
        return Row(media, found, start_s, end_s, 1.0 if weight is None else weight, fps, boxes, shots)


def _candidates(role: str, names: Sequence[str]) -> list[str]:
    """The names that fit a role best: one, none, or several that fit equally well."""
    for fitting in (
        [name for name in names if name in OWN[role]],
        [name for name in names if name in PLAIN[role]],
        [name for name in names if _plain(name) in PLAIN[role]],
    ):
        if fitting:
            return fitting
    return []


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()


def _missing(role: str, asked: str | None, names: Sequence[str]) -> str:
    have = ", ".join(repr(name) for name in names[:40]) or "none"
    have += ", ..." if len(names) > 40 else ""
    wanted = list(ROLES[role]) if asked is None else [asked]
    by_plain = {_plain(name): name for name in names}
    near = next((by_plain[match] for name in wanted for match in get_close_matches(_plain(name), by_plain, 1, 0.7)), None)
    what = f"no column has the {role}" if asked is None else f"there is no column {asked!r}, which columns.{role} asks for"
    hint = f" The nearest is {near!r}." if near is not None else ""
    return f"{what}. Columns: {have}.{hint} Rename one to {role!r}, or choose: columns={{{role}: {near or 'its name'}}}."


def _time(values: Mapping[str, Any], names: Mapping[str, str], role: str, where: str) -> float | None:
    """Seconds, from a number of them or from HH:MM:SS.mmm."""
    value = values.get(role)
    if isinstance(value, str) and (clock := CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups()
        return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
    return _number(values, names, role, where, "a number of seconds from 0 or HH:MM:SS.mmm")


def _number(values: Mapping[str, Any], names: Mapping[str, str], role: str, where: str, wanted: str = "a number from 0") -> float | None:
    """A finite number from 0, or None where there is none."""
    value = values.get(role)
    if value is None or value == "":
        return None
    number = math.nan
    if isinstance(value, int | float | Decimal | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not (math.isfinite(number) and number >= 0) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{where}: {names[role]!r} must be {wanted}, got {value!r:.80}")
    return number + 0.0  # -0.0 is 0.0


def _shots(given: Any, where: str) -> tuple[TimedCaptions, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ValueError(f"{where}: 'shots' must be a list, got {given!r:.80}")
    shots = tuple(_shot(item, f"{where}, shot {number}") for number, item in enumerate(given, 1))
    for number, (one, other) in enumerate(pairwise(shots), 2):
        if other.start_s < one.end_s:
            raise ValueError(
                f"{where}, shot {number}: starts at {other.start_s:g} s, before the end of the one before it, {one.end_s:g} s. "
                "Shots must come in order and not overlap."
            )
    return shots


def _shot(item: Any, where: str) -> TimedCaptions:
    wanted = "{'start_s': 0, 'end_s': 1.5, 'caption': 'a text, several, or texts by kind'}"
    if not isinstance(item, dict):
        raise ValueError(f"{where}: got {item!r:.80}, wanted {wanted}")
    start_s, end_s = (_time(item, {role: role}, role, where) for role in ("start_s", "end_s"))
    said = [item[name] for name in OWN["caption"] if item.get(name) is not None]
    if start_s is None or end_s is None or len(said) != 1:
        raise ValueError(f"{where}: got {item!r:.80}, wanted {wanted}")
    if end_s <= start_s:
        raise ValueError(f"{where}: the end, {end_s:g} s, must come after the start, {start_s:g} s")
    found = captions.captions(said[0], where)
    if not found:
        raise ValueError(f"{where}: has no caption, got {said[0]!r:.80}. Leave out a shot of which nothing is said.")
    return TimedCaptions(start_s, end_s, found)


def _boxes(given: Any, where: str) -> tuple[Box, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ValueError(f"{where}: 'boxes' must be a list, got {given!r:.80}")
    return tuple(_box(item, f"{where}, box {number}") for number, item in enumerate(given, 1))


def _box(item: Any, where: str) -> Box:
    wanted = "{'label': 'dog', 'at_s': 0.5, 'box': [left, top, right, bottom]} with the box in shares of the frame, 0 to 1"
    if not isinstance(item, dict):
        raise ValueError(f"{where}: got {item!r:.80}, wanted {wanted}")
    label, sides = item.get("label"), item.get("box")
    at_s = _number(item, {"at_s": "at_s"}, "at_s", where)
    if not isinstance(label, str) or at_s is None or not isinstance(sides, list) or len(sides) != 4:
        raise ValueError(f"{where}: got {item!r:.80}, wanted {wanted}")
    left, top, right, bottom = (_number({"side": side}, {"side": "box"}, "side", where) for side in sides)
    if left is None or top is None or right is None or bottom is None or not (left < right <= 1 and top < bottom <= 1):
        raise ValueError(f"{where}: the box {sides!r:.80} must have left < right and top < bottom, all from 0 to 1")
    return Box(captions.text(label, "a label", where), at_s, left, top, right, bottom)
