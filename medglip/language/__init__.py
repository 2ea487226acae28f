"""Scenes, questions, answers and reports. Only vqa and vqa_training know torch; they are imported when asked for."""

from typing import TYPE_CHECKING, Any

from medglip.language.bands import Bands
from medglip.language.observe import Observation, observe_dataset
from medglip.language.questions import QuestionAnswer, question_set
from medglip.language.report import Report, Reporter, Sentence
from medglip.language.scene import (
    Finding,
    ImageView,
    Presence,
    Scene,
    scene_of_record,
    scene_of_regions,
    view_of_record,
)
from medglip.language.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from medglip.language.vqa import VQA, Answer
    from medglip.language.vqa_training import train_vqa

__all__ = [
    "VQA", "Answer", "Bands", "Finding", "ImageView", "Observation", "Presence", "QuestionAnswer", "Report", "Reporter",
    "Scene", "Sentence", "Vocabulary", "observe_dataset", "question_set", "scene_of_record",
    "scene_of_regions", "train_vqa", "view_of_record", "vocabulary_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The names that need torch, imported when they are first used."""
    if name in ("VQA", "Answer"):
        from medglip.language import vqa

        return getattr(vqa, name)
    if name == "train_vqa":
        from medglip.language.vqa_training import train_vqa

        return train_vqa
    raise AttributeError(f"module 'medglip.language' has no attribute {name!r}")
