"""The exercises of part 4: parameter-efficient fine-tuning."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.adapters import Bottleneck
from ftmath.exercises.exercise import Exercise, Mistake
from ftmath.model import Block, Config, Decoder
from ftmath.rotary import rotated, turn

Shape = tuple[int, ...]


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


def local_map(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrix M (d, d) and the vector c (d,) that an adapter is near h: its output at x is M x + c.

    The adapter gives x + W_up relu(W_down x + b_down) + b_up. Near h means: for every x at which the same units are on as at
    h (d,); a unit is on if its input to the ReLU is above 0. W_down is (m, d), W_up (d, m), b_down (m,), b_up (d,).

    >>> one = torch.ones(1, 1)
    >>> M, c = local_map(torch.tensor([3.0]), 2 * one, torch.tensor([-1.0]), 4 * one, torch.tensor([0.5]))
    >>> M.item(), c.item()
    (9.0, -3.5)
    """
    on = (W_down @ h + b_down > 0).to(h.dtype)
    M = torch.eye(len(h), dtype=h.dtype) + (W_up * on) @ W_down
    return M, W_up @ (on * b_down) + b_up


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


def longest_prefix(d: int, heads: int, kv_heads: int, head_dim: int, rank: int) -> int:
    """Return the longest prefix in every layer that holds no more numbers than LoRA of a rank on q and v does.

    q maps the width d to `heads` heads of width head_dim, v maps d to `kv_heads` of them. A prefix has keys and values.

    >>> longest_prefix(d=8, heads=4, kv_heads=2, head_dim=2, rank=2)
    7
    """
    lora = rank * (d + heads * head_dim) + rank * (d + kv_heads * head_dim)
    return lora // (2 * kv_heads * head_dim)


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


def method_of(shapes: Sequence[Shape], d: int, layers: int) -> tuple[str, int]:
    """Return which method a file of trained tensors belongs to, and its size, from the tensors' shapes alone.

    The methods, each on a model of width d with so many layers, are "LoRA" (its rank), "Houlsby" adapters with two a block and
    "Pfeiffer" adapters with one (their width m), "prefix" (its length in each layer), and "soft prompt" (its length). Adapters
    have biases. A prefix has keys and values of shape (kv_heads, m, head_dim). The rank is less than any side of a weight.

    >>> method_of([(4, 16), (16, 4)] * 6, d=16, layers=3)
    ('LoRA', 4)

    Errors: ValueError naming `shapes` if they are none of these.
    """
    matrices = [shape for shape in shapes if len(shape) == 2]
    if len(shapes) == 2 * layers and all(len(shape) == 3 for shape in shapes):
        return "prefix", shapes[0][1]
    if shapes == [*matrices] and len(shapes) == 1 and shapes[0][1] == d:
        return "soft prompt", shapes[0][0]
    if shapes and len(matrices) == len(shapes) and len(shapes) % 2 == 0:
        return "LoRA", min(map(min, matrices))
    if len(matrices) in (2 * layers, 4 * layers) and len(shapes) == 2 * len(matrices):
        width = next((side for shape in matrices for side in shape if side != d), d)
        return ("Houlsby" if len(matrices) == 4 * layers else "Pfeiffer"), width
    raise ValueError(f"shapes must be those of one of the five methods, got {len(shapes)} tensors")


# ------------------------------------------- an adapter, its place in a model, a prefix in attention, what trained


def bottleneck(d: int, m: int) -> nn.Module:
    """Return an adapter: h + up(relu(down(h))), which changes nothing at first and can learn.

    It has the attributes `down` and `up`, linear layers with biases from d to m and back. Write a class in this cell, or
    inside the function.

    >>> adapter = bottleneck(6, 2)
    >>> torch.equal(adapter(torch.ones(3, 6)), torch.ones(3, 6)), sum(one.numel() for one in adapter.parameters())
    (True, 32)
    """

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(d, m), nn.Linear(m, d)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

        def forward(self, h: Tensor) -> Tensor:
            return h + self.up(F.relu(self.down(h)))

    return Adapter()


