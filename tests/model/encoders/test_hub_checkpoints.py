"""A checkpoint with encoders of the transformers library is whole: it needs neither their folders nor a network."""

import shutil

import torch

from medglip.model import build_model, load_config, make_prompt
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint, save_checkpoint

ASKED = [["left lung", "heart"]]


def answer(model):
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images, make_prompt(ASKED, model.text_encoder.text.tokenize), model.modality.index(["xray"]))


def test_it_is_loaded_without_the_folders_that_it_was_made_of(image_folder, text_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for kind, made in (("image", image_folder("swin")), ("text", text_folder("bert"))):
        shutil.copytree(made, tmp_path / kind)
    config = load_config("tiny", fuse="words", text_layers=1)
    config["image"] |= {"encoder": str(tmp_path / "image"), "tune": "lora"}
    config["text"] = {"encoder": str(tmp_path / "text"), "tune": "frozen"}
    torch.manual_seed(0)
    model = build_model(config).eval()
    before = answer(model)
    save_checkpoint(tmp_path / "checkpoint", model, model.state_dict(), CheckpointInfo(config))
    for kind in ("image", "text"):
        shutil.rmtree(tmp_path / kind)
    (tmp_path / "checkpoint").rename(tmp_path / "moved")
    again, _ = load_checkpoint(tmp_path / "moved")
    after = answer(again)
    assert torch.allclose(before.logits, after.logits, atol=1e-5)
    assert torch.allclose(before.presence, after.presence, atol=1e-5)
