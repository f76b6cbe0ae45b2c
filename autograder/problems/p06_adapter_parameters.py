"""How adapters are judged."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from ftgrade.judging.problem import (
    AnyCase,
    Case,
    Difference,
    Problem,
    Question,
    Refusal,
    Relation,
    Rng,
    Value,
    call,
    integer,
)

problem = Problem(part="04_parameter_efficient", difficulty=2, importance=4, minutes=45)

Tensor = torch.Tensor


def width(rng: Rng) -> tuple[int, int]:
    """Return a width and a bottleneck that is no divisor of it."""
    return int(rng.integers(20, 60)) * 2 + 1, int(rng.integers(3, 9)) * 2


@problem.check(
    "count", points=2, of="adapter_params", title="one adapter", same=integer,
    concerns=["with and without biases", "a bottleneck as wide as the model"],
    next_step="Write the shapes of the two matrices and of the two biases under each other.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    yield Case("with biases", call("adapter_params", d, m))
    yield Case("without biases", call("adapter_params", d, m, bias=False))
    yield Case("a bottleneck as wide as the model", call("adapter_params", m, m))
    yield Case("a bottleneck of one", call("adapter_params", d, 1))


@problem.check(
    "model", points=2, of="adapter_model_params", title="a whole model", same=integer,
    concerns=["one, two and three adapters a layer", "no biases", "trained layer normalisations"],
    next_step="Count one layer, multiply, and add what isn't repeated in each layer.",
)  # fmt: skip
def model(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    layers = int(rng.integers(4, 9))
    yield Case("two adapters a layer", call("adapter_model_params", d, m, layers))
    yield Case("three adapters a layer", call("adapter_model_params", d, m, layers, per_layer=3))
    yield Case("one adapter a layer, no biases", call("adapter_model_params", d, m, layers, 1, False))
    yield Case("trained layer normalisations", call("adapter_model_params", d, m, layers, 1, True, 2 * layers + 1))


@problem.check(
    "fits", points=1.5, of="largest_bottleneck", title="a budget", same=integer,
    concerns=["exactly at a boundary, and one below", "no biases", "one adapter a layer"],
    next_step="Solve the inequality for m, and put m and m + 1 into it.",
)  # fmt: skip
def fits(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    layers = int(rng.integers(3, 7))
    exact = layers * 2 * (2 * d * m + m + d)
    yield Case("a budget that is used up", call("largest_bottleneck", d, layers, exact))
    yield Case("one parameter less", call("largest_bottleneck", d, layers, exact - 1))
    between = layers * 2 * (2 * d * (m + 1) + 3)
    yield Case("a budget that weights alone would fit", call("largest_bottleneck", d, layers, between))
    bare = layers * 2 * d * m
    yield Case("no biases, one adapter a layer", call("largest_bottleneck", d, layers, bare, 1, False))
    yield Case("one parameter less, no biases", call("largest_bottleneck", d, layers, bare - 1, 1, False))
    yield Case("a budget for a bottleneck of one", call("largest_bottleneck", d, layers, layers * 2 * (3 * d + 1)))
    yield Case("some room left", call("largest_bottleneck", d, layers, exact + layers * d, per_layer=2))


def weights(rng: Rng, d: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return W_down, b_down, W_up and b_up in float64."""
    shapes = ((m, d), (m,), (d, m), (d,))
    W_down, b_down, W_up, b_up = (torch.from_numpy(rng.normal(size=shape)) for shape in shapes)
    return W_down, b_down, W_up, b_up


def itself(h: Tensor) -> Callable[[Value], Difference | None]:
    def holds(outcome: Value) -> Difference | None:
        if torch.is_tensor(outcome.value) and torch.equal(outcome.value, h):
            return None
        return Difference("an adapter that adds nothing changes the hidden state")

    return holds


@problem.check(
    "fwd", points=2, of="adapter_forward", title="the adapter at work",
    concerns=["leading axes", "square weights", "both activations", "an adapter that adds nothing", "gradients"],
    next_step="Follow one hidden state by hand: down, activation, up, and what is added at the end.",
)  # fmt: skip
def fwd(rng: Rng) -> Iterator[AnyCase]:
    h = torch.from_numpy(rng.normal(size=(2, 3, 7)))
    yield Case("two leading axes, relu", call("adapter_forward", h, *weights(rng, 7, 3)), pure=True)
    square = torch.from_numpy(rng.normal(size=5))
    yield Case("square weights, gelu", call("adapter_forward", square, *weights(rng, 5, 5), activation="gelu"))
    trained = [part.requires_grad_() for part in (h[0].clone(), *weights(rng, 7, 4))]
    yield Case("gradients", call("adapter_forward", *trained, backward=True))
    W_down, b_down, W_up, b_up = weights(rng, 7, 3)
    nothing = call("adapter_forward", h, W_down, b_down, torch.zeros_like(W_up), torch.zeros_like(b_up))
    yield Relation("an adapter that adds nothing", (nothing,), itself(h))


