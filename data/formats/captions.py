"""Captions as they were written, from an index's field or from a file beside the video: no text is cut, trimmed or repaired."""

import json
from collections.abc import Mapping
from typing import Any

from data.batch import Captions

MAX_CAPTION_BYTES = 2**20  # of a caption file: a longer one is no caption; also the bound on memory
NAMES = ("captions", "caption", "text", "texts", "prompt", "prompts", "description", "descriptions")  # of a field that holds captions


def captions(given: Any, where: str) -> Captions:
    """Texts by kind, from a text, several, or texts by kind. Kinds without a text are left out.

    Raises: ValueError beginning with `where` for anything else.
    """
    if isinstance(given, str):
        return {"caption": (text(given, "a caption", where),)}
    if isinstance(given, dict):
        kinds: Mapping[Any, Any] = given
    elif isinstance(given, list):
        kinds = {"caption": given}
    else:
        raise ValueError(f"{where}: captions must be a text, a list of texts, or texts by kind such as {{'short': ['...']}}, got {given!r:.80}")
    found = {}
    for kind, texts in kinds.items():
        texts = [texts] if isinstance(texts, str) else [] if texts is None else texts
        if not isinstance(kind, str) or not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
            raise ValueError(f"{where}: the captions of kind {kind!r} must be a text or a list of texts, got {texts!r:.80}")
        if texts:
            found[text(kind, "a kind of caption", where)] = tuple(text(item, "a caption", where) for item in texts)
    return found


def text(given: str, what: str, where: str) -> str:
    """The text itself; a lone surrogate is refused here, because it can be written to no file and would end a run much later."""
    if given.isascii():
        return given
    try:
        given.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: {what} holds half a character (a lone surrogate at position {error.start}), which is not Unicode") from error
    return given


def of_text_file(raw: bytes, where: str) -> Captions:
    """The whole file is one caption, lines and all; only a byte order mark and one line break at its end are no part of it."""
    content = decoded(raw, where)
    for end in ("\r\n", "\n"):
        if content.endswith(end):
            content = content.removesuffix(end)
            break
    return {"caption": (content,)}


def of_json_file(raw: bytes, column: str | None, where: str) -> Captions:
    """The captions of a JSON object beside a video; none if it has no such field.

    Args:
        column: the field's name; None takes the first of NAMES that the object has.
    """
    try:
        fields = json.loads(decoded(raw, where))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON object ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: got a {type(fields).__name__}, wanted a JSON object such as {{'caption': '...'}}")
    names = NAMES if column is None else (column,)
    given = next((fields[name] for name in names if fields.get(name) is not None), None)
    return {} if given is None else captions(given, where)


def decoded(raw: bytes, where: str) -> str:
    """Raises: ValueError if it is not UTF-8 or too long."""
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError(f"{where}: longer than {MAX_CAPTION_BYTES >> 10} KiB, which is no caption. Shorten or move that file.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
