"""Image and text encoders by name: ``tiny``, ``lite`` and those of the transformers library. No boxes here."""

from collections.abc import Mapping
from typing import Any

from medglip.errors import ModelError
from medglip.model.encoders.hub import INLINE, is_hub_name
from medglip.model.encoders.interfaces import ImageEncoder, TextEncoder, Tokens
from medglip.model.encoders.lite import EfficientNetLite0
from medglip.model.encoders.minilm import Bert, MiniLM
from medglip.model.encoders.phrases import PhraseReader
from medglip.model.encoders.pretrained import HubImageEncoder, HubTextEncoder, hub_image_encoder, hub_text_encoder
from medglip.model.encoders.tiny import HashedText, TinyImageEncoder
from medglip.model.encoders.tuning import add_lora, merge_lora

__all__ = [
    "Bert", "EfficientNetLite0", "HashedText", "HubImageEncoder", "HubTextEncoder", "ImageEncoder", "MiniLM", "PhraseReader",
    "TextEncoder", "TinyImageEncoder", "Tokens", "add_lora", "build_image_encoder", "build_text_encoder", "merge_lora",
]  # fmt: skip


def build_image_encoder(section: Mapping[str, Any], pretrained: bool) -> ImageEncoder:
    """The image encoder that the section ``image`` of a configuration describes.

    Args:
        section: ``encoder``: ``tiny``, ``efficientnet_lite0`` (with ``train_from`` and ``folder``), a hub id, a folder or
            ``config`` (their keys: see ``pretrained``).
        pretrained: Read published weights; False where a checkpoint will be read over them.

    Raises:
        ModelError: no such encoder, or its files are not there.
    """
    name = section["encoder"]
    if name == "tiny":
        return TinyImageEncoder()
    if name == "efficientnet_lite0":
        return EfficientNetLite0(pretrained, section.get("train_from", 16), section.get("folder"))
    if name == INLINE or is_hub_name(name):
        return hub_image_encoder(section, pretrained)
    raise ModelError(
        f"Image encoder {name!r} is unknown; allowed: tiny, efficientnet_lite0, a hub id 'owner/name', a folder, or config."
    )


def build_text_encoder(section: Mapping[str, Any], pretrained: bool) -> TextEncoder:
    """The text encoder that the section ``text`` of a configuration describes.

    Args:
        section: ``encoder``: ``hashed``, ``minilm`` (with ``folder`` or ``weights``), a hub id, a folder or ``config`` (their
            keys: see ``pretrained``).
        pretrained: Read published weights; MiniLM's are read always, as no checkpoint has them.

    Raises:
        ModelError: no such encoder, or its files are not there.
    """
    name = section["encoder"]
    if name == "hashed":
        return HashedText()
    if name == "minilm":
        return MiniLM(section.get("folder"), section.get("weights", "published"))
    if name == INLINE or is_hub_name(name):
        return hub_text_encoder(section, pretrained)
    raise ModelError(f"Text encoder {name!r} is unknown; allowed: hashed, minilm, a hub id 'owner/name', a folder, or config.")