@problem.check(
    "jac", points=1.5, of="adapter_jacobian", title="the Jacobian by hand",
    concerns=["closed and open gates", "square weights", "the bias in the gate"],
    next_step="Differentiate output i by input j: which terms contain input j, and through which gates?",
)  # fmt: skip
def jac(rng: Rng) -> Iterator[AnyCase]:
    for words, d, m in (("a narrow bottleneck", 6, 4), ("square weights", 5, 5)):
        W_down, b_down, W_up, _ = weights(rng, d, m)
        h = torch.from_numpy(rng.normal(size=d))
        # Biases that turn about half of the gates against what the weights alone would say.
        pre = W_down @ h
        b_down = torch.where(torch.arange(m) % 2 == 0, -2 * pre, 0.5 * pre)
        W_down[0] = torch.eye(d, dtype=torch.float64)[0]
        b_down[0] = -h[0]  # a gate that stands exactly at 0 is closed
        with torch.inference_mode():
            inputs = [part.clone() for part in (h, W_down, b_down, W_up)]
        yield Case(words, call("adapter_jacobian", *inputs), pure=True)


@problem.check(
    "err", points=1, of="adapter_params", title="invalid input",
    concerns=["zero, negative and fractional numbers", "a budget that is too small", "shapes", "activations"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    yield Refusal("a bottleneck of zero", call("adapter_params", d, 0), "bottleneck")
    yield Refusal("a fractional bottleneck", call("adapter_params", d, m + 0.5), "bottleneck")
    yield Refusal("a width of zero", call("adapter_params", 0, m), "d must")
    yield Refusal("no layers", call("adapter_model_params", d, m, 0), "n_layers")
    yield Refusal("a budget below a bottleneck of one", call("largest_bottleneck", d, 2, 4 * (3 * d + 1) - 1), "budget")
    yield Refusal("a negative budget", call("largest_bottleneck", d, 2, -m), "budget")
    W_down, b_down, W_up, b_up = weights(rng, 6, 3)
    h = torch.from_numpy(rng.normal(size=(2, 6)))
    yield Refusal("a W_up of W_down's shape", call("adapter_forward", h, W_down, b_down, W_down, b_up), "shape")
    yield Refusal("a narrower hidden state", call("adapter_forward", h[:, 1:], W_down, b_down, W_up, b_up), "shape")
    five = (h, W_down, b_down, W_up, b_up)
    yield Refusal("an unknown activation", call("adapter_forward", *five, activation="tanh"), "activation")


@problem.personal(title="your model", same=integer, next_step="Count one adapter, then say how often it stands there.")
def mine(rng: Rng) -> Question:
    d, m = 64 * int(rng.integers(6, 20)), int(rng.choice([12, 24, 48, 96]))
    layers, norms = int(rng.integers(6, 30)), int(rng.integers(2, 9))
    words = (
        f"A model of {layers} layers has d = {d}. Each layer gets two adapters with a bottleneck of {m} and biases; "
        f"{norms} LayerNorms (gain and bias) are trained besides. How many parameters are trained?"
    )
    return Question(words, call("adapter_model_params", d, m, layers, n_trained_layernorms=norms))


# ---------------------------------------------------------------------------------------------------------- mistakes

Count = Callable[[int, int, bool], float]
ModelCount = Callable[[int, int, int, int, bool, int], int]
Bottleneck = Callable[[int, int, int, int, bool], int]
Forward = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Any], Tensor]
Jacobian = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def demand(d: float, m: float = 1, n_layers: float = 1) -> None:
    for name, value in (("d must", d), ("bottleneck", m), ("n_layers", n_layers)):
        if value < 1 or value != int(value):
            raise ValueError(f"{name} be a whole number")


def right(d: int, m: int, bias: bool) -> int:
    return 2 * d * m + (d + m if bias else 0)


def count_mistake(name: str, formula: Count, says: str, next_step: str) -> None:
    def function(d: int, m: int, bias: bool = True) -> Any:
        demand(d, m)
        return formula(d, m, bias)

    problem.mistake(name=name, replaces="adapter_params", says=says, next_step=next_step)(function)


BIASES = "The map down gives m numbers, the map up gives d: each output has one bias."

