"""Synthetic patients in seven modalities, drawn from masks, so that every box is exactly known."""

from medglip.phantoms.archive import write_archive
from medglip.phantoms.cohort import cases, exams
from medglip.phantoms.scene import MODALITIES, Exam, Scene, Thing
from medglip.phantoms.text import findings

__all__ = ["MODALITIES", "Exam", "Scene", "Thing", "cases", "exams", "findings", "write_archive"]
