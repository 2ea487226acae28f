"""Properties of the whole model that no part can promise alone."""

import pytest
import torch

from medglip.errors import ModelError
from medglip.model import build_model, load_config, make_prompt
from medglip.model.dense import detect
from medglip.model.losses import Target, grounding_loss

PHRASES = [["left lung", "heart", "pneumothorax"], ["liver"], ["spleen", "left kidney"]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(load_config("tiny"))
    for value in model.parameters():  # nothing is zero or equal, so that nothing is the identity by chance
        torch.nn.init.normal_(value, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def run(model, images, phrases, modalities):
    prompt = make_prompt(phrases, model.text_encoder.text.tokenize)
    with torch.no_grad():
        return model(images, prompt, model.modality.index(modalities))


def test_a_batch_answers_as_its_images_do_alone(model, images):
    modalities = ["xray", "ct", None]
    together = run(model, images, PHRASES, modalities)
    for row, asked in enumerate(PHRASES):
        alone = run(model, images[row : row + 1], [asked], modalities[row : row + 1])
        count = len(asked)
        for name in ("logits", "presence", "phrases"):
            whole, part = getattr(together, name), getattr(alone, name)
            whole = whole[row, :, :count] if name == "logits" else whole[row, :count]
            assert torch.allclose(whole, part[0], atol=1e-4), name
        for name in ("boxes", "quality", "features"):
            assert torch.allclose(getattr(together, name)[row], getattr(alone, name)[0], atol=1e-4), name


def test_the_order_of_phrases_does_not_matter(model, images):
    asked = PHRASES[0]
    one = run(model, images[:1], [asked], ["xray"])
    other = run(model, images[:1], [asked[::-1]], ["xray"])
    assert torch.allclose(one.logits, other.logits.flip(2), atol=1e-5)
    assert torch.allclose(one.presence, other.presence.flip(1), atol=1e-5)


def test_without_image_looks_a_phrase_does_not_depend_on_its_neighbours(images):
    torch.manual_seed(0)
    model = build_model(load_config("tiny", image_looks=False)).eval()
    together, alone = run(model, images[:1], [["heart", "liver"]], ["ct"]), run(model, images[:1], [["liver"]], ["ct"])
    assert torch.allclose(together.logits[..., 1], alone.logits[..., 0], atol=1e-5)
    assert torch.allclose(together.presence[:, 1], alone.presence[:, 0], atol=1e-5)


def test_every_parameter_that_learns_gets_a_gradient(images):
    torch.manual_seed(0)
    model = build_model(load_config("tiny"))
    prompt = make_prompt(PHRASES, model.text_encoder.text.tokenize)
    out = model(images, prompt, model.modality.index(["xray", "ct", "mr"]))
    targets = [
        Target(torch.tensor([[10.0, 10, 60, 90], [70, 70, 78, 78]]), torch.eye(3)[:2].bool(), torch.zeros(0, 4),
               torch.zeros(0, 3).bool(), torch.tensor([1.0, 1, 0])) for _ in range(3)
    ]  # fmt: skip
    grounding_loss(out, targets, load_config("tiny")["loss"])["loss"].backward()
    silent = [
        name for name, value in model.named_parameters() if value.requires_grad and (value.grad is None or not value.grad.any())
    ]
    assert silent == []


def test_conditioning_is_the_identity_at_step_0_and_not_after(images):
    torch.manual_seed(0)
    model = build_model(load_config("tiny")).eval()
    answers = [run(model, images[:1], [["heart"]], [name]) for name in ("ct", "mr", None, "no such thing")]
    for answer in answers[1:]:
        assert torch.equal(answers[0].logits, answer.logits)
    torch.manual_seed(0)
    plain = build_model(load_config("tiny", modality=[])).eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("modality.")})
    assert torch.equal(run(plain, images[:1], [["heart"]], ["ct"]).logits, answers[0].logits)
    for way in (model.modality.prompt, model.modality.film[0]):
        torch.nn.init.normal_(way.weight, std=0.5)
        ct, mr = (run(model, images[:1], [["heart"]], [name]) for name in ("ct", "mr"))
        assert not torch.allclose(ct.logits, mr.logits)
        torch.nn.init.zeros_(way.weight)


def test_unknown_way_of_conditioning_is_refused():
    with pytest.raises(ModelError, match="adaptor"):
        build_model(load_config("tiny", modality=["adaptor"]))


def test_at_first_every_point_says_no(images):
    torch.manual_seed(0)
    out = run(build_model(load_config("tiny")).eval(), images, PHRASES, [None] * 3)
    assert out.logits.sigmoid().mean() < 0.05
    assert torch.isfinite(out.boxes).all()
    assert (out.boxes[..., 2:] > out.boxes[..., :2]).all()


def test_detections_are_sorted_and_suppressed_within_a_phrase(model, images):
    out = run(model, images, PHRASES, [None] * 3)
    for found in detect(out, 128, top=40, nms=0.5):
        assert (found.scores.diff(dim=1) <= 0).all()
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= 128


def test_points_are_those_of_strides_4_to_64(model, images):
    out = run(model, images[:1], [["heart"]], [None])
    assert torch.unique_consecutive(out.strides).tolist() == [4, 8, 16, 32, 64]
    assert out.logits.shape[1] == len(out.points) == sum((128 // stride) ** 2 for stride in (4, 8, 16, 32, 64))
