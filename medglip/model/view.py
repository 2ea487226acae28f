"""Views of an image: which part of it lies where on the model's square canvas, and how bright. Knows no labels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class View:
    """How an image is put on a square canvas: canvas = image * scale + shift, mirrored last.

    Attributes:
        size: Side of the canvas in pixels.
        scale: (x, y) canvas pixels per image pixel.
        shift: (x, y) of the image's corner on the canvas.
        mirrored: Left and right of the canvas are swapped.
        contrast: Factor around mid grey.
        brightness: Added, in units of the full range.
    """

    size: int
    scale: tuple[float, float]
    shift: tuple[float, float]
    mirrored: bool = False
    contrast: float = 1.0
    brightness: float = 0.0

    def boxes_on_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (G, 4) xyxy of the image as xyxy of the canvas, not clipped."""
        placed = boxes * np.array(self.scale * 2, np.float32) + np.array(self.shift * 2, np.float32)
        if self.mirrored:
            placed[:, [0, 2]] = self.size - placed[:, [2, 0]]
        return placed.astype(np.float32)

    def boxes_in_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (G, 4) xyxy of the canvas as xyxy of the image, not clipped."""
        placed = np.array(boxes, np.float32)
        if self.mirrored:
            placed[:, [0, 2]] = self.size - placed[:, [2, 0]]
        return (placed - np.array(self.shift * 2, np.float32)) / np.array(self.scale * 2, np.float32)

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The canvas.

        Args:
            image: (H, W) or (H, W, 3) uint8.

        Returns:
            (3, size, size) uint8; 0 where the image does not reach.
        """
        height, width = image.shape[:2]
        x0, y0, x1, y1 = self._seen(width, height)
        left, top = round(x0 * self.scale[0] + self.shift[0]), round(y0 * self.scale[1] + self.shift[1])
        right, bottom = round(x1 * self.scale[0] + self.shift[0]), round(y1 * self.scale[1] + self.shift[1])
        # PIL's bilinear filter widens with the scale, so that shrinking does not alias.
        part = Image.fromarray(image).resize(
            (max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)
        )
        pixels = np.asarray(part, np.uint8)
        if self.contrast != 1.0 or self.brightness != 0.0:
            level = np.arange(256, dtype=np.float32)
            table = (level - 127.5) * self.contrast + 127.5 + 255 * self.brightness
            pixels = table.clip(0, 255).astype(np.uint8)[pixels]
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels if pixels.ndim == 3 else pixels[:, :, None]
        return np.ascontiguousarray((canvas[:, ::-1] if self.mirrored else canvas).transpose(2, 0, 1))

    def map_in_image(self, values: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
        """A map of the canvas, such as a mask's probability, as it lies on the image.

        Args:
            values: (size / stride, size / stride) float32.
            stride: Canvas pixels a cell.
            size: (width, height) of the image.

        Returns:
            (height, width) float32, bilinear; the nearest cell's value where the image leaves the canvas.
        """
        x0, y0, x1, y1 = self._seen(*size)
        (across, down), (right_by, down_by) = self.scale, self.shift
        box = ((x0 * across + right_by) / stride, (y0 * down + down_by) / stride,
               (x1 * across + right_by) / stride, (y1 * down + down_by) / stride)  # fmt: skip
        values = np.asarray(values, np.float32)
        values = values[:, ::-1] if self.mirrored else values
        left, top, right, bottom = round(x0), round(y0), round(x1), round(y1)
        shape = (max(1, right - left), max(1, bottom - top))
        part = np.asarray(Image.fromarray(values).resize(shape, Image.Resampling.BILINEAR, box=box))
        return np.pad(part, ((top, size[1] - top - part.shape[0]), (left, size[0] - left - part.shape[1])), mode="edge")

    def _seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of the image that lies on the canvas, xyxy of the image."""
        x0, y0 = max(0.0, -self.shift[0] / self.scale[0]), max(0.0, -self.shift[1] / self.scale[1])
        x1 = min(float(width), (self.size - self.shift[0]) / self.scale[0])
        y1 = min(float(height), (self.size - self.shift[1]) / self.scale[1])
        return x0, y0, x1, y1


def fitted(width: int, height: int, size: int) -> View:
    """The whole image, as large as the canvas allows, in its middle."""
    scale = size / max(width, height)
    return View(size, (scale, scale), ((size - width * scale) / 2, (size - height * scale) / 2))
