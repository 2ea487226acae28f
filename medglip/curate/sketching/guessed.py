"""What is thought of a folder, as the rooms of the sketch hand it on. Looks at nothing itself."""

from dataclasses import dataclass, field
from typing import Any

TODO = "TODO"
# Raw label of marks whose files name none: the curator says what they show.
OBJECT = "object"


@dataclass(frozen=True)
class Guess:
    """What is thought of a folder.

    Attributes:
        converter: Name of a converter; ``TODO`` where the files say nothing.
        files: Role -> pattern; ``TODO`` where none was found.
        options: Options of the converter that the files tell.
        labels: Raw labels that were seen, sorted.
        modality: One of ``medglip.records.MODALITIES``, or None where the files do not say.
        doubts: What could not be told, a sentence each.
        names: Raw label -> label of the tree, where the format itself says it.
    """

    converter: str
    files: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    modality: str | None = None
    doubts: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
