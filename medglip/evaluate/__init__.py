"""Measures grounding on annotated images: boxes, phrases, absence."""

from medglip.evaluate.cases import Case
from medglip.evaluate.folders import read_evaluation
from medglip.evaluate.run import evaluate, validator
from medglip.evaluate.tally import Tally

__all__ = ["Case", "Tally", "evaluate", "read_evaluation", "validator"]
