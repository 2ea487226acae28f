"""Reads networks, tokenizers and pixel statistics in the transformers library's formats. Knows no maps and no phrases.

Every function imports transformers itself (seconds), and turns what goes wrong into one ModelError.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from medglip.errors import ModelError

INLINE = "config"  # the name of an encoder that is built from the table ``config`` of its section, with random weights
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of RGB in [0, 1]
# Weights that a published file may lack: layers that a detector adds, and parts of pretraining that are not used here.
MAY_BE_NEW = ("hidden_states_norms", "pooler", "mask_token", "position_ids")
FAULTS = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError)


def is_hub_name(name: str) -> bool:
    """Whether an encoder's name is a hub id (``owner/name``) or an existing folder."""
    return "/" in name or Path(name).is_dir()


@contextmanager
def _refused(who: str, location: str) -> Iterator[None]:
    """Turns a failure to read into a ModelError; keeps the library's reports and progress bars off the screen."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except FAULTS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{who} {location!r} cannot be read ({reason}); {_advice(location)}.") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _advice(location: str) -> str:
    if location == INLINE:
        return "check the table config: its model_type and keys are those of the transformers library"
    if Path(location).is_dir():
        return "check the files in this folder"
    return f"fetch it with 'hf download {location}' where there is a network, or give a local copy as folder"


def read_config(who: str, location: str, table: Mapping[str, Any] | None) -> Any:
    """The network's configuration: from a table with ``model_type``, else from a folder or the hub.

    Raises:
        ModelError: it is not there, cannot be read, or the table names no type that the library knows.
    """
    from transformers import AutoConfig

    if table is None:
        with _refused(who, location):
            return AutoConfig.from_pretrained(location)
    with _refused(who, INLINE):
        return AutoConfig.for_model(**table)


def read_network(who: str, automatic: Any, location: str, config: Any, pretrained: bool) -> Any:
    """A network in float32 and evaluation mode.

    Args:
        who: For messages.
        automatic: ``AutoBackbone``, ``AutoModel``...
        location: Folder or hub id of the weights.
        config: What ``read_config`` gave.
        pretrained: Read the weights; False leaves random ones.

    Raises:
        ModelError: the weights are not there or are of another network, or the library has no such network.
    """
    with _refused(who, location):
        if not pretrained:
            return automatic.from_config(config).float().eval()
        # AutoBackbone.from_pretrained asks the hub even for a folder, and then refuses it (transformers 5.23).
        network, info = automatic._model_mapping[type(config)].from_pretrained(
            location, config=config, output_loading_info=True
        )
    lost = sorted(name for name in info["missing_keys"] if not any(part in name for part in MAY_BE_NEW))
    if lost:
        raise ModelError(f"{who} {location!r}: the weights lack {lost[0]!r} and {len(lost) - 1} more; fetch them again.")
    return network.float().eval()


def read_tokenizer(who: str, location: str) -> Any:
    """A tokenizer that knows which characters a token came from; raises ModelError where there is none."""
    from transformers import AutoTokenizer

    with _refused(who, location):
        tokenizer = AutoTokenizer.from_pretrained(location)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{who} {location!r}: its tokenizer {type(tokenizer).__name__} does not give characters; "
            "needed is one with a tokenizer.json."
        )
    return tokenizer


def pixel_statistics(who: str, location: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in [0, 1] that a network was trained with; ImageNet's where it does not say.

    Raises:
        ModelError: its ``preprocessor_config.json`` could be on the hub, but cannot be asked for.
    """
    name = "preprocessor_config.json"
    path = Path(location) / name
    if not Path(location).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with _refused(who, location):
            try:
                path = Path(hf_hub_download(location, name))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                return IMAGENET
    if not path.is_file():
        return IMAGENET
    with _refused(who, location):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("do_normalize") is False:
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        mean, std = (
            tuple(map(float, raw.get(key, usual))) for key, usual in zip(("image_mean", "image_std"), IMAGENET, strict=True)
        )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"image_mean {mean} and image_std {std} are not three numbers each")
    return mean, std


def use_checkpointing(who: str, network: Any) -> None:
    """Let a network keep less for the backward pass and compute it again; raises ModelError where it cannot."""
    if not getattr(network, "supports_gradient_checkpointing", False):
        raise ModelError(f"{who}: {type(network).__name__} cannot compute activations again; set checkpointing = false.")
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable  # its old name
    enable({"use_reentrant": False})


def plain_config(network: nn.Module) -> dict[str, Any]:
    """A network's configuration as plain values, which ``read_config`` takes back as a table."""
    return json.loads(network.config.to_json_string(use_diff=False))  # type: ignore[union-attr, operator]
