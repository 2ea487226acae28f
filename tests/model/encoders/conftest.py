"""Small random networks and tokenizers of the transformers library, saved to folders; nothing is fetched."""

import json

import pytest
import torch

IMAGES = {
    "swin": {
        "model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 2],
        "window_size": 3, "mlp_ratio": 2.0,
    },
    "swinv2": {
        "model_type": "swinv2", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 2],
        "window_size": 4, "mlp_ratio": 2.0,
    },
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
    "convnextv2": {"model_type": "convnextv2", "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
    "dinov2": {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14, "mlp_ratio": 2,
    },
    "resnet": {
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
}  # fmt: skip
SENTENCES = ["Left pneumothorax, 3 mm", "stone in the lower pole", "the heart", "naïve œdème of the lung"]


def steady(network):
    """A random network whose numbers are far from those that it begins with, its BatchNorm statistics too."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and "lambda" not in name:
            value.add_(torch.rand(value.shape, generator=generator) * 0.2)
    return network


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Gives the folder of a small random backbone by its name in ``IMAGES``."""
    from transformers import AutoConfig, AutoModel

    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            values = dict(IMAGES[name])
            network = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
            steady(network).save_pretrained(made[name])
            statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
            (made[name] / "preprocessor_config.json").write_text(json.dumps(statistics))
        return str(made[name])

    return folder


def word_piece():
    """A WordPiece tokenizer as BERT's, which ignores case and accents."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(SENTENCES * 3, vocab_size=80, show_progress=False, min_frequency=1)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer._tokenizer.post_processor = BertProcessing(*ends)
    return tokenizer


def byte_level():
    """A byte-level BPE tokenizer as RoBERTa's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False)
    return tokenizer


def unigram():
    """A Unigram tokenizer as T5's: no special token in front, </s> behind, spaces as part of a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = {
    "bert": (
        word_piece,
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
        SHAPE | {"max_position_embeddings": 20},
    ),
    "roberta": (
        byte_level,
        {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"},
        SHAPE | {"max_position_embeddings": 42, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    ),
    "t5": (
        unigram,
        {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0, "eos_token_id": 1},
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Gives the folder of a small random text network with its tokenizer by its name in ``TEXTS``."""
    from transformers import AutoConfig, AutoModelForTextEncoding, PreTrainedTokenizerFast

    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            make, special, shape = TEXTS[name]
            tokenizer = make()
            inner = getattr(tokenizer, "_tokenizer", tokenizer)
            config = AutoConfig.for_model(name, vocab_size=inner.get_vocab_size(), **shape)
            steady(AutoModelForTextEncoding.from_config(config)).save_pretrained(made[name])
            PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(made[name])
        return str(made[name])

    return folder