def place_adapters(model: Decoder, m: int) -> Decoder:
    """Put two adapters of width m into each block of a decoder, freeze all that was there before, and return the model.

    One stands behind the attention's output layer, `block.attn.o`, one behind the MLP's, `block.mlp.down`; so each changes
    what is about to be added to the residual stream. `Bottleneck(d, m)` of ftmath is an adapter; the width d is
    `model.config.d_model`.

    >>> model = place_adapters(small_model(), 2)
    >>> sum(one.numel() for one in model.parameters() if one.requires_grad)
    168
    """
    model.requires_grad_(False)
    d = model.config.d_model
    for block in blocks_of(model):
        block.attn.o = nn.Sequential(block.attn.o, Bottleneck(d, m))
        block.mlp.down = nn.Sequential(block.mlp.down, Bottleneck(d, m))
    return model


def prefixed_attention(q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, real: Tensor) -> Tensor:
    """Return causal attention over a sequence with a trained prefix before it, (batch, heads, time, head_dim).

    q, k and v have that shape too. q and k aren't rotated yet: the sequence's positions begin after the prefix, at m. The
    prefix's keys and values (heads, m, head_dim) are the same for each row of the batch, are seen by every query, and aren't
    rotated. `real` (batch, time) is 1 for tokens and 0 for padding, whose keys nobody sees. `turn(positions, head_dim,
    10_000.0)` makes the angles of positions (batch, time), and `rotated(x, angles)` turns.

    >>> one = torch.ones(1, 1, 3, 2)
    >>> prefixed_attention(one, one, one, torch.zeros(1, 4, 2), torch.ones(1, 4, 2), torch.ones(1, 3)).shape
    torch.Size([1, 1, 3, 2])
    """
    batch, _, time, head_dim = q.shape
    m = prefix_k.shape[1]
    angles = turn((m + torch.arange(time)).expand(batch, -1), head_dim, 10_000.0)
    keys = torch.cat([prefix_k.expand(batch, -1, -1, -1), rotated(k, angles)], dim=2)
    values = torch.cat([prefix_v.expand(batch, -1, -1, -1), v], dim=2)
    seen = torch.ones(time, time, dtype=torch.bool).tril() & (real[:, None, None, :] != 0)
    seen = F.pad(seen, (m, 0), value=True)
    return F.scaled_dot_product_attention(rotated(q, angles), keys, values, attn_mask=seen)


def what_trained(
    sizes: Mapping[str, int], added: set[str], trains: set[str], gradient: set[str], held: set[str], moved: set[str]
) -> tuple[str, int]:
    """Return what became of a method's parameters after some steps, in words, and how many numbers really trained.

    `sizes` gives how many numbers each parameter of the model holds. The sets hold names: those the method `added`, those with
    requires_grad (`trains`), those that had a gradient that wasn't None, those that the optimizer `held`, and those whose value
    `moved`. The first of these that is true is the answer:

    - "the base moved": a parameter that the method didn't add has moved;
    - "right": all that were added have moved;
    - "frozen": one that was added and stood still has no requires_grad;
    - "not in the forward": one that stood still never had a gradient;
    - "not in the optimizer": the optimizer doesn't hold one that stood still;
    - "no step": anything else, such as gradients of 0.

    >>> what_trained({"w": 9, "a": 2}, added={"a"}, trains={"a"}, gradient={"a"}, held={"w"}, moved=set())
    ('not in the optimizer', 0)
    """
    trained, still = sum(sizes[name] for name in moved), added - moved
    if moved - added:
        return "the base moved", trained
    if not still:
        return "right", trained
    for known, words in ((trains, "frozen"), (gradient, "not in the forward"), (held, "not in the optimizer")):
        if still - known:
            return words, trained
    return "no step", trained


# ------------------------------------------------------------------------------------ what the steps are tried on


def small_model(layers: int = 2) -> Decoder:
    """Return a decoder of width 8 whose weights are the same each time."""
    config = Config(vocab=11, d_model=8, layers=layers, heads=2, kv_heads=2, head_dim=4, d_hidden=12)
    return Decoder(config, torch.Generator().manual_seed(5))


def blocks_of(model: Decoder) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def trained_shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return sorted(tuple(one.shape) for one in module.parameters() if one.requires_grad)


@torch.no_grad()
def filled(module: nn.Module) -> None:
    """Give every adapter in a module weights that aren't zero, the same each time."""
    for place, one in enumerate(one for one in module.modules() if hasattr(one, "down") and hasattr(one, "up")):
        for number, part in enumerate((one.down, one.up)):
            if isinstance(part, nn.Linear):
                for parameter in part.parameters():
                    parameter.copy_(0.5 * drawn(31 + 2 * place + number, *parameter.shape))


