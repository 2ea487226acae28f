"""Which patients there are, which examinations they had, and the scenes that these show. Knows no files."""

from collections.abc import Callable, Iterator

import numpy as np

from medglip.errors import InputError
from medglip.phantoms import abdomen, brain, chest, dermoscopy, endoscopy, fundus, ultrasound
from medglip.phantoms.scene import MODALITIES, Exam, Scene
from medglip.phantoms.shapes import Rng

# Pictures of one exam (fundus: right eye, left eye, right eye again); of other modalities it is one volume or clip.
PICTURES = {"xray": 3, "endoscopy": 3, "dermoscopy": 3, "fundus": 3}
_EXAMS_OF_PATIENTS = (2, 1, 3, 2)  # of the first four patients, and of every four after them

_Drawing = Callable[[Exam, Rng], Scene]
_DRAWINGS: dict[str, tuple[_Drawing, ...]] = {
    "ct": (abdomen.ct,),
    "mr": (abdomen.mr, brain.mr),
    "xray": (chest.xray,),
    "ultrasound": (ultrasound.liver, ultrasound.liver, ultrasound.breast),
    "endoscopy": (endoscopy.endoscopy,),
    "dermoscopy": (dermoscopy.dermoscopy,),
    "fundus": (fundus.fundus,),
}


def exams(modality: str, n: int, seed: int = 0) -> Iterator[Exam]:
    """The pictures of the first ``n`` exams of a modality; most patients have several, and exams in every modality.

    Args:
        modality: One of ``MODALITIES``.
        n: Exams; a modality in ``PICTURES`` gives so many pictures for each.
        seed: Of the archive.

    Raises:
        InputError: the modality is not known.
    """
    if modality not in MODALITIES:
        raise InputError(f"Phantoms: found modality {modality!r}; allowed: {', '.join(MODALITIES)}.")
    patient, visit = 1, 1
    for number in range(n):
        rng = np.random.default_rng([seed, 1000, patient])
        sex, age = ("F", "M")[int(rng.integers(2))], int(rng.integers(19, 90))
        for picture in range(PICTURES.get(modality, 1)):
            name = f"P{patient:04d}_E{visit}" + (f"_{picture + 1}" if modality in PICTURES else "")
            yield Exam(f"P{patient:04d}", name, (seed, MODALITIES.index(modality), number, picture), sex, age)
        visit += 1
        if visit > _EXAMS_OF_PATIENTS[(patient - 1) % len(_EXAMS_OF_PATIENTS)]:
            patient, visit = patient + 1, 1


def cases(modality: str, n: int, seed: int = 0) -> Iterator[Scene]:
    """Scenes of the first ``n`` exams of a modality; equal for equal arguments; those of a smaller ``n`` come first.

    >>> scene = next(cases("ct", 1))
    >>> scene.modality, scene.exam.patient, scene.values.dtype.name
    ('ct', 'P0001', 'int16')
    """
    for exam in exams(modality, n, seed):
        drawings = _DRAWINGS[modality]
        yield drawings[exam.seed[2] % len(drawings)](exam, np.random.default_rng(exam.seed))
