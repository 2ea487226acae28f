"""Tiny volume and image files of every format; knows no mutations."""

import io
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import tifffile
from fuzz_seeds import HEAD, Seed, mask, noise, picture, saved, tree_of

VOLUMES_TOML = (
    HEAD
    + """converter = "label_volumes"
modality = "ct"
files = {{ image = "{{case}}_ct{ending}", labels = "{{case}}_seg{ending}" }}
labels = {{ "1" = "liver", "2" = "spleen" }}
"""
)
SAME_VOLUME_TOML = VOLUMES_TOML.format(ending="{ending:.+}")
BINARY_TOML = (
    HEAD
    + """converter = "binary_volumes"
modality = "ct"
labels_by_name = { enabled = true }
files = { image = "{case}/ct.nii.gz", mask = "{case}/masks/{label}.nii.gz" }
"""
)
MASKS_TOML = (
    HEAD
    + """converter = "mask_images"
modality = "endoscopy"
files = { image = "images/{case}.{ending:[a-z]+}", mask = "masks/{case}.{mask_ending:[a-z]+}" }
labels = { "255" = "colorectal polyp" }
"""
)
PICTURES_TOML = (
    HEAD
    + """converter = "mask_images"
modality = "endoscopy"
files = { image = "images/{case}.{ending:[a-z]+}" }
"""
)
INDEXED_TOML = MASKS_TOML.replace("files = {", 'options = { kind = "indexed" }\nfiles = {').replace(
    '"255" = "colorectal polyp"', '"1" = "liver", "2" = "spleen"'
)
COLOUR_TOML = MASKS_TOML.replace("files = {", 'options = { kind = "colour" }\nfiles = {').replace('"255"', '"255,0,0"')
AFFINE = np.diag([-1.5, -1.5, 4.0, 1.0])


def nifti(array: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    """A packed NIfTI file."""
    return saved(lambda path: nibabel.save(nibabel.Nifti1Image(array, affine), path), "a.nii.gz")


def anatomy() -> tuple[np.ndarray, np.ndarray]:
    """CT and labels, (i, j, k)."""
    labels = np.zeros((10, 8, 4), np.uint8)
    labels[2:6, 2:6, 1:3], labels[7:9, 5:7, 2] = 1, 2
    image = np.random.default_rng(0).integers(-50, 50, labels.shape).astype(np.int16)
    image[:, 0] = -1000
    return image, labels


def volume_seeds() -> list[Seed]:
    """NIfTI in four forms, MGH, NRRD, MetaImage: the image, or its labels."""
    image, labels = anatomy()
    seeds = []
    for ending in (".nii", ".nii.gz", ".mgz", ".nrrd", ".mha"):
        for role in ("ct", "seg"):
            files = {f"a_{part}{ending}": _volume(array, f"a{ending}") for part, array in (("ct", image), ("seg", labels))}
            family = "nifti" if ".nii" in ending else "header" if ending in (".nrrd", ".mha") else ""
            seeds.append(Seed(f"{ending[1:]} {'image' if role == 'ct' else 'labels'}", files, f"a_{role}{ending}",
                              VOLUMES_TOML.format(ending=ending), family))  # fmt: skip

    def pair(folder: Path) -> None:
        nibabel.save(nibabel.Nifti1Pair(image, AFFINE), folder / "a_ct.img")
        nibabel.save(nibabel.Nifti1Pair(labels, AFFINE), folder / "a_seg.img")

    seeds.append(Seed("hdr and img", tree_of(pair), "a_ct.hdr", VOLUMES_TOML.format(ending=".hdr"), "nifti"))
    whole = {"p1/ct.nii.gz": nifti(image), "p1/masks/liver.nii.gz": nifti((labels == 1).astype(np.uint8))}
    seeds.append(Seed("nii.gz mask", whole, "p1/masks/liver.nii.gz", BINARY_TOML, "nifti"))
    four = nifti(np.stack([image, image + 3], axis=-1).astype(np.float32))
    seeds.append(Seed("nii.gz of four dimensions", {"a_ct.nii.gz": four, "a_seg.nii.gz": nifti(labels)}, "a_ct.nii.gz",
                      VOLUMES_TOML.format(ending=".nii.gz") + "options = { index = 1 }\n", "nifti"))  # fmt: skip
    return seeds


def _volume(array: np.ndarray, name: str) -> bytes:
    if name.endswith((".nrrd", ".mha")):
        made = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
        made.SetSpacing((1.5, 1.5, 4.0))
        return saved(lambda path: SimpleITK.WriteImage(made, str(path)), name)
    if name.endswith(".mgz"):
        return saved(lambda path: nibabel.save(nibabel.MGHImage(array.astype(np.int32), AFFINE), path), name)
    return saved(lambda path: nibabel.save(nibabel.Nifti1Image(array, AFFINE), path), name)


def raster_seeds() -> list[Seed]:
    """Images in every format, and masks of every kind."""
    grey, deep = noise(), noise(kind=np.uint16)
    colour = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    pages, tiled, slide = io.BytesIO(), io.BytesIO(), io.BytesIO()
    tifffile.imwrite(pages, np.stack([grey, 255 - grey]), photometric="minisblack")
    tifffile.imwrite(tiled, noise(40, 50, np.uint16), tile=(16, 16), compression="zlib")
    tifffile.imwrite(slide, np.kron(colour, np.ones((2, 2, 1), np.uint8)), tile=(16, 16), photometric="rgb", bigtiff=True)
    from PIL import Image

    moving = io.BytesIO()
    Image.fromarray(grey).save(moving, format="GIF", save_all=True, append_images=[Image.fromarray(255 - grey)])
    images = {
        "png": (picture(grey, "PNG"), "png"), "png 16 bit": (picture(deep, "PNG"), "png"),
        "png colour": (picture(colour, "PNG"), "png"), "jpg": (picture(colour, "JPEG", quality=90), "jpg"),
        "tif": (picture(colour, "TIFF", compression="tiff_lzw"), "tif"), "tif of pages": (pages.getvalue(), "tif"),
        "tif of tiles": (tiled.getvalue(), "tif"), "BigTIFF": (slide.getvalue(), "tif"),
        "gif": (moving.getvalue(), "gif"), "bmp": (picture(colour, "BMP"), "bmp"),
    }  # fmt: skip
    marks, sizes = picture(mask(), "PNG"), {"tif of tiles": (40, 50), "BigTIFF": (40, 60)}
    seeds = [
        Seed(kind, {f"images/a.{ending}": content, "masks/a.png": picture(mask(*sizes.get(kind, (20, 30))), "PNG")},
             f"images/a.{ending}", MASKS_TOML,
             "png" if ending == "png" else "tiff" if ending == "tif" else "")
        for kind, (content, ending) in images.items()
    ]  # fmt: skip
    numbered = Image.fromarray((mask() // 255).astype(np.uint8), mode="L").convert("P")
    numbered.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette = io.BytesIO()
    numbered.save(palette, format="PNG")
    red = np.zeros((20, 30, 3), np.uint8)
    red[mask() > 0] = (255, 0, 0)
    masks = {"png mask": (marks, MASKS_TOML), "png palette mask": (palette.getvalue(), INDEXED_TOML),
             "png colour mask": (picture(red, "PNG"), COLOUR_TOML)}  # fmt: skip
    whole = picture(grey, "PNG")
    seeds += [Seed(kind, {"images/a.png": whole, "masks/a.png": content}, "masks/a.png", toml, "png")
              for kind, (content, toml) in masks.items()]  # fmt: skip
    return seeds
