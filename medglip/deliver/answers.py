"""What the commands ground, ask and report give back for one picture file: text, JSON, a drawing or a page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medglip.deliver.html import report_page
from medglip.deliver.overlay import overlay
from medglip.errors import InputError
from medglip.imaging.opened import OpenedImage, open_image
from medglip.language import ImageView, Reporter
from medglip.language.places import patient_axes
from medglip.language.vqa import VQA, Answer
from medglip.predict import Grounder, Look
from medglip.records import Region, label_tree


def opened(path: Path, modality: str | None = None, number: int | None = None) -> OpenedImage:
    """One picture of a file; see ``medglip.imaging.opened.open_image``."""
    return open_image(path, modality=modality, number=number)


def view_of_opened(image: OpenedImage) -> ImageView:
    """What is known of a picture that is in no dataset."""
    height, width = image.pixels.shape[:2]
    axes, plane = patient_axes(image.affine_px_to_mm)
    return ImageView(width, height, image.modality, plane, axes, image.spacing_mm,
                     "affine" if image.affine_px_to_mm and image.spacing_mm else None)  # fmt: skip


@dataclass(frozen=True)
class Grounded:
    """What was found of the phrases asked of one image.

    Attributes:
        image: Name of the picture.
        modality: What it was taken for, or None.
        phrases: As asked.
        look: Regions and presence.
    """

    image: str
    modality: str | None
    phrases: tuple[str, ...]
    look: Look

    def to_json(self) -> dict[str, Any]:
        """Plain values; boxes in pixels of the image, half-open."""
        return {
            "image": self.image,
            "modality": self.modality,
            "phrases": [
                {
                    "phrase": phrase,
                    "presence": round(self.look.presence[phrase], 4),
                    "regions": [_plain(region) for region in self._of(place)],
                }
                for place, phrase in enumerate(self.phrases)
            ],
        }

    def to_text(self) -> str:
        """One line a box; one line for a phrase without any."""
        lines = [f"{self.image} ({self.modality or 'modality unknown'})"]
        for place, phrase in enumerate(self.phrases):
            presence = f"presence {self.look.presence[phrase]:.2f}"
            found = self._of(place)
            if not found:
                lines.append(f"{phrase}: absent ({presence})")
            for region in found:
                edges = ", ".join(f"{edge:.0f}" for edge in region.box_xyxy)
                lines.append(f"{phrase}: box [{edges}] score {region.score:.2f} ({presence})")
        return "\n".join(lines)

    def _of(self, place: int) -> list[Region]:
        return [region for region in self.look.regions if region.attributes["phrase"] == place]


def ground(checkpoint: Path, image: OpenedImage, phrases: list[str], drawing: Path | None = None) -> Grounded:
    """Find the phrases in a picture.

    Args:
        checkpoint: Folder of a checkpoint.
        image: The picture.
        phrases: What to look for; a side is the patient's.
        drawing: Where to write a PNG with the boxes, or None.

    Raises:
        ModelError: the checkpoint cannot be used.
        InputError: the drawing is not a .png, or a phrase is asked twice.
    """
    if drawing is not None and drawing.suffix.lower() != ".png":
        raise InputError(f"--overlay is {str(drawing)!r}; allowed: a name that ends in .png.")
    if len(set(phrases)) < len(phrases):
        raise InputError(f"Phrases: found {phrases!r}; ask each only once.")
    look = Grounder.load(checkpoint).look(image.display, phrases, image.modality)
    if drawing is not None:
        drawing.parent.mkdir(parents=True, exist_ok=True)
        sides = view_of_opened(image).side_letters
        overlay(image.display, look.regions, title="; ".join(phrases), sides=sides).save(drawing)
    return Grounded(image.name, image.modality, tuple(phrases), look)


@dataclass(frozen=True)
class Answered:
    """A question about one picture, and its answer."""

    image: str
    question: str
    answer: Answer

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"image": self.image, "question": self.question, **self.answer.to_json()}

    def to_text(self) -> str:
        """The answer, how sure it is, and the boxes that it rests on."""
        answer = self.answer
        reason = f": {answer.reason}" if answer.abstained and answer.reason else ""
        lines = [f"{answer.text} (confidence {answer.confidence:.2f}{reason})"]
        tree = label_tree()
        for region in answer.regions:
            edges = ", ".join(f"{edge:.0f}" for edge in region.box_xyxy)
            lines.append(f"  seen: {tree.concept_name(region.concept)}, box [{edges}], score {region.score:.2f}")
        return "\n".join(lines)


def ask(checkpoint: Path, image: OpenedImage, question: str) -> Answered:
    """Answer a question about a picture.

    Raises:
        ModelError: the checkpoint has no VQA head.
        InputError: the question is empty.
    """
    answer = VQA.load(checkpoint).answer(image.display, question, view=view_of_opened(image))
    return Answered(image.name, question, answer)


def _plain(region: Region) -> dict[str, Any]:
    return {
        "label": region.label,
        "side": region.laterality,
        "box_xyxy": [round(edge, 1) for edge in region.box_xyxy],
        "score": round(region.score or 0.0, 4),
    }


def report(checkpoint: Path, image: OpenedImage, to: str = "text", file: Path | None = None) -> str:
    """Report a picture.

    Args:
        checkpoint: Folder of a checkpoint.
        image: The picture.
        to: ``text``, ``json`` or ``html``.
        file: Where to write it; None gives text and JSON back, and writes HTML beside the working folder's other files.

    Returns:
        The report, or the path of what was written.

    Raises:
        ModelError: the checkpoint has no language part.
    """
    written = Reporter.load(checkpoint).report(image.display, view=view_of_opened(image))
    if to == "html":
        target = file or Path(f"{image.name.replace(' ', '_')}.html")
        return str(report_page(written, image.display, target))
    content = written.to_text() if to == "text" else json.dumps(written.to_json(), indent=1, ensure_ascii=False)
    if file is None:
        return content
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content + "\n", encoding="utf-8")
    return str(file)