def behaviour(adapter: nn.Module) -> dict[str, object]:
    """Return what is compared of an adapter: what trains, whether a fresh one is the identity, and what a filled one gives."""
    shapes = trained_shapes(adapter)
    h = drawn(30, 4, shapes[-1][0]).float()
    with torch.no_grad():
        fresh = torch.equal(adapter(h), h)
        stuck = not any(one.any() for one in adapter.parameters())
        filled(adapter)
        return {"shapes": shapes, "fresh": fresh, "stuck": stuck, "given": adapter(h)}


def placed(model: Decoder) -> dict[str, object]:
    """Return what is compared of a model with adapters: what trains, its logits, and its logits with filled adapters."""
    ids = torch.tensor([[1, 4, 7, 2, 9]])
    with torch.no_grad():
        fresh = model(ids)
        adapters = [one for one in model.modules() if isinstance(one, Bottleneck)]
        for place, adapter in enumerate(adapters):
            adapter.up.weight.copy_(drawn(40 + place, *adapter.up.weight.shape))
            adapter.down.weight.copy_(drawn(60 + place, *adapter.down.weight.shape))
        return {"shapes": trained_shapes(model), "fresh": fresh, "filled": model(ids)}


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


def slope_alone(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    M, c = local_map(h, W_down, b_down, W_up, b_up)
    return M - torch.eye(len(h), dtype=h.dtype), c


def all_units(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.eye(len(h), dtype=h.dtype) + W_up @ W_down, W_up @ b_down + b_up


def inner_bias_lost(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    return local_map(h, W_down, b_down, W_up, b_up)[0], b_up


def output_as_offset(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    M, c = local_map(h, W_down, b_down, W_up, b_up)
    return M, M @ h + c - h


def gates_without_bias(h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor) -> tuple[Tensor, Tensor]:
    on = (W_down @ h > 0).to(h.dtype)
    return torch.eye(len(h), dtype=h.dtype) + (W_up * on) @ W_down, W_up @ (on * b_down) + b_up


def heads_not_grouped(d: int, heads: int, kv_heads: int, head_dim: int, rank: int) -> int:
    return rank * (2 * d + (heads + kv_heads) * head_dim) // (2 * heads * head_dim)


def square_v(d: int, heads: int, kv_heads: int, head_dim: int, rank: int) -> int:
    return 2 * rank * (d + heads * head_dim) // (2 * kv_heads * head_dim)


def keys_only(d: int, heads: int, kv_heads: int, head_dim: int, rank: int) -> int:
    return rank * (2 * d + (heads + kv_heads) * head_dim) // (kv_heads * head_dim)


def one_target(d: int, heads: int, kv_heads: int, head_dim: int, rank: int) -> int:
    return rank * (d + heads * head_dim) // (2 * kv_heads * head_dim)


def biases_overlooked(shapes: Sequence[Shape], d: int, layers: int) -> tuple[str, int]:
    return method_of([shape for shape in shapes if len(shape) > 1], d, layers)


def least_side(shapes: Sequence[Shape], d: int, layers: int) -> tuple[str, int]:
    name, size = method_of(shapes, d, layers)
    return (name, min(size, d)) if name in ("Houlsby", "Pfeiffer") else (name, size)


def one_a_block(shapes: Sequence[Shape], d: int, layers: int) -> tuple[str, int]:
    name, size = method_of(shapes, d, layers)
    return ("Pfeiffer" if name == "Houlsby" else name), size


def first_axis(shapes: Sequence[Shape], d: int, layers: int) -> tuple[str, int]:
    name, size = method_of(shapes, d, layers)
    return (name, shapes[0][0]) if name == "prefix" else (name, size)


def changed(start: Callable[[nn.Module], object]) -> Callable[[int, int], nn.Module]:
    def build(d: int, m: int) -> nn.Module:
        adapter = bottleneck(d, m)
        start(adapter)
        return adapter

    return build


def no_residual(d: int, m: int) -> nn.Module:
    adapter = bottleneck(d, m)
    adapter.forward = lambda h: adapter.up(F.relu(adapter.down(h)))  # pyright: ignore
    return adapter


def no_activation(d: int, m: int) -> nn.Module:
    adapter = bottleneck(d, m)
    adapter.forward = lambda h: h + adapter.up(adapter.down(h))  # pyright: ignore
    return adapter


def drawn_up(d: int, m: int) -> nn.Module:
    return changed(lambda adapter: nn.init.normal_(adapter.up.weight))(d, m)  # pyright: ignore


def all_zero(d: int, m: int) -> nn.Module:
    return changed(lambda adapter: [nn.init.zeros_(one) for one in adapter.parameters()])(d, m)


def base_trains(model: Decoder, m: int) -> Decoder:
    return place_adapters(model, m).requires_grad_(True)


def all_frozen(model: Decoder, m: int) -> Decoder:
    return place_adapters(model, m).requires_grad_(False)


def behind_mlp_alone(model: Decoder, m: int) -> Decoder:
    model.requires_grad_(False)
    for block in blocks_of(model):
        block.mlp.down = nn.Sequential(block.mlp.down, Bottleneck(model.config.d_model, m))
    return model


def one_for_all(model: Decoder, m: int) -> Decoder:
    model.requires_grad_(False)
    shared = [Bottleneck(model.config.d_model, m) for _ in range(2)]
    for block in blocks_of(model):
        block.attn.o, block.mlp.down = (
            nn.Sequential(layer, one) for layer, one in zip((block.attn.o, block.mlp.down), shared, strict=True)
        )
    return model


def in_front(model: Decoder, m: int) -> Decoder:
    model.requires_grad_(False)
    for block in blocks_of(model):
        block.attn.o = nn.Sequential(Bottleneck(model.config.d_model, m), block.attn.o)
        block.mlp.down = nn.Sequential(block.mlp.down, Bottleneck(model.config.d_model, m))
    return model


Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def attended(*parts: *Six, start: int | None = None, wide: Tensor | None = None, turned: bool = False) -> Tensor:
    """Return attention with a prefix, with one slip: other positions, another mask, or a prefix that is rotated."""
    q, k, v, prefix_k, prefix_v, real = parts
    (batch, _, time, head_dim), m = q.shape, prefix_k.shape[1]
    angles = turn(((m if start is None else start) + torch.arange(time)).expand(batch, -1), head_dim, 10_000.0)
    before = prefix_k.expand(batch, -1, -1, -1)
    if turned:
        before = rotated(before, turn(torch.arange(m).expand(batch, -1), head_dim, 10_000.0))
    keys, values = torch.cat([before, rotated(k, angles)], 2), torch.cat([prefix_v.expand(batch, -1, -1, -1), v], 2)
    seen = torch.ones(time, time, dtype=torch.bool).tril()
    seen = F.pad(seen & (real[:, None, None, :] != 0), (m, 0), value=True)
    return F.scaled_dot_product_attention(rotated(q, angles), keys, values, attn_mask=seen if wide is None else wide)


def tril_of_all(q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, real: Tensor) -> Tensor:
    m, time = prefix_k.shape[1], q.shape[2]
    wide = torch.ones(time, m + time, dtype=torch.bool).tril() & F.pad(real != 0, (m, 0), value=True)[:, None, None, :]
    return attended(q, k, v, prefix_k, prefix_v, real, wide=wide)


def positions_from_zero(q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, real: Tensor) -> Tensor:
    return attended(q, k, v, prefix_k, prefix_v, real, start=0)


def prefix_rotated(q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, real: Tensor) -> Tensor:
    return attended(q, k, v, prefix_k, prefix_v, real, turned=True)


def padding_seen(q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, real: Tensor) -> Tensor:
    return attended(q, k, v, prefix_k, prefix_v, torch.ones_like(real))


Names = set[str]


def by_flags(
    sizes: Mapping[str, int], added: Names, trains: Names, gradient: Names, held: Names, moved: Names
) -> tuple[str, int]:
    return what_trained(sizes, added, trains, gradient, held, moved)[0], sum(sizes[name] for name in trains)


def by_names(
    sizes: Mapping[str, int], added: Names, trains: Names, gradient: Names, held: Names, moved: Names
) -> tuple[str, int]:
    return what_trained(sizes, added, trains, gradient, held, moved)[0], len(moved)


def base_overlooked(
    sizes: Mapping[str, int], added: Names, trains: Names, gradient: Names, held: Names, moved: Names
) -> tuple[str, int]:
    words, _ = what_trained(sizes, added, trains, gradient, held, moved & added)
    return words, sum(sizes[name] for name in moved)


def optimizer_first(
    sizes: Mapping[str, int], added: Names, trains: Names, gradient: Names, held: Names, moved: Names
) -> tuple[str, int]:
    words, trained = what_trained(sizes, added, trains, gradient, held, moved)
    late = words in ("frozen", "not in the forward") and (added - moved) - held
    return ("not in the optimizer" if late else words), trained


ADAPTERS: list[Shape] = [(8, 128), (8,), (128, 8), (128,)]
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
        "4.2", "What an adapter is near a point", local_map,
        cases=[(torch.tensor([3.0]), torch.tensor([[2.0]]), torch.tensor([-1.0]), torch.tensor([[4.0]]), torch.tensor([0.5])),
               (drawn(3, 6), drawn(4, 4, 6), 3 * drawn(5, 4), drawn(6, 6, 4), drawn(7, 6)), (drawn(8, 2), drawn(9, 7, 2), drawn(10, 7), drawn(11, 2, 7), drawn(12, 2)),
               (torch.zeros(3), torch.ones(4, 3), torch.tensor([0.0, 1.0, -1.0, 0.0]), torch.ones(3, 4), torch.zeros(3))],
        hints=["Which units are on at h? A unit that is on passes its input unchanged, the others pass 0.", "Write relu(z) as on * z, put z = W_down x + b_down in, and sort by what multiplies x and what doesn't.",
               "M = I + W_up diag(on) W_down; the rest, W_up (on * b_down) + b_up, is c."],
        mistakes=[
            Mistake(slope_alone, "The residual path carries x itself: M contains the identity."),
            Mistake(all_units, "Units that are off at h pass nothing, there and nearby: leave them out."),
            Mistake(inner_bias_lost, "The units that are on pass their bias too: W_up (on * b_down) belongs to c."),
            Mistake(output_as_offset, "c is what is left when x is 0 under the same units, not how far h itself moves."),
            Mistake(gates_without_bias, "Whether a unit is on is decided by W_down h + b_down."),
        ],
        minutes=8, difficulty=3,
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
        "4.4", "A prefix as large as LoRA", longest_prefix,
        cases=[(8, 4, 2, 2, 2), (4096, 32, 8, 128, 16), (128, 4, 4, 32, 4), (576, 9, 3, 64, 8)],
        hints=["Both stand in every layer, so one layer is enough.", "LoRA: rank * (d_in + d_out) for q and for v; with grouped heads v is narrower than q.", "One position of a prefix costs a key and a value for each key-value head. Round down."],
        mistakes=[
            Mistake(heads_not_grouped, "A prefix stands in the key-value heads: with grouped heads there are fewer of them."),
            Mistake(square_v, "v maps to the key-value heads alone: its d_out is kv_heads * head_dim."),
            Mistake(keys_only, "A position of a prefix has a key and a value."),
            Mistake(one_target, "LoRA stands on q and on v."),
        ],
        minutes=6, difficulty=3,
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
        "4.B", "Which method was this", method_of,
        cases=[([(4, 16), (16, 4)] * 6, 16, 3), (ADAPTERS * 4, 128, 2), (ADAPTERS * 2, 128, 2), ([(4, 8, 32)] * 8, 128, 4), ([(20, 4096)], 4096, 32),
               ([(16, 4096), (4096, 16), (16, 4096), (1024, 16)] * 2, 4096, 2), ([(40, 16), (40,), (16, 40), (16,)] * 6, 16, 3), ([(3, 5, 7)] * 2, 15, 1)],
        errors=[(([(5,)], 8, 2), "shapes"), (([], 8, 2), "shapes")],
        hints=["What has three axes? What has vectors with one axis, and what hasn't?", "A soft prompt is a single matrix. LoRA has matrices alone, in pairs.", "Two adapters a block make 4 matrices a layer. An adapter may be wider than d: its width is the side that isn't d."],
        mistakes=[
            Mistake(biases_overlooked, "The vectors are an adapter's biases; LoRA has none."),
            Mistake(least_side, "An adapter may be wider than the model: its width is the side that isn't d."),
            Mistake(one_a_block, "Count the matrices: two adapters a block have four."),
            Mistake(first_axis, "The first axis of a prefix counts key-value heads; its length is the second."),
        ],
        minutes=9, difficulty=3,
    ),
    Exercise(
        "4.C", "Build: an adapter", bottleneck,
        cases=[(6, 2), (5, 3), (4, 4)],
        hints=["Subclass nn.Module, with two nn.Linear.", "The residual path is `h + ...`.", "A fresh adapter is the identity if `up` gives 0: zero its weight and its bias, and leave `down` as it was drawn."],
        mistakes=[
            Mistake(no_residual, "Without `h +` a fresh adapter gives 0 for everything, and the layer is dead."),
            Mistake(no_activation, "Without an activation the two maps are one low-rank matrix: put the ReLU between them."),
            Mistake(drawn_up, "A fresh adapter must be the identity: `up` starts at 0, its weight and its bias."),
            Mistake(all_zero, "With `down` at 0 beside `up` at 0, ReLU passes nothing and neither weight gets a gradient: leave `down` as it was drawn."),
        ],
        minutes=8, difficulty=2, read=behaviour,
    ),
    Exercise(
        "4.D", "Build: put it into the model", place_adapters,
        cases=[(small_model(), 2), (small_model(3), 5)],
        hints=["Freeze first (`model.requires_grad_(False)`), add afterwards: new parameters train by default.", "`nn.Sequential(layer, adapter)` is a layer with an adapter behind it.", "Each block gets two new adapters, for `block.attn.o` and for `block.mlp.down`."],
        mistakes=[
            Mistake(base_trains, "The model's own weights still train: freeze them before you add the adapters."),
            Mistake(all_frozen, "Nothing trains: you froze after adding. Freeze first."),
            Mistake(behind_mlp_alone, "Two a block: one behind the attention's output as well."),
            Mistake(one_for_all, "All blocks share the same adapters: make new ones inside the loop."),
            Mistake(in_front, "One stands in front of its layer: what it changes is then mixed by the layer. It belongs behind."),
        ],
        minutes=10, difficulty=3, read=placed,
    ),
    Exercise(
        "4.E", "Build: a prefix in attention", prefixed_attention,
        cases=[(*(drawn(seed, 2, 2, 5, 4) for seed in (70, 71, 72)), drawn(73, 2, 3, 4), drawn(74, 2, 3, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])),
               (*(drawn(seed, 1, 3, 2, 6) for seed in (75, 76, 77)), drawn(78, 3, 1, 6), drawn(79, 3, 1, 6), torch.ones(1, 2))],
        hints=["Rotate q and k by positions m, m + 1, ...; then put the prefix's keys and values before k and v.", "Build the mask of the sequence alone first: causal, and no padding among the keys.", "Then widen it by m columns of True on the left (`F.pad`), and hand it to F.scaled_dot_product_attention."],
        mistakes=[
            Mistake(tril_of_all, "`tril` on the wide mask gives query t the first t + 1 of all keys, the prefix's first. Build the square mask, then widen it."),
            Mistake(positions_from_zero, "The sequence's positions begin after the prefix, at m: the prefix isn't rotated, so the distance to it matters."),
            Mistake(prefix_rotated, "The prefix's keys are trained as they stand: they aren't rotated."),
            Mistake(padding_seen, "Padding is seen: hide its keys by `real`."),
        ],
        minutes=12, difficulty=4,
    ),
    Exercise(
        "4.F", "Build: what really trained", what_trained,
        cases=[({"w": 9, "v": 4, "a": 2, "b": 3}, {"a", "b"}, *map(set, names)) for names in (
            ("ab", "ab", "ab", "ab"), ("wab", "wab", "wab", "wab"), ("ab", "ab", "wv", ""), ("a", "a", "ab", "a"), ("ab", "a", "ab", "a"), ("ab", "ab", "ab", "a"),
            ("", "", "wv", ""), ("ab", "", "wv", ""), ("ab", "ab", "wa", "w"), ("a", "", "a", ""))],
        hints=["Sets subtract: `added - moved` are those that should have moved and didn't.", "Go through the answers in the order given, and return the first that is true.", "Numbers that really trained are those of the parameters that moved, whatever their flags say."],
        mistakes=[
            Mistake(by_flags, "requires_grad says what may train. Count the numbers of what moved."),
            Mistake(by_names, "That counts parameters; each holds many numbers."),
            Mistake(base_overlooked, "Look at the base first: a parameter that wasn't added has moved."),
            Mistake(optimizer_first, "A frozen parameter isn't held either, but the cause comes first: check requires_grad, then the gradient, then the optimizer."),
        ],
        minutes=10, difficulty=3,
    ),
]  # fmt: skip
