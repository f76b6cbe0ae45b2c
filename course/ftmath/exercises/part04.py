"""The exercises of part 4: parameter-efficient fine-tuning."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ridge(H: Tensor, Y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return W (C, d) and b (C,) that minimise |H W^T + b - Y|^2 + strength |W|^2 for H (N, d), Y (N, C).

    The bias isn't penalised: solve on centred data, then b is what takes mean to mean.

    >>> W, b = ridge(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]), 0.0)
    >>> W.item(), b.item()
    (1.0, 1.0)
    """
    Hc, Yc = H - H.mean(0), Y - Y.mean(0)  # blank
    gram = Hc.T @ Hc + strength * torch.eye(H.shape[1], dtype=H.dtype)
    W = torch.linalg.solve(gram, Hc.T @ Yc).T  # blank
    return W, Y.mean(0) - W @ H.mean(0)  # blank


def active_rank(h: Tensor, W_down: Tensor, b_down: Tensor) -> int:
    """Return an upper bound on the rank of an adapter's correction W_up diag(gate) W_down at h (d,), for ReLU.

    It's the number of units that are strictly on, or d if that is less; W_down is (m, d), b_down (m,).

    >>> active_rank(torch.tensor([1.0]), torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    1
    """
    return min(int((W_down @ h + b_down > 0).sum()), len(h))


