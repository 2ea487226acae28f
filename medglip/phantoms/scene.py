"""What a phantom is: pixels drawn from masks, and the masks they were drawn from. Knows no anatomy and no files."""

from dataclasses import dataclass, field

import numpy as np

MODALITIES = ("ct", "mr", "xray", "ultrasound", "endoscopy", "dermoscopy", "fundus")


@dataclass(frozen=True, slots=True)
class Exam:
    """Who is examined and which examination it is.

    Attributes:
        patient: Patient id, ``P`` and four digits; the same person in every modality.
        case: Unique in its modality: ``P0003_E2``, or ``P0003_E2_1`` for one of an exam's pictures.
        seed: Seeds that draw this exam and no other: archive, modality, exam, picture.
        sex: ``F`` or ``M``.
        age: Years.
    """

    patient: str
    case: str
    seed: tuple[int, int, int, int]
    sex: str
    age: int


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene; several of one kind are several things that do not touch.

    Attributes:
        label: Name in the label tree, without a side: ``kidney``.
        mask: bool, the shape of the scene without colour.
        side: The patient's side, ``left`` or ``right``; None where it has none.
        within: Name of the thing that contains it entirely (``left kidney``), or None.
    """

    label: str
    mask: np.ndarray
    side: str | None = None
    within: str | None = None

    @property
    def name(self) -> str:
        """``left kidney``."""
        return f"{self.side} {self.label}" if self.side else self.label


@dataclass(frozen=True, slots=True)
class Scene:
    """One phantom examination, as it is before it is written to files.

    Attributes:
        modality: One of ``MODALITIES``.
        kind: What is shown: ``abdomen``, ``brain``, ``chest``, ``breast``, ...
        exam: Who and which.
        values: Grey scenes (H, W) or (K, H, W), colour scenes uint8 (H, W, 3). ct: int16 HU; mr: int16, arbitrary;
            xray: uint16, 12 bits, bone bright; ultrasound: uint8, K frames. Volumes are kji with k towards the head,
            j towards the back and i towards the patient's left: every plane is as a radiologist looks at it.
        spacing_mm: (row, column), or (slice, row, column) of a volume; None where the modality has none.
        things: Everything drawn that has a label.
        searched: Names of all that was looked for: a name of it without a thing is truly absent.
        facts: What is known beyond the picture: ``{"phase": "portal venous"}``.
    """

    modality: str
    kind: str
    exam: Exam
    values: np.ndarray
    spacing_mm: tuple[float, ...] | None
    things: tuple[Thing, ...]
    searched: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)

    def mask(self, name: str) -> np.ndarray:
        """Union of the masks of all things of a name; all False where there is none."""
        shape = self.values.shape[:2] if self.values.shape[-1] == 3 else self.values.shape
        found = np.zeros(shape, bool)
        for thing in self.things:
            if thing.name == name:
                found |= thing.mask
        return found

    def names(self) -> tuple[str, ...]:
        """Names of its things, each once, in the order of drawing."""
        return tuple(dict.fromkeys(thing.name for thing in self.things))
