"""Answers questions from what the grounder found: a small trained head over region tokens that abstains when unsure.

The head never sees pixels. It reads a question (through the grounder's own text encoder) and one token a predicted
region and a searched concept (its name, its place, its score, its presence), and chooses an answer from a closed
vocabulary: a learned class, or a copy of the name of a token. Below a calibrated confidence it says "cannot tell".
Trained by ``medglip.language.vqa_training``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medglip.errors import InputError, ModelError
from medglip.language.observe import FOLDER, Observation, observe
from medglip.language.questions import CANNOT_TELL
from medglip.language.tokens import FEATURES, MOST_REGIONS, NAMED, Tokens, linked_tokens, links, named_features, tokens_of
from medglip.language.view import ImageView
from medglip.language.vocabulary import Vocabulary
from medglip.model.shipped import checkpoint_folder
from medglip.records import LabelTree, Region, label_tree
from medglip.records.mentions import Lexicon, Mention

if TYPE_CHECKING:
    from medglip.predict import Grounder

SCHEMA = "medglip.vqa/1"
_EVIDENCE = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what it rests on.

    Attributes:
        text: The answer; "cannot tell" where the head abstains.
        confidence: Calibrated probability of the best answer, in [0, 1].
        region_ids: Regions that show it; empty for negatives and abstentions.
        abstained: Whether no answer is given.
        reason: Why not: "low confidence", "not searched for", "not answerable", or empty.
        guess: The best answer even where it is withheld.
        regions: The regions of ``region_ids``.
    """

    text: str
    confidence: float
    region_ids: tuple[str, ...] = ()
    abstained: bool = False
    reason: str = ""
    guess: str = ""
    regions: tuple[Region, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(self)
        plain["regions"] = [
            {"id": r.id, "concept": r.concept, "box_xyxy": list(r.box_xyxy), "score": r.score} for r in self.regions
        ]  # fmt: skip
        return plain


class HeadOutput(NamedTuple):
    """``answers`` (B, answers) logits; ``evidence`` (B, tokens) logits."""

    answers: Tensor
    evidence: Tensor


@dataclass(frozen=True)
class HeadConfig:
    """Shape and calibration of a head.

    Attributes:
        answers: The closed vocabulary.
        text_width: Width of the grounder's word vectors.
        width: Width of the head.
        rounds: How often the question looks at the tokens.
        temperature: Divides the logits; set on validation questions.
        threshold: Confidence below which the head abstains; set on validation questions for ``coverage``.
        coverage: Share of validation questions that the threshold lets through.
        schema: Version of this layout.
    """

    answers: tuple[str, ...]
    text_width: int
    width: int = 96
    rounds: int = 2
    temperature: float = 1.0
    threshold: float = 0.0
    coverage: float = 0.9
    schema: str = SCHEMA


class VQAHead(nn.Module):
    """Question words and scene tokens to answer logits.

    Args:
        config: Its shape.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, heads = config.width, 4
        self.word = nn.Linear(config.text_width, width)
        self.read = nn.Linear(width, 1)
        self.name = nn.Linear(config.text_width, width, bias=False)
        self.holder = nn.Linear(config.text_width, width, bias=False)
        self.feature = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.token_norm = nn.LayerNorm(width)
        self.slots = nn.Parameter(torch.randn(heads, width) * 0.1)
        self.looks = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(config.rounds))
        self.steps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(config.rounds)
        )
        self.named = nn.Sequential(nn.Linear(NAMED, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out = nn.Sequential(nn.Linear((heads + 2) * width, 2 * width), nn.GELU(), nn.Dropout(0.1))
        self.classes = nn.Linear(2 * width, len(config.answers))
        self.copy_query, self.holder_query, self.evidence_query = (nn.Linear(2 * width, width) for _ in range(3))
        self.none = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, words: Tensor, is_word: Tensor, tokens: Tokens, table: Tensor) -> HeadOutput:
        """Logits.

        Args:
            words: (B, L, text width) vectors of the question's words.
            is_word: (B, L) bool, True where there is a word.
            tokens: The scene's, each (B, K, ...).
            table: (U, text width) vectors of the names that tokens have by row.
        """
        x = self.word(words)
        weight = self.read(torch.tanh(x)).masked_fill(~is_word.unsqueeze(-1), -1e4).softmax(1)
        question = (weight * x).sum(1)  # (B, width)
        # Names are few and tokens many: each name is read once.
        scene = self.name(table)[tokens.names] + self.holder(table)[tokens.holders] + self.feature(tokens.features)
        scene = self.token_norm(scene) * tokens.there.unsqueeze(-1)
        # A null token: something to look at in an empty scene.
        everything = torch.cat([self.none.expand(len(scene), -1, -1), scene], 1)
        hidden = torch.cat([~tokens.there.new_ones(len(scene), 1), ~tokens.there], 1)
        state = self.slots + question.unsqueeze(1)  # (B, slots, width)
        for look, step in zip(self.looks, self.steps, strict=True):
            state = state + look(state, everything, everything, key_padding_mask=hidden, need_weights=False)[0]
            state = state + step(state)
        h = self.out(torch.cat([state.flatten(1), question, self.named(named_features(tokens))], -1))
        scale = scene.shape[-1] ** -0.5
        own, holder, evidence = (
            torch.einsum("bd,bkd->bk", query(h), scene) * scale
            for query in (self.copy_query, self.holder_query, self.evidence_query)
        )
        answers = _with_copies(self.classes(h), own, tokens.answer, tokens.there)
        return HeadOutput(_with_copies(answers, holder, tokens.holder_answer, tokens.there), evidence)


def _with_copies(logits: Tensor, copied: Tensor, places: Tensor, there: Tensor) -> Tensor:
    """Class logits (B, answers), raised by the best token (B, K) whose name is that class; a place of -1 raises none."""
    raised = copied.masked_fill(~there | (places < 0), -1e4)
    best = torch.full_like(logits, -1e4).scatter_reduce(1, places.clamp(min=0), raised, "amax")
    return torch.logaddexp(logits, best)


class WordVectors:
    """Word vectors of texts from a grounder's text encoder; every text is read once."""

    def __init__(self, text_encoder: Any) -> None:
        self._encoder = text_encoder
        self._known: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._means = [torch.zeros(self.width)]

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._encoder.width)

    @torch.no_grad()
    def words(self, text: str) -> Tensor:
        """(L, width) float32, one row a word or word piece."""
        if text not in self._known:
            ids, is_word, _ = self._encoder.tokenize([text])
            device = next((p.device for p in self._encoder.parameters()), ids.device)
            self._known[text] = self._encoder(ids.to(device), is_word.to(device))[0][is_word[0].to(device)].float().cpu()
        return self._known[text]

    def row_of(self, name: str) -> int:
        """Row of a name in the table; a new name gets a new row."""
        if name not in self._rows:
            self._rows[name] = len(self._means)
            self._means.append(self.words(name).mean(0))
        return self._rows[name]

    def table(self) -> Tensor:
        """(U, width) float32, the mean word vector of each name so far; row 0 is zero."""
        return torch.stack(self._means)


