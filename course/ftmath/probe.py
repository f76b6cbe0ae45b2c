"""What frozen features already say: linear probes, solved exactly, and a head that is trained alone."""

import copy

import torch
from torch import Tensor, nn

from ftmath.model import Decoder


@torch.no_grad()
def features(model: Decoder, ids: Tensor, attention_mask: Tensor, places: Tensor) -> Tensor:
    """Return the residual stream at one place (batch,) of each row, at every level: (L + 1, batch, d_model).

    Level 0 is the embedding, level l the output of block l, before the final norm.

    >>> from ftmath.model import Config
    >>> ids = torch.tensor([[1, 70, 2]])
    >>> features(Decoder(Config(layers=2)), ids, torch.ones_like(ids), torch.tensor([2])).shape
    torch.Size([3, 1, 128])
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, object]) -> None:
        stream = output if isinstance(output, Tensor) else output[0]
        found.append(stream[torch.arange(len(ids)), places])

    handles = [module.register_forward_hook(keep) for module in (model.embed, *model.blocks)]
    try:
        model.hidden(ids, attention_mask)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)


def ridge_probe(H: Tensor, Y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return W (C, d) and b (C,) that minimise |H W^T + b - Y|^2 + strength |W|^2: the bias is not penalised.

    H is (items, d), Y is (items, C).

    >>> W, b = ridge_probe(torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([[1.0], [2], [2]]), 1.0)
    >>> [round(w, 4) for w in W[0].tolist()], round(b.item(), 4)
    ([-0.125, 0.375], 1.5)

    Errors: ValueError for a negative strength, or sides of unequal length.
    """
    if strength < 0 or len(H) != len(Y):
        raise ValueError(f"strength must not be negative and H and Y equally long, got {strength}, {len(H)}, {len(Y)}")
    centred = H - H.mean(0)
    gram = centred.T @ centred + strength * torch.eye(H.shape[1], dtype=H.dtype, device=H.device)
    W = torch.linalg.solve(gram, centred.T @ (Y - Y.mean(0))).T
    return W, Y.mean(0) - W @ H.mean(0)


def add_head(model: Decoder) -> None:
    """Give a model a head of its own, a copy of what it had, and train that alone: C d parameters, no bias.

    >>> from ftmath.model import Config
    >>> model = Decoder(Config(layers=1))
    >>> add_head(model)
    >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    16384
    """
    model.requires_grad_(False)
    model.head = copy.deepcopy(model.head)
    model.head.requires_grad_(True)


__all__ = ["add_head", "features", "ridge_probe"]
