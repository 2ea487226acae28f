"""Which parameters of a model learn, by ``train.learn``, and what is added for it. Knows no data and no loop.

| ``learn`` | what learns | what it is for |
| --- | --- | --- |
| ``all`` | whatever the parts of the model let learn | training, fine-tuning |
| ``encoder_frozen`` | all but the image and the text encoder | few images, or little memory |
| ``head`` | outputs: alignment, box, quality, presence | linear probe |
| ``prompt`` | offsets on the words of the known concepts' phrases | a new set of phrases; all others answer as before |
| ``lora`` | low-rank additions to the encoders' attention and to the fusion | another hospital, few weights to store |

All but ``all`` are for a model that was trained: begin with a checkpoint. What was added is in the configuration of the
checkpoints that are written, so they are loaded as any other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medglip.errors import ModelError
from medglip.model.additions import ADDED, add_low_rank, add_offsets, rebuild
from medglip.model.checkpoints import load_weights, read_info
from medglip.model.config import Config
from medglip.model.dense import MedGLIP
from medglip.model.encoders import HubImageEncoder, HubTextEncoder
from medglip.model.encoders.tuning import projections, tune
from medglip.model.shipped import checkpoint_folder
from medglip.records.labels import label_tree
from medglip.records.phrases import concept_phrases

WAYS = ("all", "encoder_frozen", "head", "prompt", "lora")
# The last layers: what GLIP's linear probe trains, and the judgement of presence, which GLIP has not.
OUTPUTS = (
    "head.align", "head.dense.name", "head.dense.box", "head.dense.quality", "head.dense.fine_name", "head.dense.fine_box",
    "head.dense.fine_quality", "head.dense.reach", "head.presence.judge", "head.presence.trust", "head.presence.spread",
)  # fmt: skip
_PROBE = 64  # pixels: side of an image that shows what of a backbone reaches its maps


def prepare(model: MedGLIP, settings: Config, concepts: Sequence[str]) -> None:
    """Set what learns, in place; the settings then say what was added to the model.

    What does not learn answers as in evaluation: BatchNorm keeps its statistics, and frozen networks drop nothing.

    Args:
        model: With the weights to begin with.
        settings: The whole configuration; ``train`` has ``learn`` (a key of the module's table) and ``rank`` (of LoRA).
        concepts: Of the training regions, ``label`` or ``label@side``: what ``prompt`` tunes, with all their wordings.

    Raises:
        ModelError: another word than those, a bad rank, or no concept to tune.

    Source: GLIP (arXiv 2112.03857), section 5.2 (linear probe and prompt tuning); LoRA (arXiv 2106.09685), section 4.2.
    """
    how = settings["train"].get("learn", "all")
    if how not in WAYS:
        raise ModelError(f"Configuration train.learn: found {how!r}; allowed: {', '.join(WAYS)}.")
    if how == "all":
        return
    if how == "encoder_frozen":
        for encoder in (model.image_encoder, model.text_encoder.text):
            _freeze(encoder)
    elif how == "head":
        _freeze(model)
        for name, value in model.named_parameters():
            value.requires_grad_(any(name == output or name.startswith(f"{output}.") for output in OUTPUTS))
    elif how == "prompt":
        _freeze(model)
        _learn_prompt(model, settings, concepts)
    else:
        _freeze(model)
        _learn_low_rank(model, settings, settings["train"].get("rank", 8))
    if not any(value.requires_grad for value in model.parameters()):
        raise ModelError(
            f"Configuration train.learn: found {how!r}, and the model has nothing that learns so; use another way."
        )
    _keep_statistics(model)


def begin(model: MedGLIP, settings: Config, checkpoint: str | Path) -> None:
    """Read the weights to begin with; what tuning had added to that model is added to this one, and to its settings.

    Args:
        model: Built from ``settings``, changed in place.
        settings: The whole configuration, changed in place.
        checkpoint: Folder of the checkpoint, or the name of a shipped model.

    Raises:
        ModelError: it is no checkpoint, or does not fit.
    """
    checkpoint = checkpoint_folder(checkpoint)
    theirs = read_info(checkpoint).config
    for section, key in ADDED:
        if key in theirs[section]:
            settings[section][key] = theirs[section][key]
    rebuild(model, settings)
    for encoder, section in ((model.image_encoder, "image"), (model.text_encoder.text, "text")):
        if isinstance(encoder, HubImageEncoder | HubTextEncoder) and theirs[section].get("tune") == "lora":
            _low_rank_encoder(encoder, settings[section], theirs[section].get("lora_rank", 8))
    load_weights(model, checkpoint)


def _freeze(part: nn.Module) -> None:
    part.requires_grad_(False)
    for network in part.modules():
        if isinstance(network, HubImageEncoder | HubTextEncoder):
            network.how = "frozen"  # its features may be kept, and nothing in it is dropped at random
            network.train(network.training)


def _learn_prompt(model: MedGLIP, settings: Config, concepts: Sequence[str]) -> None:
    tree = label_tree()
    before = settings["text"].get("tuned_phrases", [])
    told = [phrase.text for concept in concepts for phrase in concept_phrases(concept, tree)]
    phrases = list(dict.fromkeys([*before, *told]))
    add_offsets(model.text_encoder, phrases)
    settings["text"]["tuned_phrases"] = phrases
    model.text_encoder.additions.offsets.requires_grad_(True)  # type: ignore[union-attr]


def _learn_low_rank(model: MedGLIP, settings: Config, rank: int) -> None:
    if not settings["model"].get("lora_rank"):
        add_low_rank(model, rank)
        settings["model"]["lora_rank"] = rank
    for encoder, section in ((model.image_encoder, "image"), (model.text_encoder.text, "text")):
        if isinstance(encoder, HubImageEncoder | HubTextEncoder):
            _low_rank_encoder(encoder, settings[section], rank)
    for name, value in model.named_parameters():
        value.requires_grad_(name.rpartition(".")[2] in ("lora_a", "lora_b"))


def _low_rank_encoder(encoder: HubImageEncoder | HubTextEncoder, section: dict[str, Any], rank: int) -> None:
    """LoRA on the attention of an encoder of the transformers library, unless it has it; one without attention stays frozen."""
    if not projections(encoder.network) and section.get("tune") != "lora":
        return
    encoder.how = "lora"
    if section.get("tune") != "lora":
        device = next(encoder.parameters()).device
        image, words = torch.zeros(1, 3, _PROBE, _PROBE, device=device), torch.zeros(1, 2, dtype=torch.long, device=device)
        if isinstance(encoder, HubImageEncoder):
            tune(encoder.network, "lora", rank, lambda: encoder(encoder.frozen(image)))
        else:
            tune(encoder.network, "lora", rank, lambda: [encoder(words, words == 0)])
        section["tune"], section["lora_rank"] = "lora", rank
    encoder.train(encoder.training)


def _keep_statistics(model: nn.Module) -> None:
    """Frozen BatchNorms stay in evaluation mode, whatever ``train()`` says."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(v.requires_grad for v in module.parameters()):
            module.register_forward_pre_hook(_evaluating)


def _evaluating(module: nn.Module, _: Any) -> None:
    """Before a frozen BatchNorm: whatever ``train()`` said, it uses the statistics that it came with."""
    module.eval()
