"""Properties of the whole model that no part can promise alone, held for each way in which it can be built."""

import pytest
import torch

from medglip.errors import ModelError
from medglip.model import build_model, load_config, make_prompt
from medglip.model.dense import detect
from medglip.model.losses import Target, grounding_loss, masked_words
from medglip.model.prompt import Span

PHRASES = [["left lung", "heart", "pneumothorax"], ["liver"], ["spleen", "left kidney"]]
MODALITIES = ["xray", "ct", None]
EVERY_LOSS = {"hierarchy": 0.3, "contrast": 0.5, "words": 0.5, "masks": 0.5}
CAPTION = "the liver lies right of the stomach"
# Every choice of a configuration is in one of these.
BUILDS = {
    "fast": {},
    "as in GLIP": {"fuse": "words", "text_layers": 1, "fusion_layers": 2, "isolate": False, "head": "dynamic", "levels": 5},
    "words apart": {"fuse": "words", "text_layers": 1, "modality": ["prompt", "film", "adapter", "encoder"]},
    "every loss": {"fuse": "words", "text_layers": 1, **EVERY_LOSS},
}


def built(**choices):
    """A tiny model in which nothing is zero or equal, so that nothing is the identity by chance."""
    torch.manual_seed(0)
    model = build_model(load_config("tiny", **choices))
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=BUILDS)
def model(request):
    return built(**BUILDS[request.param])


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def run(model, images, phrases, modalities):
    prompt = make_prompt(phrases, model.text_encoder.text.tokenize)
    with torch.no_grad():
        return model(images, prompt, model.modality.index(modalities))


def test_a_batch_answers_as_its_images_do_alone(model, images):
    together = run(model, images, PHRASES, MODALITIES)
    for row, asked in enumerate(PHRASES):
        alone = run(model, images[row : row + 1], [asked], MODALITIES[row : row + 1])
        count = len(asked)
        for name in ("presence", "uncertainty", "phrases"):
            assert torch.allclose(getattr(together, name)[row, :count], getattr(alone, name)[0], atol=1e-5), name
        assert torch.allclose(together.logits[row, :, :count], alone.logits[0], atol=1e-4)
        for name, off in (("boxes", 1e-3), ("quality", 1e-5), ("features", 1e-4)):
            assert torch.allclose(getattr(together, name)[row], getattr(alone, name)[0], atol=off), name


def test_the_order_of_phrases_only_orders_the_results(model, images):
    asked = PHRASES[0]
    one = run(model, images[:1], [asked], ["xray"])
    other = run(model, images[:1], [asked[::-1]], ["xray"])
    assert torch.allclose(one.logits, other.logits.flip(2), atol=1e-4)
    assert torch.allclose(one.presence, other.presence.flip(1), atol=1e-5)
    assert torch.allclose(one.boxes, other.boxes, atol=1e-3)


def test_padding_of_the_text_changes_nothing(model, images):
    prompt = make_prompt(PHRASES, model.text_encoder.text.tokenize)
    pad = torch.nn.functional.pad
    wider = prompt._replace(
        words=pad(prompt.words, (0, 5)), word_is_real=pad(prompt.word_is_real, (0, 5)),
        word_text=pad(prompt.word_text, (0, 5), value=-1), members=pad(prompt.members, (0, 5, 0, 2)),
        phrase_is_asked=pad(prompt.phrase_is_asked, (0, 2)),
    )  # fmt: skip
    with torch.no_grad():
        one, other = (model(images, asked, model.modality.index(MODALITIES)) for asked in (prompt, wider))
    assert torch.allclose(one.logits, other.logits[..., : one.logits.shape[2]], atol=1e-5)
    assert torch.isfinite(other.logits).all()
    assert torch.isfinite(other.presence).all()


@pytest.mark.parametrize("fuse", ["phrases", "words"])
def test_where_the_image_does_not_look_a_phrase_does_not_depend_on_its_neighbours(images, fuse):
    model = built(image_looks=False, fuse=fuse, text_layers=1)
    together, alone = run(model, images[:1], [["heart", "liver"]], ["ct"]), run(model, images[:1], [["liver"]], ["ct"])
    assert torch.allclose(together.logits[..., 1], alone.logits[..., 0], atol=1e-5)
    assert torch.allclose(together.presence[:, 1], alone.presence[:, 0], atol=1e-5)


def test_many_phrases_in_several_rows_are_answered_as_alone(images):
    model = built(image_looks=False, fuse="words")
    asked = [["heart", "left lung", "right lung", "liver"], ["spleen"]]
    prompt = make_prompt(asked, model.text_encoder.text.tokenize, most_words=3)
    assert prompt.image_of_row.tolist().count(0) > 1
    with torch.no_grad():
        output = model(images[:2], prompt, model.modality.index(["ct", "mr"]))
    whole = run(model, images[:2], asked, ["ct", "mr"])
    for image, presence in enumerate(prompt.by_image(output.presence)):
        assert torch.allclose(presence, whole.presence[image, : len(asked[image])], atol=1e-5)
    part = prompt.rows(1, 3)
    seen = model.see(images[:2], model.modality.index(["ct", "mr"]))
    with torch.no_grad():
        some = model.ground(seen, part, model.modality.index(["ct", "mr"]), words=model.read(prompt))
    assert torch.allclose(some.presence, output.presence[1:3], atol=1e-5)


