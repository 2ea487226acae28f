from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import ellipse, ellipse_perimeter
from small_sources import boxes, converted, noise, save

from medglip import store
from medglip.curate import convert

PART = """
converter = "mask_images"
modality = "endoscopy"
exhaustive = "all"
files = { image = "images/{case}.{ending:png|jpg|tif}", mask = "masks/{case}{number:(?:_[0-9]+)?}.{mask_ending}" }
"""
POLYP = PART + '[part.labels]\n"255" = "colorectal polyp"\n'
COLOUR = PART + 'options.kind = "colour"\n[part.labels]\n"255,0,0" = "liver"\n"0,0,255" = "pancreas"\n"255,255,0" = "kidney"\n'
POLYP_ID = "abdomen.colon.polyp"


def mask(*windows: tuple[int, int, int, int], height: int = 40, width: int = 60, value: int = 255) -> np.ndarray:
    """Rectangles (x0, y0, x1, y1) in an empty mask."""
    array = np.zeros((height, width), np.uint8)
    for x0, y0, x1, y1 in windows:
        array[y0:y1, x0:x1] = value
    return array


def colours(*windows: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> np.ndarray:
    array = np.zeros((40, 60, 3), np.uint8)
    for (x0, y0, x1, y1), colour in windows:
        array[y0:y1, x0:x1] = colour
    return array


def one(folder: Path, array: np.ndarray, part: str = POLYP, name: str = "masks/a.png", **options: object):
    save(folder, "images/a.png", noise())
    save(folder, name, array, **options)
    return converted(folder, part)


def test_every_polyp_is_a_region_with_an_exact_half_open_box(tmp_path: Path) -> None:
    result = one(tmp_path / "in", mask((5, 6, 20, 18), (30, 10, 41, 35)))
    assert boxes(result.only) == [(POLYP_ID, (5, 6, 20, 18)), (POLYP_ID, (30, 10, 41, 35))]
    assert [region.mask.area for region in result.only.regions] == [15 * 12, 11 * 25]
    assert not result.rejects
    assert result.only.exhaustive == (POLYP_ID,)


def test_an_empty_mask_is_a_negative_and_a_missing_one_is_not(tmp_path: Path) -> None:
    save(tmp_path / "in", "images/empty.png", noise())
    save(tmp_path / "in", "masks/empty.png", mask())
    save(tmp_path / "in", "images/unmarked.png", noise(30, 30))
    result = converted(tmp_path / "in", POLYP)
    assert result.records["images/empty.png"].absent == (POLYP_ID,)
    assert result.records["images/unmarked.png"].absent == ()
    assert result.records["images/unmarked.png"].exhaustive == ()
    missing = converted(tmp_path / "in", POLYP.replace("[part.labels]", 'options.missing_mask = "negative"\n[part.labels]'))
    assert missing.records["images/unmarked.png"].absent == (POLYP_ID,)


@pytest.mark.parametrize("form", ["1", "L", "RGB", "RGBA", "P", "zero_one", "16_bit", "alpha", "gif", "tif", "bmp"])
def test_a_binary_mask_may_be_stored_in_any_way(tmp_path: Path, form: str) -> None:
    array = mask((5, 6, 20, 18))
    image, name = Image.fromarray(array), "masks/a.png"
    if form in ("1", "L", "RGB", "RGBA"):
        image = image.convert(form)
    elif form == "P":
        image = Image.fromarray((array > 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    elif form == "zero_one":
        image = Image.fromarray((array > 0).astype(np.uint8))
    elif form == "16_bit":
        image = Image.fromarray(array.astype(np.uint16) * 257)
    elif form == "alpha":
        image = Image.fromarray(np.dstack([np.zeros((40, 60, 3), np.uint8), array]))
    else:
        name = f"masks/a.{form}"
    save(tmp_path / "in", "images/a.png", noise())
    (tmp_path / "in/masks").mkdir()
    image.save(tmp_path / "in" / name)
    assert boxes(converted(tmp_path / "in", POLYP).only) == [(POLYP_ID, (5, 6, 20, 18))]


def test_a_jpeg_mask_is_cut_at_128_and_leaves_no_dust(tmp_path: Path) -> None:
    result = one(tmp_path / "in", mask((8, 8, 32, 24)), name="masks/a.jpg", quality=60)
    assert boxes(result.only) == [(POLYP_ID, (8, 8, 32, 24))]
    assert result.only.flags == ()


def test_a_mask_that_never_reaches_the_threshold_is_refused_not_negative(tmp_path: Path) -> None:
    result = one(tmp_path / "in", mask((5, 6, 20, 18), value=7))
    assert result.reasons == ["unknown_label"]
    assert "7" in result.rejects[0].detail
    assert not result.records


def test_masks_of_one_label_are_joined_or_kept_apart(tmp_path: Path) -> None:
    for number, window in enumerate([(5, 6, 20, 18), (10, 10, 30, 30)]):
        save(tmp_path / "in", f"masks/a_{number}.png", mask(window))
    save(tmp_path / "in", "images/a.png", noise())
    assert boxes(converted(tmp_path / "in", POLYP).only) == [(POLYP_ID, (5, 6, 30, 30))]
    each = converted(tmp_path / "in", POLYP.replace("[part.labels]", 'options.several = "each"\n[part.labels]'))
    assert boxes(each.only) == [(POLYP_ID, (5, 6, 20, 18)), (POLYP_ID, (10, 10, 30, 30))]


def test_the_label_may_stand_in_the_name_of_the_mask_and_masks_may_overlap(tmp_path: Path) -> None:
    part = """
        converter = "mask_images"
        modality = "ct"
        files = { image = "{case:[0-9]+}_{site}.png", mask = "masks/{case:[0-9]+}_{site}_{target}.png" }
        options = { label = ["{site} {target}", "{target}"], spaces = "+" }
        labels_by_name.enabled = true
        labels = { "liver tumor" = "liver tumor" }"""
    folder = tmp_path / "in"
    save(folder, "7_liver.png", noise())
    save(folder, "masks/7_liver_left+kidney.png", mask((5, 6, 20, 18)))
    save(folder, "masks/7_liver_kidney.png", mask((5, 6, 20, 18), (30, 6, 40, 18)))
    save(folder, "masks/7_liver_tumor.png", mask((50, 20, 55, 30)))
    save(folder, "masks/7_liver_spleen.png", mask())
    save(folder, "masks/7_liver_wing.png", mask((1, 1, 9, 9)))
    result = converted(folder, part)
    assert sorted(boxes(result.only)) == [
        ("abdomen.kidney", (5, 6, 40, 18)), ("abdomen.kidney@left", (5, 6, 20, 18)), ("abdomen.liver.tumor", (50, 20, 55, 30)),
    ]  # fmt: skip
    assert result.reasons == ["unknown_label"]
    assert "wing" in result.rejects[0].detail
    assert result.only.absent == ()  # an unknown mask leaves everything in doubt


def test_an_empty_file_for_a_label_says_that_it_is_not_there(tmp_path: Path) -> None:
    part = PART.replace("{number:(?:_[0-9]+)?}", "_{target}").replace('exhaustive = "all"\n', "")
    part += 'options = { label = "{target}" }\nlabels_by_name.enabled = true'
    save(tmp_path / "in", "images/a.png", noise())
    save(tmp_path / "in", "masks/a_liver.png", mask((5, 6, 20, 18)))
    save(tmp_path / "in", "masks/a_spleen.png", mask())
    assert converted(tmp_path / "in", part).only.absent == ("abdomen.spleen",)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    result = one(tmp_path / "in", mask((1, 1, 9, 9), height=20, width=30))
    assert result.reasons == ["size_mismatch"]
    assert not result.records
    assert "30 x 20" in result.rejects[0].detail
    assert "60 x 40" in result.rejects[0].detail


def test_a_mask_of_another_size_is_scaled_on_demand_where_the_aspect_agrees(tmp_path: Path) -> None:
    part = POLYP.replace("[part.labels]", 'options.resize_mask = "nearest"\n[part.labels]')
    assert boxes(one(tmp_path / "in", mask((1, 2, 9, 9), height=20, width=30), part).only) == [(POLYP_ID, (2, 4, 18, 18))]
    assert one(tmp_path / "other", mask((1, 2, 9, 9), height=30, width=30), part).reasons == ["size_mismatch"]


def test_one_bad_mask_of_two_leaves_the_other_but_nothing_is_complete(tmp_path: Path) -> None:
    save(tmp_path / "in", "masks/a_1.png", mask(height=10, width=10))
    result = one(tmp_path / "in", mask((5, 6, 20, 18)))
    assert boxes(result.only) == [(POLYP_ID, (5, 6, 20, 18))]
    assert result.only.exhaustive == ()
    assert result.reasons == ["size_mismatch"]


def test_orphans_duplicates_and_broken_files_are_listed_and_the_rest_is_converted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save(folder, "images/b.png", noise())
    save(folder, "images/b.jpg", noise())
    save(folder, "masks/nobody.png", mask())
    save(folder, "images/._a.png", noise())
    (folder / "images/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(folder, "images/broken_mask.png", noise())
    save(folder, "images/flat.png", mask())
    (folder / "masks").mkdir(exist_ok=True)
    (folder / "masks/broken_mask.png").write_bytes(b"")
    result = one(folder, mask((5, 6, 20, 18)))
    assert result.reasons == ["constant_image", "duplicate_case", "orphan", "unreadable_file", "unreadable_file"]
    assert set(result.records) == {"images/a.png", "images/b.jpg"}


def test_colours_are_classes_and_paired_organs_may_be_kept_apart(tmp_path: Path) -> None:
    yellow = (255, 255, 0)
    array = colours(((2, 2, 20, 30), (255, 0, 0)), ((25, 5, 30, 10), yellow), ((40, 5, 50, 12), yellow))
    result = one(tmp_path / "in", array, COLOUR)
    kidney = [entry for entry in boxes(result.only) if entry[0] == "abdomen.kidney"]
    assert kidney == [("abdomen.kidney", (25, 5, 50, 12))]
    assert result.only.absent == ("abdomen.pancreas",)
    apart = COLOUR.replace('"colour"', '"colour"\noptions.apart = ["255,255,0"]')
    kidneys = [box for concept, box in boxes(one(tmp_path / "in", array, apart).only) if concept == "abdomen.kidney"]
    assert kidneys == [(25, 5, 30, 10), (40, 5, 50, 12)]


def test_an_unknown_colour_is_named_and_the_other_classes_stay(tmp_path: Path) -> None:
    array = colours(((2, 2, 20, 30), (255, 0, 0)), ((30, 5, 40, 15), (10, 200, 180)))
    result = one(tmp_path / "in", array, COLOUR)
    assert boxes(result.only) == [("abdomen.liver", (2, 2, 20, 30))]
    assert result.reasons == ["unknown_label"]
    for word in ("masks/a.png", "(10, 200, 180)", "100 pixels", "nearest known"):
        assert word in result.rejects[0].detail
    assert result.only.absent == ()
    assert result.only.exhaustive == ()


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_blurred_edge_is_not_an_unknown_colour(tmp_path: Path, ending: str) -> None:
    small = colours(((4, 4, 30, 30), (255, 0, 0)), ((30, 10, 50, 30), (0, 0, 255)))
    blurred = np.asarray(Image.fromarray(small).resize((180, 120), Image.Resampling.BICUBIC))
    save(tmp_path / "in", "images/a.png", noise(120, 180))
    save(tmp_path / "in", f"masks/a.{ending}", blurred, **({"quality": 70} if ending == "jpg" else {}))
    result = converted(tmp_path / "in", COLOUR)
    assert not result.rejects
    assert [concept for concept, _ in boxes(result.only)] == ["abdomen.liver", "abdomen.pancreas"]
    for (_, box), truth in zip(boxes(result.only), [(12, 12, 90, 90), (90, 30, 150, 90)], strict=True):
        assert np.abs(np.subtract(box, truth)).max() <= 2


def test_numbers_are_classes_also_through_a_palette(tmp_path: Path) -> None:
    part = PART + 'options.kind = "indexed"\n[part.labels]\n"1" = "liver"\n"2" = "spleen"\n"9" = "skip"\n'
    array = mask((2, 2, 10, 10), value=1) + mask((20, 2, 30, 10), value=2) + mask((40, 2, 50, 10), value=9)
    image = Image.fromarray(array, "P")
    image.putpalette(list(np.random.default_rng(0).integers(0, 255, 768)))
    save(tmp_path / "in", "images/a.png", noise())
    (tmp_path / "in/masks").mkdir()
    image.save(tmp_path / "in/masks/a.png")
    result = converted(tmp_path / "in", part)
    assert boxes(result.only) == [("abdomen.liver", (2, 2, 10, 10)), ("abdomen.spleen", (20, 2, 30, 10))]
    assert not result.rejects
    unknown = one(tmp_path / "other", array + mask((2, 20, 4, 22), value=77), part)
    assert unknown.reasons == ["unknown_label"]
    assert "4 pixels of the value 77" in unknown.rejects[0].detail
    assert "nearest known: 9" in unknown.rejects[0].detail
    assert len(unknown.only.regions) == 2
    red = one(tmp_path / "red", colours(((2, 2, 9, 9), (255, 0, 0))), part)
    assert red.reasons == ["colour_mask"]


def test_touching_objects_with_numbers_of_their_own_stay_apart(tmp_path: Path) -> None:
    part = PART + 'options = { kind = "instances", label = "gland" }\nlabels_by_name.enabled = true'
    array = mask((2, 2, 10, 10), value=1).astype(np.uint16) + 300 * mask((10, 2, 30, 10), value=1).astype(np.uint16)
    result = one(tmp_path / "in", array, part)
    assert boxes(result.only) == [("systemic.gland", (2, 2, 10, 10)), ("systemic.gland", (10, 2, 30, 10))]


def test_an_outline_is_filled(tmp_path: Path) -> None:
    part = PART + 'options.kind = "outline"\n[part.labels]\n"255" = "fetal head"\n'
    line, inside = np.zeros((100, 120), np.uint8), np.zeros((100, 120), bool)
    line[ellipse_perimeter(50, 60, 30, 45)] = 255
    inside[ellipse(50, 60, 30.5, 45.5)] = True
    save(tmp_path / "in", "images/a.png", noise(100, 120))
    save(tmp_path / "in", "masks/a.png", line)
    (region,) = converted(tmp_path / "in", part).only.regions
    assert region.box_xyxy == (15, 20, 106, 81)
    assert abs(region.mask.area - inside.sum()) < 0.03 * inside.sum()
    line[:, 80:] = 0  # the head passes the border of the picture
    save(tmp_path / "in", "masks/a.png", line)
    (region,) = converted(tmp_path / "in", part).only.regions
    assert region.box_xyxy == (15, 20, 80, 81)
    assert "uncertain" in region.flags


def test_an_inverted_or_soft_mask_is_flagged(tmp_path: Path) -> None:
    inverted = 255 - mask((28, 18, 32, 22))
    assert "maybe_inverted" in one(tmp_path / "in", inverted).only.flags
    soft = mask((5, 5, 25, 25), value=150)
    assert "soft_mask" in one(tmp_path / "soft", soft).only.flags


def test_a_union_of_rings_is_a_region_beside_them(tmp_path: Path) -> None:
    part = (
        PART
        + """options = { kind = "indexed", derived = { "optic disc" = ["0", "128"] } }
        [part.labels]
        "0" = "optic cup"
        "128" = "skip"
        "255" = "skip"
        """
    )
    rings = 255 - mask((10, 10, 30, 30), value=127)  # the rim, 128
    rings[15:25, 15:25] = 0
    disc, cup = "head_neck.eye.optic_disc", "head_neck.eye.optic_cup"
    result = one(tmp_path / "in", rings, part)
    assert sorted(boxes(result.only)) == [(cup, (15, 15, 25, 25)), (disc, (10, 10, 30, 30))]
    assert {region.concept: region.mask.area for region in result.only.regions} == {cup: 100, disc: 400}
    single = one(tmp_path / "single", rings, part.replace("options = {", 'options = { several = "each",'))
    assert "derived" in single.rejects[0].detail
    assert not single.records


def test_masks_named_by_a_pattern_of_skip_are_left_out(tmp_path: Path) -> None:
    part = PART.replace("{number:(?:_[0-9]+)?}", "_{target}").replace('exhaustive = "all"\n', "")
    part += 'options = { label = "{target}", skip = ["union_*"] }\nlabels_by_name.enabled = true'
    save(tmp_path / "in", "masks/a_union_of_all.png", mask((1, 1, 50, 30)))
    result = one(tmp_path / "in", mask((5, 6, 20, 18)), part, name="masks/a_liver.png")
    assert boxes(result.only) == [("abdomen.liver", (5, 6, 20, 18))]
    assert not result.rejects


def test_masks_of_the_sets_that_are_inverted_are_turned(tmp_path: Path) -> None:
    part = """
        converter = "mask_images"
        modality = "fundus"
        exhaustive = "all"
        files = { image = "{set}/{case}.png", mask = "{set}/masks/{case}.png" }
        options.inverted = { set = ["dark"] }
        labels = { "255" = "optic disc" }"""
    for folder, array in (("dark", 255 - mask((5, 6, 20, 18))), ("light", mask((5, 6, 20, 18)))):
        save(tmp_path / "in", f"{folder}/a.png", noise())
        save(tmp_path / "in", f"{folder}/masks/a.png", array)
    result = converted(tmp_path / "in", part)
    assert [boxes(record) for record in result.records.values()] == [[("head_neck.eye.optic_disc", (5, 6, 20, 18))]] * 2
    assert all(record.flags == () for record in result.records.values())


@pytest.mark.parametrize("side", ["left", "right", "above"])
def test_a_mask_may_lie_beside_its_picture(tmp_path: Path, side: str) -> None:
    part = 'converter = "mask_images"\nmodality = "oct"\nexhaustive = "all"\nfiles = { image = "{case}.png" }\n'
    part += f'options = {{ beside = "{side}" }}\nlabels = {{ "255" = "retina" }}'
    halves = [noise(), mask((5, 6, 20, 18))]
    save(tmp_path / "in", "a.png", np.hstack(halves if side == "right" else halves[::-1]))
    result = converted(tmp_path / "in", part)
    if side == "above":
        assert "'above'; allowed: left, right" in result.rejects[0].detail
        return
    assert boxes(result.only) == [("head_neck.eye.retina", (5, 6, 20, 18))]
    assert np.array_equal(result.pictures[0].pixels, noise())


def test_colours_that_jpeg_moved_evenly_are_known_and_others_are_not(tmp_path: Path) -> None:
    green = PART + 'options.kind = "colour"\n[part.labels]\n"0,255,0" = "liver"\n'
    array = colours(((8, 8, 24, 24), (0, 255, 0)))
    result = one(tmp_path / "in", array, green, name="masks/a.jpg", quality=95, subsampling=0)
    assert boxes(result.only) == [("abdomen.liver", (8, 8, 24, 24))]
    assert not result.rejects
    near = colours(((8, 8, 24, 24), (0, 250, 4)))
    assert one(tmp_path / "near", near, green).reasons == ["unknown_label"]  # PNG moves nothing
    other = colours(((8, 8, 24, 24), (0, 255, 0)), ((32, 8, 48, 24), (0, 200, 60)))
    assert one(tmp_path / "other", other, green, name="masks/a.jpg", quality=95, subsampling=0).reasons == ["unknown_label"]


def test_unclear_pixels_are_counted_over_those_inside(tmp_path: Path) -> None:
    array = mask((8, 8, 24, 24))
    array[8:24, 24:28] = 100
    assert one(tmp_path / "in", array).only.modality_detail == {"ambiguous_mask_pixels": "0.250"}
    assert one(tmp_path / "clear", mask((8, 8, 24, 24))).only.modality_detail == {}


def test_masks_of_frames_give_a_picture_a_frame(tmp_path: Path) -> None:
    part = """
        converter = "mask_images"
        modality = "ultrasound"
        exhaustive = "all"
        patient = "{case}"
        files = { image = "{case}.tif", mask = "{case}_f{frame:[0-9]+}.png" }
        labels = { "255" = "fetal head" }"""
    folder = tmp_path / "in"
    frames = [Image.fromarray(noise() // (number + 1)) for number in range(4)]
    folder.mkdir()
    frames[0].save(folder / "clip.tif", save_all=True, append_images=frames[1:])
    save(folder, "clip_f001.png", mask((5, 6, 20, 18)))
    save(folder, "clip_f003.png", mask())
    result = converted(folder, part)
    first, second = (picture.record for picture in result.pictures)
    assert (first.origin.frame, second.origin.frame) == (1, 3)
    assert (len(first.regions), second.absent) == (1, ("pelvis.fetus.head",))
    assert first.group == second.group
    assert np.array_equal(result.pictures[0].pixels, np.asarray(frames[1]))


def test_a_wrong_kind_is_named(tmp_path: Path) -> None:
    result = one(tmp_path / "in", mask(), PART + 'options.kind = "rainbow"\n[part.labels]\n"255" = "liver"')
    assert "'rainbow'; allowed: binary" in result.rejects[0].detail


def test_the_source_of_the_guide_works_as_it_stands_there(tmp_path: Path) -> None:
    """Frames of a video in a file each, whose masks are named alike: the number is no frame of a multi-frame file."""
    guide = Path(__file__).resolve().parents[2] / "docs/guide/convert.md"
    source = tmp_path / "my_polyps.toml"
    source.write_text(guide.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    for name, windows in (("a_0", [(5, 6, 20, 18)]), ("a_1", []), ("b_0", [(8, 8, 32, 24)])):
        save(tmp_path / "in", f"frames/{name}.png", noise())
        save(tmp_path / "in", f"masks/{name}.png", mask(*windows))
    result = convert(source, tmp_path / "in", tmp_path / "dataset")
    assert (result.images, result.regions, result.rejects.total()) == (3, 2, 0)
    records = list(store.open(tmp_path / "dataset").records())  # in no known order: names of private sources are hashed
    (negative,) = (record for record in records if record.absent)
    assert sum(record.group == negative.group for record in records) == 2
    assert len({record.group for record in records}) == 2
