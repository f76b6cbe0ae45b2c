"""Count and run bottleneck adapters: contracts and references (arXiv:1902.00751)."""

import torch
import torch.nn.functional as F


def adapter_params(d: int, m: int, bias: bool = True) -> int:
    """Return the number of parameters of one adapter of width d and bottleneck m.

    An adapter goes down, W_down of shape (m, d), and up again, W_up of shape (d, m). With `bias` each of the two maps
    has one. The activation and the residual connection hold no parameters.

    Errors: ValueError whose message contains `d must` or `bottleneck` if d or m is not a whole number of at least 1.

    >>> adapter_params(6, 2), adapter_params(6, 2, bias=False)
    (32, 24)
    >>> adapter_params(6, -2)  # err
    Traceback (most recent call last):
    ValueError: ...bottleneck...
    """
    d, m = whole(d, "d"), whole(m, "the bottleneck m")
    # A bias belongs to a map's output: m numbers below, d above.
    return 2 * d * m + (m + d if bias else 0)


def adapter_model_params(
    d: int, m: int, n_layers: int, per_layer: int = 2, bias: bool = True, n_trained_layernorms: int = 0
) -> int:
    """Return the number of trained parameters of a model with `per_layer` adapters in each of its layers.

    `n_trained_layernorms` counts the layer normalisations of the whole model that are trained too; each has a gain and
    an offset of width d.

    Errors: as in `adapter_params`, and ValueError whose message contains `n_layers` if that is less than 1.

    >>> adapter_model_params(6, 2, n_layers=3), adapter_model_params(6, 2, 3, per_layer=1, n_trained_layernorms=7)
    (192, 180)

    Always: a layer more adds one layer's adapters.

    >>> adapter_model_params(8, 3, 5) - adapter_model_params(8, 3, 4) == 2 * adapter_params(8, 3)
    True
    """
    d, n_layers = whole(d, "d"), whole(n_layers, "n_layers")
    return n_layers * per_layer * adapter_params(d, m, bias) + n_trained_layernorms * 2 * d


def largest_bottleneck(d: int, n_layers: int, budget: int, per_layer: int = 2, bias: bool = True) -> int:
    """Return the largest bottleneck whose adapters together hold at most `budget` parameters.

    No layer normalisation is trained.

    Errors: ValueError whose message contains `budget` if not even a bottleneck of 1 fits; `d must` or `n_layers` as
    above.

    >>> largest_bottleneck(6, n_layers=3, budget=200), largest_bottleneck(6, n_layers=3, budget=192)
    (2, 2)

    Always: what it returns fits, and one more doesn't.

    >>> m = largest_bottleneck(16, 4, 5000)
    >>> adapter_model_params(16, m, 4) <= 5000 < adapter_model_params(16, m + 1, 4)
    True
    """
    d, adapters = whole(d, "d"), whole(n_layers, "n_layers") * per_layer
    # adapters (m (2 d + 1) + d) <= budget with biases: each unit of the bottleneck brings a bias of its own.
    fixed, each = (d, 2 * d + 1) if bias else (0, 2 * d)
    m = (budget // adapters - fixed) // each
    if m < 1:
        raise ValueError(f"budget must allow a bottleneck of 1, {adapters * (each + fixed)} parameters; got {budget}")
    return int(m)


def adapter_forward(
    h: torch.Tensor, W_down: torch.Tensor, b_down: torch.Tensor, W_up: torch.Tensor, b_up: torch.Tensor,
    activation: str = "relu",
) -> torch.Tensor:  # fmt: skip
    """Return the adapter's output for hidden states h of shape (..., d): the input plus what the bottleneck adds.

    W_down is (m, d), b_down (m,), W_up (d, m), b_up (d,). `activation` is "relu" or "gelu", the exact one with the
    error function. With W_up = 0 and b_up = 0 the output equals h exactly.

    Errors: ValueError whose message contains `activation` (neither word) or `shape` (the five don't fit together).

    >>> h = torch.tensor([1.0, -2.0])
    >>> adapter_forward(h, torch.tensor([[1.0, 1.0]]), torch.tensor([3.0]), torch.ones(2, 1), torch.zeros(2)).tolist()
    [3.0, 0.0]
    >>> gelu = adapter_forward(h, torch.zeros(1, 2), torch.tensor([2.0]), torch.ones(2, 1), torch.zeros(2), "gelu")
    >>> [round(entry, 4) for entry in gelu.tolist()]
    [2.9545, -0.0455]
    """
    if activation not in ("relu", "gelu"):
        raise ValueError(f"activation must be 'relu' or 'gelu', got {activation!r}")
    m, d = b_down.numel(), b_up.numel()
    shapes = (h.shape[-1:], W_down.shape, b_down.shape, W_up.shape, b_up.shape)
    if shapes != ((d,), (m, d), (m,), (d, m), (d,)):
        raise ValueError(
            "shape: h (..., d), W_down (m, d), b_down (m,), W_up (d, m), b_up (d,) must fit together; got "
            f"{tuple(h.shape)}, {tuple(W_down.shape)}, {tuple(b_down.shape)}, {tuple(W_up.shape)}, {tuple(b_up.shape)}"
        )
    activate = F.relu if activation == "relu" else F.gelu
    z = activate(F.linear(h, W_down, b_down))
    return h + F.linear(z, W_up, b_up)


def adapter_jacobian(h: torch.Tensor, W_down: torch.Tensor, b_down: torch.Tensor, W_up: torch.Tensor) -> torch.Tensor:
    """Return the Jacobian of the relu adapter's output by its input at one hidden state h (d,): a (d, d) matrix.

    Entry (i, j) is the derivative of output i by input j. No pre-activation is closer to 0 than 0.0001, but some are
    closer than 0.001, and no weight is above 20 in size. The inputs may be inference tensors, on which autograd
    refuses to work.

    >>> eye = torch.eye(2)
    >>> adapter_jacobian(torch.tensor([1.0, -1.0]), eye, torch.zeros(2), eye).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    open_gates = (F.linear(h, W_down, b_down) > 0).to(h.dtype)
    # Closed gates pass nothing: the correction to the identity has at most m directions, fewer where gates are closed.
    return torch.eye(len(h), dtype=h.dtype) + (W_up * open_gates) @ W_down


def whole(value: int, name: str) -> int:
    """Return a whole number of at least 1 as a Python int, or raise ValueError with its name."""
    if not value >= 1 or value % 1 != 0:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