def learnt(model, images, config):
    """One loss with everything that can be asked: captions, masked words, masks, families of phrases."""
    asked = [["heart", "lung", Span(CAPTION, 4, 9)] for _ in images]
    text = model.text_encoder.text
    prompt = make_prompt(asked, text.tokenize)
    labels = None
    if config["loss"]["words"]:
        spans = text.tokenize(prompt.texts).spans
        tokens, labels = masked_words(prompt.tokens, prompt.token_is_word, spans[..., 1] > 0, text.mask_id, text.vocabulary,
                                      torch.Generator().manual_seed(0))  # fmt: skip
        prompt = prompt._replace(tokens=tokens)
    masks = torch.zeros(2, 32, 32)
    masks[0, 3:22, 3:15] = 1
    masks[1, 18:20, 18:20] = 1
    target = Target(
        torch.tensor([[10.0, 10, 60, 90], [70, 70, 78, 78]]), torch.eye(3)[:2].bool(), torch.zeros(0, 4),
        torch.zeros(0, 3).bool(), torch.tensor([1.0, 1, 0]), torch.tensor([0, 1, 2]), torch.tensor([[0, 1]]), masks,
        torch.tensor([True, True]),
    )  # fmt: skip
    modality = model.modality.index(["xray", "ct", "mr"])
    out = model(images, prompt, modality, targets=[target] * 3, word_labels=labels)
    return grounding_loss(out, [target] * 3, config["loss"])


@pytest.mark.parametrize("name", BUILDS)
def test_every_parameter_that_learns_gets_a_gradient(images, name):
    torch.manual_seed(0)
    config = load_config("tiny", **BUILDS[name])
    model = build_model(config)
    for value in model.parameters():  # behind what begins as nothing there is no gradient yet
        if not value.any():
            torch.nn.init.normal_(value, std=0.02)
    losses = learnt(model, images, config)
    assert torch.isfinite(losses["loss"])
    assert set(losses) == {"loss", "align", "box", "quality", "presence"} | {k for k in EVERY_LOSS if config["loss"][k] > 0}
    losses["loss"].backward()
    silent = [
        name for name, value in model.named_parameters() if value.requires_grad and (value.grad is None or not value.grad.any())
    ]
    assert silent == []


def test_recomputed_activations_give_the_same_gradients(images):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = load_config("tiny", checkpointing=checkpointing, **BUILDS["as in GLIP"])
        model = build_model(config).train()
        learnt(model, images, config)["loss"].backward()
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


@pytest.mark.parametrize("name", ["fast", "as in GLIP"])
def test_bfloat16_answers_nearly_the_same(images, name):
    model = built(**BUILDS[name])
    whole = run(model, images, PHRASES, MODALITIES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = run(model, images, PHRASES, MODALITIES)
    for field in ("logits", "presence", "quality"):
        one, other = getattr(whole, field), getattr(half, field).float()
        assert (one - other).abs().mean() < 0.03 * max(1.0, float(one.std())), field


def test_conditioning_is_the_identity_at_step_0_and_not_after(images):
    torch.manual_seed(0)
    model = build_model(load_config("tiny", modality=["prompt", "film", "adapter", "encoder"])).eval()
    answers = [run(model, images[:1], [["heart"]], [name]) for name in ("ct", "mr", None, "no such thing")]
    for answer in answers[1:]:
        assert torch.equal(answers[0].logits, answer.logits)
    torch.manual_seed(0)
    plain = build_model(load_config("tiny", modality=[])).eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("modality.")})
    assert torch.equal(run(plain, images[:1], [["heart"]], ["ct"]).logits, answers[0].logits)


@pytest.mark.parametrize("way", ["prompt", "film", "adapter", "encoder"])
def test_each_way_of_conditioning_changes_answers_once_it_has_learnt(images, way):
    model = built(modality=[way])
    ct, mr = (run(model, images[:1], [["heart"]], [modality]) for modality in ("ct", "mr"))
    assert not torch.allclose(ct.logits, mr.logits, atol=1e-3)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ModelError, match="adaptor"):
        build_model(load_config("tiny", modality=["adaptor"]))
    with pytest.raises(ModelError, match="fuse"):
        build_model(load_config("tiny", words=0.1))
    with pytest.raises(ModelError, match="tokens"):
        build_model(load_config("tiny", fuse="tokens"))


def test_at_first_every_point_says_no(images):
    torch.manual_seed(0)
    config = load_config("tiny")
    model = build_model(config).eval()
    out = run(model, images, PHRASES, [None] * 3)
    assert out.logits.sigmoid().mean() < 0.05
    assert torch.isfinite(out.boxes).all()
    assert (out.boxes[..., 2:] > out.boxes[..., :2]).all()
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, 3).bool(), torch.zeros(0, 4), torch.zeros(0, 3).bool(), torch.zeros(3))
    losses = grounding_loss(out, [nothing] * 3, config["loss"])
    assert losses["loss"] < 1


def test_detections_are_sorted_and_suppressed(model, images):
    out = run(model, images, PHRASES, [None] * 3)
    for across in (False, True):
        for found in detect(out, 128, top=40, nms=0.5, across=across):
            assert (found.scores.diff(dim=1) <= 0).all()
            assert found.boxes.min() >= 0
            assert found.boxes.max() <= 128
    apart, across = (detect(out, 128, top=40, nms=0.5, across=way) for way in (False, True))
    assert sum(int((one.scores > 0).sum()) for one in across) < sum(int((one.scores > 0).sum()) for one in apart)


@pytest.mark.parametrize(("levels", "strides"), [(4, [4, 8, 16, 32, 64]), (5, [4, 8, 16, 32, 64, 128])])
def test_points_are_those_of_all_strides(images, levels, strides):
    out = run(built(levels=levels), images[:1], [["heart"]], [None])
    assert torch.unique_consecutive(out.strides).tolist() == strides
    assert out.logits.shape[1] == len(out.points) == sum((128 // stride) ** 2 for stride in strides)