class VQA:
    """Answers questions about images.

    Args:
        grounder: The model that looks at the image.
        head: The trained head.
        config: Its shape and calibration.
        vocabulary: What to search for in an image.

    Example:
        ``VQA.load("run/best").answer(pixels, "Is there any pneumothorax?", modality="xray").text``
    """

    def __init__(self, grounder: "Grounder", head: VQAHead, config: HeadConfig, vocabulary: Vocabulary) -> None:
        self.grounder, self.head, self.config, self.vocabulary = grounder, head.eval(), config, vocabulary
        self.tree: LabelTree = label_tree()
        self.vectors = WordVectors(grounder.model.text_encoder.text)

    @classmethod
    def load(cls, checkpoint: str | Path, grounder: "Grounder | None" = None) -> "VQA":
        """From a checkpoint folder, or from the shipped model of that name (``lite``).

        Args:
            checkpoint: The folder that training printed, or the name of a shipped model.
            grounder: Its grounder where it is loaded already.

        Raises:
            ModelError: it holds no VQA head, or a damaged one.
        """
        folder = checkpoint_folder(checkpoint) / FOLDER
        if not (folder / "vqa.json").is_file() or not (folder / "vqa.safetensors").is_file():
            raise ModelError(
                f"Checkpoint {checkpoint} has no VQA head: {folder} needs vqa.json and vqa.safetensors; "
                "train it with medglip.language.train_vqa."
            )
        if grounder is None:
            from medglip.predict import Grounder

            grounder = Grounder.load(checkpoint)
        try:
            plain = json.loads((folder / "vqa.json").read_text())
            found = plain.get("schema")
            config = HeadConfig(**{**plain, "answers": tuple(plain["answers"])})
            head = VQAHead(config)
            head.load_state_dict(load_file(folder / "vqa.safetensors"))
        except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
            raise ModelError(f"The VQA head in {folder} is damaged ({error}); train it again.") from error
        if found != SCHEMA:
            raise ModelError(f"The VQA head in {folder} is of schema {found!r}; this medglip reads {SCHEMA!r}; train it again.")
        vqa = cls(grounder, head, config, Vocabulary.load(folder))
        if vqa.vectors.width != config.text_width:
            raise ModelError(
                f"The VQA head in {folder} reads word vectors of {config.text_width}, the grounder's text encoder "
                f"gives {vqa.vectors.width}; use the checkpoint that it was trained on."
            )
        return vqa

    def save(self, checkpoint: str | Path) -> Path:
        """Write the head into a checkpoint folder; comes back with where it lies."""
        folder = Path(checkpoint) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / "vqa.safetensors")
        (folder / "vqa.json").write_text(json.dumps(asdict(self.config), indent=1) + "\n")
        self.vocabulary.save(folder)
        return folder

    def answer(self, image: np.ndarray, question: str, modality: str | None = None, view: ImageView | None = None) -> Answer:
        """The answer to a question about an image.

        Args:
            image: (H, W) or (H, W, 3) uint8, windowed for display.
            question: English.
            modality: One of the record's modalities, or None where it is not known.
            view: Facts of the picture, where more than its modality is known.

        Raises:
            InputError: an empty question, or an image that the grounder refuses.
        """
        if not question.strip():
            raise InputError(f"The question is {question!r}; ask something, for example 'Is there any nodule?'.")
        view = view or ImageView(width=image.shape[1], height=image.shape[0], modality=modality)
        return self.answer_about(observe(self.grounder, image, view, self.vocabulary), question)

    def answer_about(self, observation: Observation, question: str) -> Answer:
        """The answer from an observation that is already there."""
        return self.answer_all([(observation, question)])[0]

    @torch.no_grad()
    def answer_all(self, pairs: Sequence[tuple[Observation, str]]) -> list[Answer]:
        """Answers to many (observation, question) pairs at once."""
        answers = []
        lexicon = self.lexicon
        tokens: dict[int, Tokens] = {}
        for seen, _ in pairs:
            if id(seen) not in tokens:
                tokens[id(seen)] = tokens_of(seen, self.answer_index, self.vectors.row_of, self.tree)
        for start in range(0, len(pairs), 64):
            batch = pairs[start : start + 64]
            words, is_word = padded_words([self.vectors.words(question) for _, question in batch])
            mentions = [lexicon.mentions(question) for _, question in batch]
            scenes = [
                linked_tokens(tokens[id(seen)], links(seen, found, self.tree))
                for (seen, _), found in zip(batch, mentions, strict=True)
            ]  # fmt: skip
            output = self.head(words, is_word, Tokens.padded(scenes), self.vectors.table())
            probability = (output.answers / self.config.temperature).softmax(-1)
            for row, ((seen, question), found) in enumerate(zip(batch, mentions, strict=True)):
                answers.append(self._decided(seen, question, found, probability[row], output.evidence[row].sigmoid()))
        return answers

    @cached_property
    def lexicon(self) -> Lexicon:
        """Words of the whole label tree."""
        return Lexicon([label.id for label in self.tree], self.tree)

    @cached_property
    def answer_index(self) -> Mapping[str, int]:
        """Place of each answer in the closed vocabulary."""
        return {answer: place for place, answer in enumerate(self.config.answers)}

    def _decided(self, seen: Observation, question: str, found: Sequence[Mention], probability: Tensor,
                 evidence: Tensor) -> Answer:  # fmt: skip
        confidence, place = (value.item() for value in probability.max(0))
        guess, confidence = self.config.answers[int(place)], round(float(confidence), 4)
        # A label that was never searched for has no answer, whatever the head says.
        if found and not any(links(seen, [mention], self.tree).any() for mention in found):
            return Answer(CANNOT_TELL, confidence, abstained=True, reason="not searched for", guess=guess)
        if guess == CANNOT_TELL:
            return Answer(CANNOT_TELL, confidence, abstained=True, reason="not answerable", guess=guess)
        if confidence < self.config.threshold:
            return Answer(CANNOT_TELL, confidence, abstained=True, reason="low confidence", guess=guess)
        shown = () if guess in ("no", "0") else tuple(
            region for region, value in zip(seen.regions[:MOST_REGIONS], evidence.tolist(), strict=False) if value >= _EVIDENCE
        )  # fmt: skip
        return Answer(guess, confidence, tuple(region.id for region in shown), regions=shown, guess=guess)


def padded_words(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Word vectors (B, L, width) of several texts, and which of them are words (B, L)."""
    words = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    return words, torch.arange(words.shape[1])[None] < lengths[:, None]
