"""Measures grounding on annotated images: boxes, phrases, absence."""

from medglip.evaluate.run import evaluate, validator

__all__ = ["evaluate", "validator"]