count_mistake(
    "weights_only", lambda d, m, bias: 2 * d * m, "Your count holds no biases.", BIASES,
)  # fmt: skip
count_mistake(
    "bias_always", lambda d, m, bias: right(d, m, True), "Your count holds biases also where there are none.",
    "Use the argument `bias`.",
)  # fmt: skip
count_mistake(
    "bias_down_only", lambda d, m, bias: 2 * d * m + (m if bias else 0), "Your count lacks the upper bias.", BIASES,
)  # fmt: skip
count_mistake(
    "bias_up_only", lambda d, m, bias: 2 * d * m + (d if bias else 0), "Your count lacks the lower bias.", BIASES,
)  # fmt: skip
count_mistake(
    "bias_2m", lambda d, m, bias: 2 * d * m + (2 * m if bias else 0), "Both of your biases have m numbers.", BIASES,
)  # fmt: skip
count_mistake(
    "bias_2d", lambda d, m, bias: 2 * d * m + (2 * d if bias else 0), "Both of your biases have d numbers.", BIASES,
)  # fmt: skip
count_mistake(
    "one_matrix", lambda d, m, bias: d * m + (d + m if bias else 0), "Your count holds one matrix only.",
    "An adapter goes down and up again.",
)  # fmt: skip
count_mistake(
    "sum_not_product", lambda d, m, bias: 2 * (d + m) + (d + m if bias else 0),
    "Your count adds a matrix's sides; its entries are their product.", "A (m, d) matrix has m times d entries.",
)  # fmt: skip
count_mistake(
    "square_core", lambda d, m, bias: right(d, m, bias) + m * m, "Your count adds an m by m matrix between the two.",
    "Only an activation stands there.",
)  # fmt: skip
count_mistake(
    "adds_layernorm", lambda d, m, bias: right(d, m, bias) + 2 * d, "Your count adds a layer normalisation.",
    "It has an argument of its own, in the model's count.",
)  # fmt: skip
count_mistake(
    "adds_frozen", lambda d, m, bias: right(d, m, bias) + d * d, "Your count adds a frozen weight.",
    "Count the adapter alone.",
)  # fmt: skip
count_mistake(
    "reduction_factor", lambda d, m, bias: right(d, max(1, d // m), bias),
    "Your bottleneck is d divided by m.", "m is the bottleneck itself, not a reduction factor.",
)  # fmt: skip
count_mistake(
    "returns_float", lambda d, m, bias: float(right(d, m, bias)), "Your count is a float.", "Stay in integers.",
)  # fmt: skip


@problem.mistake(
    replaces="adapter_params", says="A bottleneck of zero is counted.", next_step="Refuse it by name.",
)  # fmt: skip
def zero_bottleneck_counted(d: int, m: int, bias: bool = True) -> int:
    demand(d, m or 1)
    return right(d, m, bias)


def model_mistake(name: str, formula: ModelCount, says: str, next_step: str) -> None:
    """Register a wrong model's count; it takes d, m, layers, adapters a layer, bias, trained normalisations."""

    def function(
        d: int, m: int, n_layers: int, per_layer: int = 2, bias: bool = True, n_trained_layernorms: int = 0
    ) -> int:
        demand(d, m, n_layers)
        return formula(d, m, n_layers, per_layer, bias, n_trained_layernorms)

    problem.mistake(name=name, replaces="adapter_model_params", says=says, next_step=next_step)(function)


model_mistake(
    "per_layer_ignored", lambda d, m, n, k, b, ln: n * right(d, m, b) + 2 * d * ln,
    "Your count has one adapter a layer.", "Houlsby's layers have two: use `per_layer`.",
)  # fmt: skip
model_mistake(
    "two_per_layer_always", lambda d, m, n, k, b, ln: 2 * n * right(d, m, b) + 2 * d * ln,
    "Your count has two adapters a layer, whatever is asked.", "Use `per_layer`.",
)  # fmt: skip
model_mistake(
    "layers_forgotten", lambda d, m, n, k, b, ln: k * right(d, m, b) + 2 * d * ln,
    "Your count holds one layer.", "Multiply by `n_layers`.",
)  # fmt: skip
model_mistake(
    "layernorm_per_layer", lambda d, m, n, k, b, ln: n * (k * right(d, m, b) + 2 * d * ln),
    "Your layer normalisations are multiplied by the number of layers.", "They're counted over the whole model.",
)  # fmt: skip
model_mistake(
    "layernorm_gain_only", lambda d, m, n, k, b, ln: n * k * right(d, m, b) + d * ln,
    "Your layer normalisations have a gain and no offset.", "Each holds 2 d numbers.",
)  # fmt: skip
model_mistake(
    "layernorms_ignored", lambda d, m, n, k, b, ln: n * k * right(d, m, b),
    "Your count leaves the trained layer normalisations out.", "Add 2 d for each.",
)  # fmt: skip
model_mistake(
    "bias_not_forwarded", lambda d, m, n, k, b, ln: n * k * right(d, m, True) + 2 * d * ln,
    "Your model's adapters have biases, asked for or not.", "Hand `bias` on to the count of one adapter.",
)  # fmt: skip


def budget_mistake(name: str, formula: Bottleneck, says: str, next_step: str, refuses: bool = True) -> None:
    def function(d: int, n_layers: int, budget: int, per_layer: int = 2, bias: bool = True) -> int:
        demand(d, 1, n_layers)
        if refuses and budget < n_layers * per_layer * right(d, 1, bias):
            raise ValueError("budget")
        return formula(d, n_layers, budget, per_layer, bias)

    problem.mistake(name=name, replaces="largest_bottleneck", says=says, next_step=next_step)(function)


def solved(d: int, n_layers: int, budget: int, per_layer: int, bias: bool) -> int:
    fixed, each = (d, 2 * d + 1) if bias else (0, 2 * d)
    return max(0, (budget // (n_layers * per_layer) - fixed) // each)


budget_mistake(
    "budget_not_used_up", lambda d, n, b, k, bias: solved(d, n, b - 1, k, bias),
    "Your bottleneck leaves a budget unused that fits exactly.", "At most, not less than.",
)  # fmt: skip
budget_mistake(
    "budget_ignores_bias_of_m", lambda d, n, b, k, bias: (b // (n * k) - (d if bias else 0)) // (2 * d),
    "Your inequality forgets that each unit of the bottleneck brings a bias.", "Collect all terms with m.",
)  # fmt: skip
budget_mistake(
    "budget_ignores_biases", lambda d, n, b, k, bias: b // (n * k * 2 * d),
    "Your inequality has no biases.", "Use the count of one adapter.",
)  # fmt: skip
budget_mistake(
    "budget_for_one_layer", lambda d, n, b, k, bias: solved(d, 1, b, k, bias),
    "Your budget is spent in one layer.", "Every layer has its adapters.",
)  # fmt: skip
budget_mistake(
    "budget_for_one_adapter", lambda d, n, b, k, bias: solved(d, n, b, 1, bias),
    "Your budget is for one adapter a layer.", "Use `per_layer`.",
)  # fmt: skip
budget_mistake(
    "budget_exceeded", lambda d, n, b, k, bias: solved(d, n, b, k, bias) + 1,
    "Your bottleneck doesn't fit: it's one too large.", "Put it into the count.",
)  # fmt: skip
budget_mistake(
    "budget_zero_allowed", solved,
    "A budget that buys nothing gives a bottleneck of zero.", "Refuse it by name.", False,
)  # fmt: skip


def forward_mistake(name: str, formula: Forward, says: str, next_step: str) -> None:
    """Register a wrong pass; it takes h, W_down, b_down, W_up, b_up and the activation as a function."""

    def function(
        h: Tensor, W_down: Tensor, b_down: Tensor, W_up: Tensor, b_up: Tensor, activation: str = "relu"
    ) -> Tensor:
        if activation not in ("relu", "gelu"):
            raise ValueError("activation")
        if W_up.shape != W_down.T.shape or h.shape[-1] != W_down.shape[1]:
            raise ValueError("shape")
        return formula(h, W_down, b_down, W_up, b_up, F.relu if activation == "relu" else F.gelu)

    problem.mistake(name=name, replaces="adapter_forward", says=says, next_step=next_step)(function)


def branch(h: Tensor, wd: Tensor, bd: Tensor, wu: Tensor, bu: Tensor, f: Any) -> Tensor:
    return F.linear(f(F.linear(h, wd, bd)), wu, bu)


def in_place(h: Tensor, *rest: Any) -> Tensor:
    with torch.no_grad():
        added = branch(h, *rest)
        return h.add_(added) if not h.requires_grad else h + added


def tanh_gelu(z: Tensor, f: Any) -> Tensor:
    return F.gelu(z, approximate="tanh") if f is F.gelu else f(z)


forward_mistake(
    "no_residual", branch, "Your output lacks the residual.", "The adapter adds to the hidden state.",
)  # fmt: skip
forward_mistake(
    "residual_activated", lambda h, wd, bd, wu, bu, f: f(h) + branch(h, wd, bd, wu, bu, f),
    "Your residual goes through the activation.", "The hidden state itself is added.",
)  # fmt: skip
forward_mistake(
    "output_activated", lambda h, wd, bd, wu, bu, f: h + f(branch(h, wd, bd, wu, bu, f)),
    "Your output has a second activation.", "There is one, in the bottleneck.",
)  # fmt: skip
forward_mistake(
    "no_activation", lambda h, wd, bd, wu, bu, f: h + F.linear(F.linear(h, wd, bd), wu, bu),
    "Your adapter is linear.", "Use the activation in the bottleneck.",
)  # fmt: skip
forward_mistake(
    "down_transposed_if_square", lambda h, wd, bd, wu, bu, f: h + F.linear(
        f((h @ wd if wd.shape[0] == wd.shape[1] else h @ wd.T) + bd), wu, bu
    ),
    "Your lower matrix is transposed where it's square.", "For rows h the map is h @ W_down.T.",
)  # fmt: skip
forward_mistake(
    "up_transposed_if_square", lambda h, wd, bd, wu, bu, f: h + F.linear(
        f(F.linear(h, wd, bd)), wu.T if wd.shape[0] == wd.shape[1] else wu, bu
    ),
    "Your upper matrix is transposed where it's square.", "For rows z the map is z @ W_up.T.",
)  # fmt: skip
forward_mistake(
    "lower_bias_forgotten", lambda h, wd, bd, wu, bu, f: h + F.linear(f(F.linear(h, wd)), wu, bu),
    "Your lower map has no bias.", "Add it before the activation.",
)  # fmt: skip
forward_mistake(
    "upper_bias_forgotten", lambda h, wd, bd, wu, bu, f: h + F.linear(f(F.linear(h, wd, bd)), wu),
    "Your upper map has no bias.", "Add it after the map up.",
)  # fmt: skip
forward_mistake(
    "gelu_by_tanh", lambda h, wd, bd, wu, bu, f: h + F.linear(tanh_gelu(F.linear(h, wd, bd), f), wu, bu),
    "Your GELU is the tanh approximation.", "Use the exact one, with the error function.",
)  # fmt: skip
forward_mistake(
    "relu_always", lambda h, wd, bd, wu, bu, f: h + branch(h, wd, bd, wu, bu, F.relu),
    "Your activation is relu, whatever is asked.", "Use the argument `activation`.",
)  # fmt: skip
forward_mistake(
    "changes_h", in_place, "Your adapter writes into the hidden state that it was given.", "Return a new tensor.",
)  # fmt: skip


def jacobian_mistake(name: str, formula: Jacobian, says: str, next_step: str) -> None:
    problem.mistake(name=name, replaces="adapter_jacobian", says=says, next_step=next_step)(formula)


def gate(h: Tensor, W_down: Tensor, b_down: Tensor) -> Tensor:
    return (W_down @ h + b_down > 0).to(h.dtype)


def identity(h: Tensor) -> Tensor:
    return torch.eye(len(h), dtype=h.dtype)


jacobian_mistake(
    "jacobian_no_identity", lambda h, wd, bd, wu: (wu * gate(h, wd, bd)) @ wd,
    "Your Jacobian lacks the residual's identity.", "What does an input do that passes by the bottleneck?",
)  # fmt: skip
jacobian_mistake(
    "jacobian_no_gate", lambda h, wd, bd, wu: identity(h) + wu @ wd,
    "Your Jacobian takes all gates to be open.", "relu's derivative is 1 where it's positive and 0 elsewhere.",
)  # fmt: skip
jacobian_mistake(
    "gate_without_bias", lambda h, wd, bd, wu: identity(h) + (wu * gate(h, wd, torch.zeros_like(bd))) @ wd,
    "Your gates are decided without the bias.", "A gate is open where the whole pre-activation is positive.",
)  # fmt: skip
jacobian_mistake(
    "gate_inverted", lambda h, wd, bd, wu: identity(h) + (wu * (1 - gate(h, wd, bd))) @ wd,
    "Your gates are the wrong way round.", "Open where the pre-activation is positive.",
)  # fmt: skip
jacobian_mistake(
    "gate_is_the_activation", lambda h, wd, bd, wu: identity(h) + (wu * torch.relu(wd @ h + bd)) @ wd,
    "Your gates hold relu itself instead of its derivative.", "relu's derivative is 0 or 1.",
)  # fmt: skip
jacobian_mistake(
    "jacobian_transposed", lambda h, wd, bd, wu: (identity(h) + (wu * gate(h, wd, bd)) @ wd).T,
    "Your Jacobian is transposed.", "A row for each output, a column for each input.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "adapter_jacobian: torch.eye(len(h), dtype=h.dtype) -> torch.eye(len(h))":
        "the sum takes the wider type, which is h's",
})  # fmt: skip
