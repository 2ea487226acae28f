"""What is known of a picture besides its pixels: modality, plane, directions, spacing. Knows no regions."""

from dataclasses import dataclass, field

from medglip.language.places import IMAGE_AXES, Axes, patient_axes
from medglip.records import ImageRecord


@dataclass(frozen=True, slots=True)
class ImageView:
    """What is known of the picture itself.

    Attributes:
        width: Columns.
        height: Rows.
        modality: One of the record's modalities, or None.
        plane: axial, coronal, sagittal, or None.
        axes: Words toward (first, last column) and (first, last row); patient's directions where known.
        spacing_mm: (row, column) pitch, or None.
        spacing_source: Where the spacing came from, or None.
        body_region: Id of the label tree's top level, or None.
        detail: Sequence, view and the like.
    """

    width: int
    height: int
    modality: str | None = None
    plane: str | None = None
    axes: Axes = IMAGE_AXES
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    body_region: str | None = None
    detail: dict[str, str] = field(default_factory=dict)

    @property
    def side_letters(self) -> tuple[str, str] | None:
        """Letters of the patient's sides at the left and right edge of the image, or None where they are unknown.

        Known from the affine; by convention for frontal radiographs of the trunk (the patient faces the viewer).
        """
        if set(self.axes[0]) == {"left", "right"}:
            return ("R", "L") if self.axes[0][0] == "right" else ("L", "R")
        view = self.detail.get("view", "").lower()
        trunk = self.body_region in ("thorax", "abdomen", "pelvis") and not view.startswith(("l", "obl"))
        frontal = view in ("pa", "ap", "ap supine", "frontal")
        return ("R", "L") if self.modality == "xray" and (trunk or frontal) else None


def view_of_record(record: ImageRecord) -> ImageView:
    """The view of a stored image."""
    axes, plane = patient_axes(record.affine_px_to_mm)
    return ImageView(
        width=record.width, height=record.height, modality=record.modality, plane=plane, axes=axes,
        spacing_mm=record.spacing_mm, spacing_source=record.spacing_source, body_region=record.body_region,
        detail=dict(record.modality_detail),
    )  # fmt: skip
