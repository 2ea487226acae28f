"""Makes a checkpoint ready to travel inside medglip: float16 weights, no training state, licence. Writes no card."""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.checkpoints import read_info
from medglip.model.shipped import MINILM

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# What else of a checkpoint is needed to use it: a tokenizer of the transformers library, and the heads for questions.
_FOLDERS = ("tokenizer", "language")
_NOTICE = """Weights trained by medglip; licence: Apache-2.0, the text is in LICENSE beside this file.
README.md names the images that they were trained on, with licences and credits.

The image encoder began with the ImageNet weights of EfficientNet-Lite0 and was changed by training.
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0)
Tan M, Le QV. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019. arXiv:1905.11946.
"""


def ship(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint's weights in float16, with what loading needs and nothing of the training.

    It loads as any checkpoint does, in float32.

    Args:
        checkpoint: The folder that training printed.
        folder: Made if it is not there; the same files in it are replaced.

    Returns:
        ``folder``.

    Raises:
        ModelError: the checkpoint is damaged, a weight is too large for float16, or its text encoder needs files that do not
            travel with medglip.
    """
    info = read_info(checkpoint)
    text = info.config["text"]
    if text["encoder"] == "minilm" and text.get("weights") != "packed":
        raise ModelError(
            f"Checkpoint {checkpoint}: its text encoder reads published MiniLM weights, found weights = "
            f"{text.get('weights', 'published')!r}; train it with weights = 'packed', so that it needs no download."
        )
    folder.mkdir(parents=True, exist_ok=True)
    half = _half(checkpoint)
    save_file(half, folder / f"{WEIGHTS}.new")
    (folder / f"{WEIGHTS}.new").chmod(0o644)  # safetensors writes files that only their owner may read
    os.replace(folder / f"{WEIGHTS}.new", folder / WEIGHTS)
    shutil.copyfile(checkpoint / CONFIG, folder / CONFIG)
    for name in _FOLDERS:
        if (checkpoint / name).is_dir():
            shutil.copytree(checkpoint / name, folder / name, dirs_exist_ok=True, copy_function=_readable)
    shutil.copyfile(MINILM / "LICENSE", folder / "LICENSE")
    (folder / "NOTICE").write_text(_NOTICE, encoding="utf-8")
    return folder


def _readable(source: str, target: str) -> str:
    """Copy a file's bytes, and not that only its owner may read it."""
    return shutil.copyfile(source, target)


def _half(checkpoint: Path) -> dict[str, Tensor]:
    """The weights, floating-point ones in float16."""
    try:
        state = load_file(checkpoint / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"Checkpoint {checkpoint} is damaged: {error}; train again or fetch it again.") from error
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in half.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"Checkpoint {checkpoint}: {name!r} has a value that float16 cannot hold; ship it in float32.")
    return half