def prepend(embeddings: Tensor, P: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings (B, m + T, d), labels and attention mask (B, m + T) with the soft prompt P (m, d) in front.

    Virtual tokens are never targets (-100) and always seen.

    >>> parts = prepend(torch.zeros(1, 2, 3), torch.ones(1, 3), torch.tensor([[5, 6]]), torch.ones(1, 2))
    >>> [tuple(part.shape) for part in parts], parts[1].tolist()
    ([(1, 3, 3), (1, 3), (1, 3)], [[-100, 5, 6]])
    """
    rows, m = len(embeddings), len(P)
    return (
        torch.cat([P.expand(rows, -1, -1).to(embeddings), embeddings], dim=1),
        F.pad(labels, (m, 0), value=-100),
        F.pad(mask, (m, 0), value=1),
    )


def prefix_bytes(layers: int, m: int, kv_heads: int, head_dim: int, size: int) -> int:
    """Return the bytes of a KV prefix of m positions in every layer, `size` bytes a number.

    >>> prefix_bytes(32, 20, 8, 128, 2)
    2621440
    """
    return 2 * layers * m * kv_heads * head_dim * size


def first_update(G: Tensor, A: Tensor, alpha: float, rate: float) -> Tensor:
    """Return Delta W (d_out, d_in) after one SGD step on LoRA that starts at B = 0.

    G (d_out, d_in) is the loss's gradient with respect to the full weight, A (r, d_in) the drawn factor; s = alpha / r.

    >>> first_update(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0, 0.1)
    tensor([[-0.4000]])
    """
    s = alpha / A.shape[0]
    return -rate * s**2 * G @ A.T @ A


def gate(q: Tensor, K: Tensor, K_prefix: Tensor) -> float:
    """Return which share of one query's attention goes to a prefix: q (d,), K (T, d), K_prefix (m, d).

    Scores are q.k / sqrt(d).

    >>> round(gate(torch.ones(1), torch.zeros(1, 1), torch.zeros(3, 1)), 4)
    0.75
    """
    content, prefix = (keys @ q / q.shape[0] ** 0.5 for keys in (K, K_prefix))
    return float(torch.sigmoid(prefix.logsumexp(0) - content.logsumexp(0)))


def same_budget(d: int, layers: int, m: int) -> tuple[int, int, int]:
    """Return what Houlsby adapters of width m cost, and the LoRA rank and soft-prompt length that fit that budget.

    Adapters: two a block, with biases. LoRA: on q and v, both (d, d), in each layer. A soft prompt: tokens of width d.

    >>> same_budget(8, 2, 1)
    (100, 1, 12)
    """
    budget = 2 * layers * (2 * d * m + m + d)
    return budget, budget // (2 * layers * 2 * d), budget // d


# ------------------------------------------------------------------------------------------ what people write instead


def bias_penalised(H: Tensor, Y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    wide = torch.cat([H, torch.ones(len(H), 1, dtype=H.dtype)], dim=1)
    gram = wide.T @ wide + strength * torch.eye(wide.shape[1], dtype=H.dtype)
    found = torch.linalg.solve(gram, wide.T @ Y).T
    return found[:, :-1], found[:, -1]


def strength_times_items(H: Tensor, Y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    return ridge(H, Y, strength * len(H))


def no_bias(H: Tensor, Y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    gram = H.T @ H + strength * torch.eye(H.shape[1], dtype=H.dtype)
    return torch.linalg.solve(gram, H.T @ Y).T, torch.zeros(Y.shape[1], dtype=H.dtype)


def width(h: Tensor, W_down: Tensor, b_down: Tensor) -> int:
    return min(len(W_down), len(h))


def units_alone(h: Tensor, W_down: Tensor, b_down: Tensor) -> int:
    return int((W_down @ h + b_down > 0).sum())


def zero_is_on(h: Tensor, W_down: Tensor, b_down: Tensor) -> int:
    return min(int((W_down @ h + b_down >= 0).sum()), len(h))


def bias_forgotten(h: Tensor, W_down: Tensor, b_down: Tensor) -> int:
    return min(int((W_down @ h > 0).sum()), len(h))


def appended(embeddings: Tensor, P: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m = len(P)
    joined = torch.cat([embeddings, P.expand(len(embeddings), -1, -1).to(embeddings)], dim=1)
    return joined, F.pad(labels, (0, m), value=-100), F.pad(mask, (0, m), value=1)


def labelled_zero(embeddings: Tensor, P: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    joined, _, seen = prepend(embeddings, P, labels, mask)
    return joined, F.pad(labels, (len(P), 0), value=0), seen


def not_seen(embeddings: Tensor, P: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    joined, learned, _ = prepend(embeddings, P, labels, mask)
    return joined, learned, F.pad(mask, (len(P), 0), value=0)


def keys_only(layers: int, m: int, kv_heads: int, head_dim: int, size: int) -> int:
    return layers * m * kv_heads * head_dim * size


def one_layer(layers: int, m: int, kv_heads: int, head_dim: int, size: int) -> int:
    return 2 * m * kv_heads * head_dim * size


def numbers_not_bytes(layers: int, m: int, kv_heads: int, head_dim: int, size: int) -> int:
    return 2 * layers * m * kv_heads * head_dim


def scale_once(G: Tensor, A: Tensor, alpha: float, rate: float) -> Tensor:
    return -rate * alpha / A.shape[0] * G @ A.T @ A


def outer_of_rows(G: Tensor, A: Tensor, alpha: float, rate: float) -> Tensor:
    return -rate * (alpha / A.shape[0]) ** 2 * (A @ A.T).trace() * G


def uphill(G: Tensor, A: Tensor, alpha: float, rate: float) -> Tensor:
    return -first_update(G, A, alpha, rate)


def share_of_tokens(q: Tensor, K: Tensor, K_prefix: Tensor) -> float:
    return len(K_prefix) / (len(K) + len(K_prefix))


def not_scaled(q: Tensor, K: Tensor, K_prefix: Tensor) -> float:
    return float(torch.sigmoid((K_prefix @ q).logsumexp(0) - (K @ q).logsumexp(0)))


def content_share(q: Tensor, K: Tensor, K_prefix: Tensor) -> float:
    return 1 - gate(q, K, K_prefix)


def without_biases(d: int, layers: int, m: int) -> tuple[int, int, int]:
    budget = 2 * layers * 2 * d * m
    return budget, budget // (2 * layers * 2 * d), budget // d


def one_adapter(d: int, layers: int, m: int) -> tuple[int, int, int]:
    budget = layers * (2 * d * m + m + d)
    return budget, budget // (2 * layers * 2 * d), budget // d


def one_target(d: int, layers: int, m: int) -> tuple[int, int, int]:
    budget, _, tokens = same_budget(d, layers, m)
    return budget, budget // (layers * 2 * d), tokens


H4, Y4 = drawn(1, 20, 4), drawn(2, 20, 3) + 5

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "4.1", "A ridge probe", ridge,
        cases=[(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]), 0.0), (H4, Y4, 0.7), (H4, Y4, 50.0),
               (torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.tensor([[1.0], [2], [2]]), 1.0)],
        hints=["Subtract the means: the bias drops out.", "W solves (Hc^T Hc + strength I) W^T = Hc^T Yc.", "b = mean(Y) - W mean(H)."],
        mistakes=[
            Mistake(bias_penalised, "The bias was penalised too: a shift of all targets then changes W."),
            Mistake(strength_times_items, "The strength isn't multiplied by the number of items: the loss is a sum."),
            Mistake(no_bias, "Without a bias, W has to explain the mean as well."),
        ],
        minutes=8, difficulty=3, tolerance=1e-5,
    ),
    Exercise(
        "4.2", "How many units are on", active_rank,
        cases=[(torch.tensor([1.0]), torch.tensor([[1.0], [-1.0]]), torch.zeros(2)), (drawn(3, 6), drawn(4, 4, 6), 3 * drawn(5, 4)),
               (torch.zeros(3), torch.ones(4, 3), torch.tensor([0.0, 1.0, -1.0, 0.0])), (drawn(4, 2), drawn(5, 7, 2), torch.full((7,), 9.0, dtype=torch.float64))],
        hints=["ReLU passes what is above 0.", "Its slope at exactly 0 counts as 0.", "Count the entries of W_down h + b_down that are positive. A (d, d) matrix has no rank above d."],
        mistakes=[
            Mistake(width, "m is the most there can be; units that are off add nothing at this h."),
            Mistake(units_alone, "An adapter may be wider than d: the correction is a (d, d) matrix, and its rank is at most d."),
            Mistake(zero_is_on, "At exactly 0 a unit passes nothing: its slope is 0."),
            Mistake(bias_forgotten, "The gate looks at W_down h + b_down."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "4.3", "Put a soft prompt in front", prepend,
        cases=[(torch.zeros(1, 2, 3), torch.ones(1, 3), torch.tensor([[5, 6]]), torch.ones(1, 2)),
               (drawn(6, 2, 4, 3), drawn(7, 5, 3), torch.tensor([[-100, 2, 3, -100], [1, 2, 3, 4]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))],
        hints=["The same P stands before each row.", "Labels grow by m columns of -100, or targets shift by m.", "The mask grows by m columns of 1."],
        mistakes=[
            Mistake(appended, "Behind the text no real token sees it: attention is causal."),
            Mistake(labelled_zero, "0 is a token: the model would learn to say it. Not a target is -100."),
            Mistake(not_seen, "A mask of 0 hides the prompt from everyone: nothing is learned."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "4.4", "What a prefix takes in memory", prefix_bytes,
        cases=[(32, 20, 8, 128, 2), (1, 1, 1, 1, 4), (4, 8, 2, 32, 4)],
        hints=["Keys and values.", "In every layer, for every key-value head.", "Times the bytes of a number."],
        mistakes=[
            Mistake(keys_only, "Keys and values: twice that."),
            Mistake(one_layer, "Every layer has a prefix of its own."),
            Mistake(numbers_not_bytes, "Those are numbers; each takes `size` bytes."),
        ],
        minutes=3, difficulty=1,
    ),
    Exercise(
        "4.5", "LoRA's first step", first_update,
        cases=[(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0, 0.1), (drawn(8, 3, 4), drawn(9, 2, 4), 6.5, 0.01), (drawn(10, 5, 3), drawn(11, 1, 3), 2.0, 0.1)],
        hints=["At B = 0 only B moves.", "dL/dB = s G A^T.", "Delta W = s B A brings a second s."],
        mistakes=[
            Mistake(scale_once, "s enters twice: once in the gradient of B, once in Delta W = s B A."),
            Mistake(outer_of_rows, "A^T A is a (d_in, d_in) matrix: it projects G, it doesn't scale it."),
            Mistake(uphill, "Gradient descent steps against the gradient."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "4.A", "The prefix's gate", gate,
        cases=[(torch.ones(1), torch.zeros(1, 1), torch.zeros(3, 1)), (drawn(12, 4), drawn(13, 5, 4), drawn(14, 2, 4)), (20 * drawn(15, 9), 20 * drawn(16, 4, 9), 20 * drawn(17, 3, 9))],
        hints=["One softmax runs over both.", "The share is Z_p / (Z_p + Z).", "With logs: sigmoid of the difference of two logsumexps, which doesn't overflow."],
        mistakes=[
            Mistake(share_of_tokens, "That holds if all scores are equal."),
            Mistake(not_scaled, "Scores are divided by sqrt(d)."),
            Mistake(content_share, "That is what the content keeps."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "4.B", "One budget, three methods", same_budget,
        cases=[(8, 2, 1), (768, 12, 64), (128, 4, 8)],
        hints=["An adapter with biases: 2 d m + m + d.", "Two of them a block.", "LoRA of rank 1 on q and v costs 2 * 2 d a layer."],
        mistakes=[
            Mistake(without_biases, "The adapter's biases count: m + d each."),
            Mistake(one_adapter, "Houlsby's placement has two adapters a block."),
            Mistake(one_target, "LoRA stands on q and on v: rank 1 costs 4 d a layer."),
        ],
        minutes=6, difficulty=2,
    ),
]  # fmt: skip
