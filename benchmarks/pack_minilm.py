"""Packs all-MiniLM-L6-v2 into 8 bits for medglip/weights/minilm, and measures what that does to the vectors of phrases.

Equal inputs give equal bytes. `scripts/bench pack_minilm --check` packs into memory and compares with the file that is
there; without `--check` the files are written. The figures go to benchmarks/results/minilm.json.
"""

import argparse
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from medglip.model.encoders.minilm import PACKED, MiniLM
from medglip.model.encoders.packing import pack
from medglip.model.shipped import MINILM
from medglip.model.weights import MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights
from medglip.records.labels import label_tree
from medglip.records.phrases import concept_phrases

RESULTS = Path(__file__).parent / "results" / "minilm.json"
TOGETHER = 64


def packed_bytes() -> bytes:
    """The packed file: weights that the encoder reads, in the order of their names."""
    state = load_file(find_weights(MINILM_WEIGHTS))
    read = {name: value for name, value in sorted(state.items()) if value.is_floating_point() and "pooler" not in name}
    # One entry: safetensors writes several in an order that changes from run to run.
    return save(pack(read), {"origin": f"sentence-transformers/all-MiniLM-L6-v2, SHA-256 {MINILM_WEIGHTS.sha256}"})


def wordings() -> list[str]:
    """Every text that names a concept of the label tree, each once."""
    tree = label_tree()
    concepts = [f"{label.id}{side}" for label in tree for side in (("", "@left", "@right") if label.laterality else ("",))]
    return list(dict.fromkeys(phrase.text for concept in concepts for phrase in concept_phrases(concept, tree)))


@torch.no_grad()
def compare(texts: list[str]) -> dict[str, float]:
    """Cosine similarity of the packed encoder's vectors with the published one's: of tokens, and of their mean a text."""
    published, packed = MiniLM(), MiniLM(weights="packed")
    tokens: list[Tensor] = []
    phrases: list[Tensor] = []
    for first in range(0, len(texts), TOGETHER):
        given = published.tokenize(texts[first : first + TOGETHER])
        one, other = (text(given.ids, given.is_word) for text in (published, packed))
        tokens.append(torch.cosine_similarity(one, other, dim=-1)[given.is_word])
        count = given.is_word.sum(1, keepdim=True)
        phrases.append(torch.cosine_similarity(one.sum(1) / count, other.sum(1) / count, dim=-1))
    found = {"token": torch.cat(tokens), "phrase": torch.cat(phrases)}
    return {f"{name}_{way}": round(getattr(value, way)().item(), 6) for name, value in found.items() for way in ("min", "mean")}


def seconds_to_load(weights: str) -> float:
    """Best of three."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        MiniLM(weights=weights)
        taken.append(time.perf_counter() - begun)
    return round(min(taken), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write no weights; fail if the file there is another.")
    parser.add_argument("--every", type=int, default=1, help="Compare every N-th wording only.")
    options = parser.parse_args()
    content = packed_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if options.check:
        if not PACKED.is_file() or hashlib.sha256(PACKED.read_bytes()).hexdigest() != sha256:
            raise SystemExit(f"{PACKED} is not what packing gives, which has SHA-256 {sha256}")
    else:
        MINILM.mkdir(parents=True, exist_ok=True)
        PACKED.write_bytes(content)
        shutil.copyfile(find_weights(MINILM_TOKENIZER), MINILM / MINILM_TOKENIZER.name)
    print(f"{PACKED.name}: {len(content)} bytes, SHA-256 {sha256} (to stand in medglip/model/encoders/minilm.py)", flush=True)
    texts = wordings()[:: options.every]
    figures = {
        "bytes": len(content), "bytes_tokenizer": find_weights(MINILM_TOKENIZER).stat().st_size,
        "bytes_published": find_weights(MINILM_WEIGHTS).stat().st_size, "sha256": sha256, "wordings": len(texts),
        "cosine": compare(texts), "torch": torch.__version__,
        "seconds_to_load": {weights: seconds_to_load(weights) for weights in ("packed", "published")},
    }  # fmt: skip
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
