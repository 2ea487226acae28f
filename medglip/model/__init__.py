"""The grounding model: phrases and an image in, boxes with scores and a presence per phrase out. Knows no dataset."""

from medglip.model.config import load_config
from medglip.model.dense import GroundingOutput, MedGLIP, build_model
from medglip.model.prompt import Prompt, Span, make_prompt

__all__ = ["GroundingOutput", "MedGLIP", "Prompt", "Span", "build_model", "load_config", "make_prompt"]
