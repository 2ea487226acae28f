"""Checkpoints: a folder with ``model.safetensors`` and ``config.json``. Knows no training loop.

``config.json`` says what the model is, which concepts and modalities it was trained on, and its thresholds. Frozen
MiniLM weights are not in it: their hash is pinned in the code. Encoders of the transformers library are in it whole, with
their configuration and tokenizer (``tokenizer/``), so that no network is needed to load them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medglip.errors import ModelError
from medglip.model.config import Config, load_config
from medglip.model.dense import MedGLIP, build_model
from medglip.model.encoders import HubImageEncoder, HubTextEncoder
from medglip.model.shipped import checkpoint_folder

FORMAT = 2
_TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        config: The configuration that the model was built from.
        concepts: Concepts of the training regions, sorted.
        modalities: Modalities of the training images, sorted.
        score_threshold: Boxes below are not shown.
        presence_threshold: Phrases below are called absent.
        thresholds: The same two for single modalities, (score, presence), where enough images told them.
        trained: ``steps``, ``images``, ``sources`` and what else the training wants to be known.
        format: Version of this layout.
    """

    config: Config
    concepts: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    score_threshold: float = 0.3
    presence_threshold: float = 0.5
    thresholds: dict[str, tuple[float, float]] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def thresholds_of(self, modality: str | None) -> tuple[float, float]:
        """Least score and least presence for images of a modality; those of all where it has none of its own."""
        return self.thresholds.get(modality or "", (self.score_threshold, self.presence_threshold))


def save_checkpoint(folder: Path, model: MedGLIP, state: Mapping[str, torch.Tensor], info: CheckpointInfo) -> Path:
    """Write a checkpoint; each file appears whole or not at all.

    Args:
        folder: Made if it is not there.
        model: Whose checkpoint it is.
        state: Its weights, or averaged ones in their place.
        info: What the checkpoint says of itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: dict(section) for name, section in info.config.items()}
    image, text = model.image_encoder, model.text_encoder.text
    if isinstance(image, HubImageEncoder):
        config["image"]["config"] = image.config
    if isinstance(text, HubTextEncoder):
        config["text"]["config"] = text.config
        text.save_tokenizer(folder / _TOKENIZER)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(plain, folder / "model.safetensors.new")
    os.replace(folder / "model.safetensors.new", folder / "model.safetensors")
    words = json.dumps(asdict(replace(info, config=config)), indent=1, sort_keys=True) + "\n"
    (folder / "config.json.new").write_text(words, encoding="utf-8")
    os.replace(folder / "config.json.new", folder / "config.json")
    return folder


def read_info(folder: Path) -> CheckpointInfo:
    """What the checkpoint says of itself.

    Raises:
        ModelError: it is not a checkpoint folder, or of another version.
    """
    path = folder / "config.json"
    if not path.is_file() or not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"Checkpoint {folder}: needs config.json and model.safetensors; give the folder that training printed."
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["concepts"], raw["modalities"] = tuple(raw["concepts"]), tuple(raw["modalities"])
        raw["config"] = load_config(raw["config"])
        found = raw.get("format")
        if found == FORMAT:
            raw["thresholds"] = {name: (float(pair[0]), float(pair[1])) for name, pair in raw["thresholds"].items()}
            return CheckpointInfo(**raw)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"Checkpoint {path} is damaged: {error!r}; train again or fetch it again.") from error
    raise ModelError(
        f"Checkpoint {path} is of format {found!r}; this medglip reads {FORMAT}; train again, or use the medglip that wrote it."
    )


def load_checkpoint(folder: str | Path) -> tuple[MedGLIP, CheckpointInfo]:
    """The model, in evaluation mode on the CPU, and what the checkpoint says of itself.

    Args:
        folder: Of the checkpoint, or the name of a shipped model (``medglip.model.shipped``), such as ``lite``.

    Raises:
        ModelError: there is none, a file is missing or damaged, or the weights do not fit the configuration.
    """
    folder = checkpoint_folder(folder)
    info = read_info(folder)
    config = info.config
    if (tokenizer := folder / _TOKENIZER).is_dir():
        config = {**config, "text": {**config["text"], "folder": str(tokenizer)}}
    model = build_model(config, pretrained=False)
    load_weights(model, folder)
    return model.eval(), info


def load_weights(model: MedGLIP, folder: Path) -> None:
    """Read a checkpoint's weights into a model of the same shape.

    Raises:
        ModelError: the file is damaged, or names and shapes differ.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"Checkpoint {folder}: model.safetensors is missing; give the folder that training printed.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"Checkpoint {path} is damaged: {error}; train again or fetch it again.") from error
    own = model.state_dict()
    wrong = sorted(set(state) ^ set(own)) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        name = wrong[0]
        found = tuple(state[name].shape) if name in state else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        raise ModelError(
            f"Checkpoint {folder} does not fit the configuration: {name!r} is {found} there, {wanted} here "
            f"({len(wrong)} differ); use the configuration that it was trained with."
        )
    model.load_state_dict(state)
