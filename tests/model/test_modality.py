"""Conditioning on the modality: the identity at first, exact in mixed batches, each modality learns for itself alone."""

import importlib.util
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d, gelu

from medglip.errors import ModelError
from medglip.model.modality import NECK, WAYS, ModalityAdapter, ModalityConditioning, ModalityStems

NAMES = ("ct", "mr", "xray", "fundus")
CHANNELS, WIDTH, LEVELS = (6, 8, 12, 20), 16, 2
MIXED = ("xray", None, "ct", "ct", "mr", "no such thing")


def conditioning(ways=WAYS, learned=False):
    torch.manual_seed(0)
    made = ModalityConditioning(NAMES, WIDTH, CHANNELS, LEVELS, ways)
    if learned:
        for value in made.parameters():
            torch.nn.init.normal_(value, std=0.3)
    return made


@pytest.fixture
def images():
    return torch.rand(len(MIXED), 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps():
    random = torch.Generator().manual_seed(2)
    sides = (16, 8, 4, 2)
    return [torch.randn(len(MIXED), inner, side, side, generator=random) for inner, side in zip(CHANNELS, sides, strict=True)]


@pytest.fixture
def levels():
    random = torch.Generator().manual_seed(3)
    return [torch.randn(len(MIXED), WIDTH, side, side, generator=random) for side in (8, 4)]


@pytest.fixture
def words():
    return torch.randn(len(MIXED), 5, WIDTH, generator=torch.Generator().manual_seed(4))


def everything(made, maps, levels, words, images, names):
    index = made.index(names)
    return [*made.on_maps(maps, index, images), *made.on_levels(levels, index), made.on_words(words, index)]


@pytest.mark.parametrize("ways", [some for count in range(5) for some in combinations(WAYS, count)], ids="+".join)
def test_every_set_of_ways_is_the_identity_at_first(ways, maps, levels, words, images):
    made = conditioning(ways)
    given = [*maps, *levels, words]
    assert all(torch.equal(*pair) for pair in zip(everything(made, maps, levels, words, images, MIXED), given, strict=True))
    assert made.needs_images == ("encoder" in ways)
    parts = {name.partition(".")[0] for name, _ in made.named_parameters()}
    assert parts == set(ways)


def test_each_way_changes_its_own_part_alone(maps, levels, words, images):
    given = [*maps, *levels, words]
    places = {"adapter": {0, 1, 2, 3}, "encoder": {0, 1}, "film": {4, 5}, "prompt": {6}}
    for way, places_of_way in places.items():
        found = everything(conditioning((way,), learned=True), maps, levels, words, images, MIXED)
        changed = {place for place, pair in enumerate(zip(found, given, strict=True)) if not torch.equal(*pair)}
        assert changed == places_of_way, way


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_a_mixed_batch_answers_as_its_images_do_alone(maps, levels, words, images, dtype, exact):
    made = conditioning(learned=True).to(dtype)
    given = [part.to(dtype) for part in (*maps, *levels, words, images)]
    together = everything(made, given[:4], given[4:6], *given[6:], MIXED)
    for row, name in enumerate(MIXED):
        own = [part[row : row + 1] for part in given]
        alone = everything(made, own[:4], own[4:6], *own[6:], [name])
        for whole, part in zip(together, alone, strict=True):
            assert (whole[row] - part[0]).abs().max() <= exact * part.abs().max()


def test_modalities_differ_once_learned_and_unknown_is_one_of_them(maps, levels, words, images):
    made = conditioning(learned=True)
    same = [part[:1].expand_as(part) for part in (*maps, *levels, words, images)]
    found = everything(made, same[:4], same[4:6], same[6], same[7], ("ct", "mr", "xray", "fundus", None, "no such thing"))
    for part in found:
        assert torch.allclose(part[4], part[5], rtol=1e-6, atol=1e-6)  # both unknown
        for one, other in combinations(range(5), 2):
            assert not torch.allclose(part[one], part[other], atol=1e-2)


def test_no_modality_is_moved_by_the_images_of_another(maps, levels, words, images):
    made = conditioning(learned=True)
    sum(part.square().mean() for part in everything(made, maps, levels, words, images, MIXED)).backward()
    for name, value in made.named_parameters():
        moved = [bool(row.any()) for row in value.grad]
        assert moved == [True, True, True, True, False], name  # unknown, ct, mr, xray; there is no fundus


def test_from_the_identity_every_way_learns(maps, levels, words, images):
    made = conditioning()
    before = {name: value.clone() for name, value in made.named_parameters()}
    for _ in range(2):  # the last layers are zero, so what lies before them has a gradient from the second step on
        made.zero_grad()
        sum(part.square().mean() for part in everything(made, maps, levels, words, images, MIXED)).backward()
        with torch.no_grad():
            for value in made.parameters():
                value.sub_(0.1 * value.grad)
    assert [name for name, value in made.named_parameters() if torch.equal(value, before[name])] == []


def test_an_adapter_is_what_convolutions_make_of_each_image(maps):
    adapter = ModalityAdapter(5, CHANNELS[1])
    for value in adapter.parameters():
        torch.nn.init.normal_(value, std=0.3)
    found = adapter(maps[1], torch.tensor([3, 0, 1, 1, 2, 0]))
    for row, kind in enumerate([3, 0, 1, 1, 2, 0]):
        x = conv2d(maps[1][row : row + 1], adapter.down[kind][:, :, None, None], adapter.down_bias[kind])
        x = gelu(conv2d(x, adapter.spread[kind].view(NECK, 1, 3, 3), adapter.spread_bias[kind], padding=1, groups=NECK))
        x = conv2d(x, adapter.up[kind][:, :, None, None], adapter.up_bias[kind])
        assert torch.allclose(found[row], (maps[1][row : row + 1] + x)[0], atol=1e-5)


def test_a_stem_by_hand():
    stems = ModalityStems(3, (6, 8))
    with torch.no_grad():
        for value in stems.parameters():
            value.zero_()
        # The middle of each kernel passes the first channel on; modality 2 doubles it in the last layer.
        for weight in stems.weight:
            weight[:, 0, 4] = 1  # row 1, column 1 of input channel 0
        for out in stems.out:
            out[1, 0, 0], out[2, 0, 0] = 1, 2
    images = torch.rand(3, 3, 16, 16)
    fine, coarse = stems(images, torch.tensor([2, 0, 1]))
    seen = gelu(gelu(images[:, :1, ::4, ::4] * 2 - 1))
    assert fine.shape == (3, 6, 4, 4)
    assert coarse.shape == (3, 8, 2, 2)
    assert torch.allclose(fine[:, :1], seen * torch.tensor([2.0, 0, 1])[:, None, None, None], atol=1e-6)
    assert torch.allclose(coarse[:, :1], gelu(seen[..., ::2, ::2]) * torch.tensor([2.0, 0, 1])[:, None, None, None], atol=1e-6)
    assert not fine[:, 1:].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_does_not_matter(maps, images, layout):
    made, index = conditioning(learned=True), torch.tensor([1, 2, 3, 4, 0, 1])
    made.to(memory_format=layout)
    found = made.on_maps([x.contiguous(memory_format=layout) for x in maps], index, images.contiguous(memory_format=layout))
    for one, other in zip(found, made.on_maps(maps, index, images), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_bfloat16_keeps_types_and_the_identity(maps, levels, words, images):
    given = [part.bfloat16() for part in (*maps, *levels, words)]
    with torch.autocast("cpu", torch.bfloat16):
        found = everything(conditioning(), given[:4], given[4:6], given[6], images, MIXED)
        learned = everything(conditioning(learned=True), given[:4], given[4:6], given[6], images, MIXED)
    exact = everything(conditioning(learned=True), maps, levels, words, images, MIXED)
    for part, before, after, truth in zip(found, given, learned, exact, strict=True):
        assert part.dtype == after.dtype == torch.bfloat16
        assert torch.equal(part, before)
        assert (after.float() - truth).abs().max() < 0.03 * truth.abs().max()


def test_tables_of_earlier_checkpoints_fit():
    names = {name: tuple(value.shape) for name, value in conditioning(("prompt", "film")).named_parameters()}
    assert names == {"prompt.weight": (5, 16), "film.0.weight": (5, 32), "film.1.weight": (5, 32)}


@pytest.mark.parametrize("wrong", [None, torch.zeros(0), torch.zeros(6, 3, 32, 32)])
def test_stems_ask_for_pixels(maps, wrong):
    with pytest.raises(ModelError, match=r"encoder.*\(6, 3, 64, 64\)"):
        conditioning(("encoder",)).on_maps(maps, torch.zeros(6, dtype=torch.long), wrong)
    assert conditioning(("adapter",)).on_maps(maps, torch.zeros(6, dtype=torch.long), wrong)[0].shape == maps[0].shape


def test_unknown_way_is_refused():
    with pytest.raises(ModelError, match="adaptor"):
        conditioning(("film", "adaptor"))


def test_the_benchmark_pairs_runs_by_seed():
    path = Path(__file__).resolve().parents[2] / "benchmarks/modality.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_modality", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    figures = {("none", 0): 0.5, ("none", 1): 0.7, ("film", 0): 0.6, ("film", 1): 0.6, ("film", 2): 0.9, ("all", 1): 0.8}
    runs = [{"way": way, "seed": seed, "right": {"ap50": value}} for (way, seed), value in figures.items()]
    # +0.1 and -0.1: mean 0, standard deviation sqrt(0.02), standard error 0.1; seed 2 has no partner.
    assert benchmark.paired(runs, "film", "ap50") == pytest.approx((0.0, 0.1, 2))
    assert benchmark.paired(runs, "all", "ap50") == (pytest.approx(0.1), None, 1)
    assert benchmark.paired(runs, "prompt", "ap50") == (None, None, 0)
    assert benchmark.rotated(["mr", "ct", "xray", "ct"]) == {"ct": "mr", "mr": "xray", "xray": "ct"}
