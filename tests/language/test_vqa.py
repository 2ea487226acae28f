import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from language_world import EFFUSION, LIVER, NODULE, Grounder, Text, noisy, record, region, world

from medglip.errors import DatasetError, InputError, ModelError
from medglip.language.bands import Bands
from medglip.language.observe import FOLDER, Observation, observation_of_record
from medglip.language.questions import CANNOT_TELL
from medglip.language.tokens import Tokens, tokens_of
from medglip.language.view import ImageView
from medglip.language.vocabulary import Vocabulary
from medglip.language.vqa import VQA, HeadConfig, VQAHead, WordVectors, padded_words
from medglip.language.vqa_training import train_vqa
from medglip.records import label_tree

TREE = label_tree()


class Memory:
    """A dataset in memory."""

    def __init__(self, records):
        self.all = records

    def records(self, split=None):
        return (truth for truth in self.all if split in (None, truth.split))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A head trained for some seconds on the small world: checkpoint, figures, records, observations."""
    records = world(160)
    seen = {truth.id: noisy(truth, miss=0.02) for truth in records}
    out = tmp_path_factory.mktemp("checkpoint")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = train_vqa(Grounder(), [Memory(records)], out, observations=seen, steps=160)
    finally:
        torch.set_num_threads(threads)
    return out, figures, records, seen


def test_boxes_beat_questions_alone_and_the_majority(trained):
    _, figures, _, _ = trained
    assert figures["vqa_accuracy"] > figures["vqa_majority"] + 0.2
    assert figures["vqa_accuracy"] > figures["vqa_accuracy_without_boxes"] + 0.1
    assert figures["vqa_accuracy"] > figures["vqa_accuracy_with_wrong_boxes"] + 0.1, "the boxes must be used"
    assert figures["vqa_accuracy_with_truth_boxes"] >= figures["vqa_accuracy"] - 0.05


def test_abstention_costs_coverage_and_gains_accuracy(trained):
    _, figures, _, _ = trained
    assert 0.5 < figures["vqa_coverage"] < 1
    assert figures["vqa_accuracy_answered"] >= figures["vqa_accuracy"] - 0.02
    assert set(figures["vqa_by_topic"]) >= {"presence", "side", "count", "unanswerable"}
    assert figures["reports"] == 32


def test_saved_head_answers_alike(trained):
    out, _, records, seen = trained
    vqa = VQA.load(out, Grounder())
    pairs = [
        (seen[truth.id], question)
        for truth in records[:6]
        for question in ("Is there any lung nodule?", "How many lung nodules are there?")
    ]
    first = vqa.answer_all(pairs)
    again = [VQA.load(out, Grounder()).answer_about(*pair) for pair in pairs]
    assert [a.text for a in first] == [a.text for a in again], "a batch of N equals N singles"
    assert [a.confidence for a in first] == pytest.approx([a.confidence for a in again], abs=2e-4)


def test_evidence_are_regions_of_the_scene_and_negatives_have_none(trained):
    out, _, records, seen = trained
    vqa = VQA.load(out, Grounder())
    for truth in records[:20]:
        answer = vqa.answer_about(seen[truth.id], "Is there any lung nodule?")
        assert set(answer.region_ids) <= {r.id for r in seen[truth.id].regions}
        assert [r.id for r in answer.regions] == list(answer.region_ids)
        if answer.text in ("no", CANNOT_TELL):
            assert not answer.region_ids
        assert answer.to_json()["text"] == answer.text


def test_what_was_not_searched_for_is_not_answered(trained):
    out, _, records, seen = trained
    vqa = VQA.load(out, Grounder())
    abdomen = next(seen[truth.id] for truth in records if truth.modality == "ct")
    for question in ("Is there any lung nodule?", "How many colon polyps are there?"):
        answer = vqa.answer_about(abdomen, question)
        assert (answer.text, answer.abstained, answer.reason) == (CANNOT_TELL, True, "not searched for")


def test_unsure_answers_are_withheld_but_the_guess_is_kept(trained):
    out, _, records, seen = trained
    vqa = VQA.load(out, Grounder())
    vqa.config = replace(vqa.config, threshold=1.01)
    chest = next(seen[truth.id] for truth in records if truth.modality == "xray")
    answer = vqa.answer_about(chest, "Is there any lung nodule?")
    assert (answer.text, answer.abstained) == (CANNOT_TELL, True)
    assert answer.reason in ("low confidence", "not answerable")
    assert answer.guess in vqa.config.answers


def test_image_is_looked_at(trained):
    out, _, _, _ = trained
    vqa = VQA.load(out, Grounder({"left lung": 0.9}))
    answer = vqa.answer(np.zeros((64, 64), np.uint8), "Is there any pleural effusion?", modality="xray")
    assert 0 <= answer.confidence <= 1
    with pytest.raises(InputError, match="question"):
        vqa.answer(np.zeros((64, 64), np.uint8), "  ")


def test_bands_and_vocabulary_lie_beside_the_head(trained):
    out, _, _, _ = trained
    assert Bands.load(out / FOLDER).pairs > 0
    assert f"{EFFUSION}@left" in Vocabulary.load(out / FOLDER).of("xray")


def test_damaged_or_missing_heads_are_refused(trained, tmp_path):
    out, _, _, _ = trained
    with pytest.raises(ModelError, match="has no VQA head"):
        VQA.load(tmp_path, Grounder())
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in ("vqa.json", "vocabulary.json"):
        (folder / name).write_bytes((out / FOLDER / name).read_bytes())
    (folder / "vqa.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="damaged"):
        VQA.load(tmp_path, Grounder())


def test_head_of_another_text_encoder_is_refused(trained):
    out, _, _, _ = trained
    other = Grounder()
    other.model.text_encoder.text.width = 7
    with pytest.raises(ModelError, match="word vectors"):
        VQA.load(out, other)


def test_training_without_questions_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="No question"):
        train_vqa(Grounder(), [Memory([record(split="val")])], tmp_path, observations={})


def head_and_batch():
    vectors = WordVectors(Text())
    config = HeadConfig(
        answers=("no", "yes", "liver", "left lung", "right lung", "left kidney", "right kidney"),
        text_width=vectors.width,
        width=16,
    )
    scenes = [observation_of_record(truth) for truth in world(4)] + [Observation(ImageView(10, 10))]
    index = {answer: place for place, answer in enumerate(config.answers)}
    tokens = Tokens.padded([tokens_of(scene, index, vectors.row_of, TREE) for scene in scenes])
    words, is_word = padded_words([vectors.words("is there a liver ?")] * len(scenes))
    return VQAHead(config), words, is_word, tokens, vectors.table()


def test_every_parameter_learns():
    head, words, is_word, tokens, table = head_and_batch()
    tokens.features[..., -3:] = 1.0  # every token is named
    output = head(words, is_word, tokens, table)
    (output.answers.square().mean() + output.evidence.square().mean()).backward()
    idle = [name for name, parameter in head.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle


def test_padding_changes_nothing():
    head, words, is_word, tokens, table = head_and_batch()
    head.eval()
    together = head(words, is_word, tokens, table).answers[0]
    count = int(tokens.there[0].sum())
    alone = head(words[:1], is_word[:1], Tokens(*(field[:1, :count] for field in tokens)), table).answers[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_copy_reaches_only_names_of_the_scene():
    head, words, is_word, tokens, table = head_and_batch()
    empty = head.eval()(words, is_word, tokens, table).answers[-1]
    assert torch.isfinite(empty).all()


def test_evidence_is_numbered_as_the_regions():
    truth = record([region(LIVER, (0, 0, 50, 50)), region(NODULE, (60, 60, 70, 70))])
    vectors = WordVectors(Text())
    tokens = tokens_of(observation_of_record(truth), {"liver": 2}, vectors.row_of, TREE)
    assert tokens.answer.tolist()[:2] == [2, -1]


def test_only_the_vqa_modules_import_torch():
    code = ("import sys, medglip.language, medglip.language.scene, medglip.language.questions, medglip.language.report,"
            "medglip.language.metrics, medglip.language.observe; sys.exit('torch' in sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_grounder_of_the_smallest_model_serves_the_head(tmp_path):
    from medglip.model import build_model, load_config
    from medglip.model.checkpoints import CheckpointInfo, save_checkpoint
    from medglip.predict import Grounder as RealGrounder

    config = load_config("tiny")
    model = build_model(config)
    save_checkpoint(tmp_path, model, model.state_dict(), CheckpointInfo(config))
    records = world(30)
    seen = {truth.id: noisy(truth) for truth in records}
    train_vqa(RealGrounder.load(tmp_path, "cpu"), [Memory(records)], tmp_path, observations=seen, steps=3)
    answer = VQA.load(tmp_path).answer(np.zeros((64, 64), np.uint8), "Is there any lung nodule?", modality="xray")
    assert answer.text in (*VQA.load(tmp_path).config.answers, CANNOT_TELL)
