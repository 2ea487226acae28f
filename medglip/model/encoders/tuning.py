"""How much of a pretrained network learns: nothing, low-rank additions to its attention (LoRA), or all. Knows no task.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), section 4.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from medglip.errors import ModelError

WAYS = ("frozen", "lora", "full")

# Names of the query and the value projection in the transformers library, by family of models; LoRA adapts these two
# (section 4.2 of the paper). One family has two names where its releases differ.
PROJECTIONS = (
    ("query", "value"),  # BERT, RoBERTa, Swinv2, Swin and DINOv2 of older releases
    ("q_proj", "v_proj"),  # CLIP, DINOv3, Swin and DINOv2 of newer releases
    ("q", "v"),  # T5
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa-v2
)


class LoraLinear(nn.Linear):
    """``W x + b + (alpha / rank) B A x``: W and b stay as they were, A and B learn; B starts at zero.

    Its ``weight`` and ``bias`` are the very parameters of the layer that it replaces, under the same names.

    Args:
        linear: The layer to adapt.
        rank: Rows of A and columns of B.
        alpha: Scale of the addition, divided by ``rank``.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as nn.Linear begins

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name in nn.Linear)
        """(..., inputs) to (..., outputs)."""
        return super().forward(input) + F.linear(F.linear(input, self.lora_a), self.lora_b) * self.scale

    def merged(self) -> nn.Linear:
        """A plain layer that gives the same; its weight is W + (alpha / rank) B A, summed in float32."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        added = self.scale * (self.lora_b.detach().float() @ self.lora_a.detach().float())
        plain.weight = nn.Parameter((self.weight.detach().float() + added).to(self.weight.dtype), requires_grad=False)
        plain.bias = self.bias
        return plain.train(self.training)


class AttentionLora(nn.Module):
    """LoRA for a network of ``nn.TransformerEncoderLayer``s, whose query, key and value are one matrix; it stays as it is.

    The additions to query and value are parameters of this module, not of the network, so they are in a checkpoint also
    where the network is not (MiniLM). B starts at zero.

    Args:
        network: Has ``layers``, and gives (n, l, width) for ids (n, l) without padding; it is not kept.
        rank: Rank of the additions.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        _checked(rank)
        attentions = [layer.self_attn for layer in network.layers]  # type: ignore[union-attr]
        count, width = len(attentions), int(attentions[0].embed_dim)
        self.lora_a = nn.Parameter(torch.empty(count, 2, rank, width))
        self.lora_b = nn.Parameter(torch.zeros(count, 2, width, rank))
        nn.init.uniform_(self.lora_a, -(width**-0.5), width**-0.5)  # as nn.Linear begins

    def forward(self, network: nn.Module, ids: Tensor, is_word: Tensor) -> Tensor:
        """Ids (U, L), padded at the end, to (U, L, width) float32, zero at padding; each text is read without padding."""
        weights = {}
        added = self.lora_b @ self.lora_a  # (layers, 2, width, width)
        for number, (query, value) in enumerate(added):
            name = f"layers.{number}.self_attn.in_proj_weight"
            weights[name] = network.get_parameter(name) + torch.cat([query, torch.zeros_like(query), value])
        lengths = is_word.sum(1)
        hidden = added.new_zeros(*ids.shape, added.shape[-1])
        with torch.autocast(ids.device.type, enabled=False):
            for length in lengths.unique().tolist():
                if length:
                    rows = (lengths == length).nonzero().squeeze(1)
                    found = functional_call(network, weights, (ids[rows, :length],)).float()
                    hidden = hidden.index_put((rows,), F.pad(found, (0, 0, 0, ids.shape[1] - length)))
        return hidden


def projections(module: nn.Module) -> tuple[str, ...]:
    """Names of the query and value layers that a network's attention has; empty where it has no attention."""
    found: set[str] = set()
    for parent in module.modules():
        for pair in PROJECTIONS:
            if all(isinstance(getattr(parent, name, None), nn.Linear) for name in pair):
                found.update(pair)
    return tuple(sorted(found))


def add_lora(module: nn.Module, rank: int = 8, names: Sequence[str] = (), alpha: float | None = None) -> int:
    """Freeze a network and add LoRA to its linear layers of some names; at first it answers as before.

    Args:
        module: The network, changed in place.
        rank: Rank of the additions, from 1.
        names: Last part of the layers' names; empty takes the attention's query and value.
        alpha: Scale of the additions; None is ``rank``, a factor of 1.

    Returns:
        How many layers were adapted.

    Raises:
        ModelError: the rank is not a whole number from 1, or no layer has such a name.
    """
    _checked(rank)
    names = tuple(names) or projections(module)
    module.requires_grad_(False)

    def adapt(layer: nn.Module) -> nn.Module | None:
        return LoraLinear(layer, rank, rank if alpha is None else alpha) if type(layer) is nn.Linear else None

    changed = _replace(module, lambda name, layer: adapt(layer) if name in names else None)
    if not changed:
        raise ModelError(
            f"LoRA: {type(module).__name__} has no linear layers called {names or PROJECTIONS!r}; "
            "use tune = 'frozen' or 'full' for a network without them."
        )
    return changed


def merge_lora(module: nn.Module) -> int:
    """Put the additions of LoRA into the weights, in place; says how many layers. The answers stay the same."""
    return _replace(module, lambda _, layer: layer.merged() if isinstance(layer, LoraLinear) else None)


def _checked(rank: int) -> None:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ModelError(f"LoRA: lora_rank is {rank!r}; allowed is a whole number from 1.")


def _replace(module: nn.Module, change: Callable[[str, nn.Module], nn.Module | None]) -> int:
    """Put ``change(name, layer)`` in place of each layer inside ``module`` for which it is not None."""
    count = 0
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            new = change(name, layer)
            if new is not None:
                setattr(parent, name, new)
                count += 1
    return count


def tune(module: nn.Module, how: str, rank: int, run: Callable[[], Sequence[Tensor]]) -> None:
    """Set what of a pretrained network learns, in place.

    Args:
        module: The network.
        how: ``frozen``: nothing; ``lora``: additions to the attention; ``full``: all that reaches the output.
        rank: Rank of LoRA.
        run: Gives the network's outputs for a small input, by which the parameters that nothing depends on are found
            (a pooler, the mask token of pretraining): they would never get a gradient, so they are frozen.

    Raises:
        ModelError: another word than the three, a bad rank, or no attention for LoRA.
    """
    if how not in WAYS:
        raise ModelError(f"Encoder: tune is {how!r}; allowed: {', '.join(WAYS)}.")
    if how == "frozen":
        module.requires_grad_(False)
        return
    if how == "lora":
        add_lora(module, rank)
    else:
        module.requires_grad_(True)
    learn = [value for value in module.parameters() if value.requires_grad]
    with torch.enable_grad():
        total = torch.stack([output.float().sum() for output in run()]).sum()
    for value, gradient in zip(learn, torch.autograd.grad(total, learn, allow_unused=True), strict=True):
        value.requires_grad_(gradient is not None)
