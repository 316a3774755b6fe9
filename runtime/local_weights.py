"""Frozen networks in Hugging Face's format from a local folder: its own *.safetensors alone, all of them there; nothing downloaded, no code run.

Open to every floor, as it imports nothing of ours: the text encoders of models/ and the features of evaluation/ are read through this one door.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_frozen(folder: Path, model: str, options: Mapping[str, Any], key: str, spared: str | None = None) -> Any:
    """A network of transformers (extra [hf]), frozen, on the CPU.

    Args:
        model: its class in transformers.
        options: of from_pretrained: dtype, attn_implementation, keys of the config.
        key: of our config that names the folder, for messages.
        spared: weights whose names begin so may be missing, where what they make is not taken.
    Raises: ValueError if the folder leads elsewhere, its files cannot be read or a weight is missing.
    """
    only_safetensors(folder, key)
    import transformers  # pyright: ignore[reportMissingImports]
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    logging.set_verbosity_error()  # what is left over (a decoder) is none of the user's business; what is missing is refused below
    logging.disable_progress_bar()
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        network, report = getattr(transformers, model).from_pretrained(folder, **{**options, **safe})
    except Exception as error:  # OSError, RuntimeError, ValueError, SafetensorError...
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights in {folder} cannot be read as a {model} ({why}). Set {key}.") from error
    missing = sorted(name for name in report["missing_keys"] if spared is None or not name.startswith(spared))
    if missing:  # transformers would make them up
        raise ValueError(f"the weights in {folder} lack {len(missing)} of a {model}'s tensors ({', '.join(missing[:3])}...). Set {key}.")
    return network.requires_grad_(False).eval()


def only_safetensors(folder: Path, key: str) -> None:
    """Raises: ValueError if the folder leads transformers to other weights than its own *.safetensors, which are what digest() stands for.

    An index, transformers_weights and an adapter do so, to pickles too, whatever use_safetensors says.
    """
    for name, bad in (
        ("adapter_config.json", (folder / "adapter_config.json").is_file()),
        ("transformers_weights in config.json", _names_weights(folder)),
    ):
        if bad:
            raise ValueError(f"{folder} holds {name}, which leads to other weights: wanted model.safetensors alone, or with an index. Set {key}.")
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index} cannot be read as an index of weights ({error!r:.200}). Set {key}.") from None
        odd = sorted(str(file) for file in files if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"))
        if odd:
            wanted = "wanted plain names of *.safetensors files beside it, as a pickle may run any code when opened"
            raise ValueError(f"weight_map in {index} names {odd[0]!r}: {wanted}. Set {key}.")


def digest(folder: Path, endings: Sequence[str]) -> "hashlib._Hash":
    """sha256 over names and content of the folder's files with these endings, to be gone on with: the same wherever they lie."""
    found = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in endings):
        with file.open("rb") as content:
            found.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return found


def _names_weights(folder: Path) -> bool:
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return "transformers_weights" in json.dumps(told)  # a part of it may say so too, and in other letters
