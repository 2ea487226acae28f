"""Weights that travel inside medglip: where they lie, and the names of the models among them. Reads no weights."""

from pathlib import Path

from medglip.errors import ModelError

FOLDER = Path(__file__).resolve().parent.parent / "weights"
MINILM = FOLDER / "minilm"
# Names of models -> folders of checkpoints inside ``FOLDER``. A name may be missing in a build that left its weights out.
MODELS = {"lite": "lite"}
_FILES = ("config.json", "model.safetensors")


def shipped_names() -> tuple[str, ...]:
    """Names of the models whose weights are in this installation, sorted."""
    return tuple(sorted(name for name, folder in MODELS.items() if _is_checkpoint(FOLDER / folder)))


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint, given as a path or as the name of a shipped model; a checkpoint at that path wins.

    Args:
        checkpoint: ``runs/busi/best``, or ``lite``.

    Raises:
        ModelError: there is neither such a folder nor such a model, or its weights are not in this build.
    """
    path, name = Path(checkpoint), str(checkpoint)
    if path.exists() and (name not in MODELS or _is_checkpoint(path)):
        return path
    here = ", ".join(shipped_names()) or "none in this build"
    if name not in MODELS:
        raise ModelError(
            f"Checkpoint {name!r}: there is no such folder, and no model of that name is shipped ({here}); give the folder "
            "that training printed, or a shipped name."
        )
    folder = FOLDER / MODELS[name]
    if not _is_checkpoint(folder):
        raise ModelError(
            f"The model {name!r} is not in this build of medglip ({folder} has no weights); train it with scripts/train-lite, "
            "or give the folder of a checkpoint."
        )
    return folder


def _is_checkpoint(folder: Path) -> bool:
    return all((folder / file).is_file() for file in _FILES)
