"""How adapters are judged."""

from collections.abc import Callable, Iterator

import torch
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

BIASES = "The map down gives m numbers, the map up gives d: each output has one bias."

problem.slip(
    "weights_only", "adapter_params", {" + (m + d if bias else 0)": ""},
    says="Your count holds no biases.", next_step=BIASES,
)  # fmt: skip
problem.slip(
    "bias_always", "adapter_params", {"m + d if bias else 0": "m + d"},
    says="Your count holds biases also where there are none.", next_step="Use the argument `bias`.",
)  # fmt: skip
for name, numbers, says in (
    ("bias_down_only", "m", "Your count lacks the upper bias."),
    ("bias_up_only", "d", "Your count lacks the lower bias."),
    ("bias_2m", "2 * m", "Both of your biases have m numbers."),
    ("bias_2d", "2 * d", "Both of your biases have d numbers."),
):
    problem.slip(name, "adapter_params", {"m + d if": f"{numbers} if"}, says=says, next_step=BIASES)
for name, numbers, says, next_step in (
    ("one_matrix", "d * m", "Your count holds one matrix only.", "An adapter goes down and up again."),
    ("sum_not_product", "2 * (d + m)",
        "Your count adds a matrix's sides; its entries are their product.", "A (m, d) matrix has m times d entries."),
    ("square_core", "2 * d * m + m * m",
        "Your count adds an m by m matrix between the two.", "Only an activation stands there."),
    ("adds_layernorm", "2 * d * m + 2 * d",
        "Your count adds a layer normalisation.", "It has an argument of its own, in the model's count."),
    ("adds_frozen", "2 * d * m + d * d", "Your count adds a frozen weight.", "Count the adapter alone."),
):  # fmt: skip
    problem.slip(name, "adapter_params", {"2 * d * m": numbers}, says=says, next_step=next_step)
problem.slip(
    "reduction_factor", "adapter_params", {"whole(m,": "d // whole(m,"},
    says="Your bottleneck is d divided by m.", next_step="m is the bottleneck itself, not a reduction factor.",
)  # fmt: skip
problem.slip(
    "returns_float", "adapter_params", {"2 * d * m": "2.0 * d * m"},
    says="Your count is a float.", next_step="Stay in integers.",
)  # fmt: skip
problem.slip(
    "zero_bottleneck_counted", "adapter_params", {"whole(m,": "m and whole(m,"},
    says="A bottleneck of zero is counted.", next_step="Refuse it by name.",
)  # fmt: skip

problem.slip(
    "per_layer_ignored", "adapter_model_params", {" * per_layer": ""},
    says="Your count has one adapter a layer.", next_step="Houlsby's layers have two: use `per_layer`.",
)  # fmt: skip
problem.slip(
    "two_per_layer_always", "adapter_model_params", {" * per_layer": " * 2"},
    says="Your count has two adapters a layer, whatever is asked.", next_step="Use `per_layer`.",
)  # fmt: skip
problem.slip(
    "layers_forgotten", "adapter_model_params", {"n_layers * per_layer": "per_layer"},
    says="Your count holds one layer.", next_step="Multiply by `n_layers`.",
)  # fmt: skip
problem.slip(
    "layernorm_per_layer", "adapter_model_params", {" + n_trained": " + n_layers * n_trained"},
    says="Your layer normalisations are multiplied by the number of layers.",
    next_step="They're counted over the whole model.",
)  # fmt: skip
problem.slip(
    "layernorm_gain_only", "adapter_model_params", {" * 2 * d": " * d"},
    says="Your layer normalisations have a gain and no offset.", next_step="Each holds 2 d numbers.",
)  # fmt: skip
problem.slip(
    "layernorms_ignored", "adapter_model_params", {" + n_trained_layernorms * 2 * d": ""},
    says="Your count leaves the trained layer normalisations out.", next_step="Add 2 d for each.",
)  # fmt: skip
problem.slip(
    "bias_not_forwarded", "adapter_model_params", {"(d, m, bias)": "(d, m)"},
    says="Your model's adapters have biases, asked for or not.",
    next_step="Hand `bias` on to the count of one adapter.",
)  # fmt: skip

problem.slip(
    "budget_not_used_up", "largest_bottleneck", {"budget // adapters": "(budget - 1) // adapters"},
    says="Your bottleneck leaves a budget unused that fits exactly.", next_step="At most, not less than.",
)  # fmt: skip
problem.slip(
    "budget_ignores_bias_of_m", "largest_bottleneck", {"2 * d + 1": "2 * d"},
    says="Your inequality forgets that each unit of the bottleneck brings a bias.",
    next_step="Collect all terms with m.",
)  # fmt: skip
problem.slip(
    "budget_ignores_biases", "largest_bottleneck", {"(d, 2 * d + 1) if bias else ": ""},
    says="Your inequality has no biases.", next_step="Use the count of one adapter.",
)  # fmt: skip
problem.slip(
    "budget_for_one_layer", "largest_bottleneck", {"budget // adapters": "budget // per_layer"},
    says="Your budget is spent in one layer.", next_step="Every layer has its adapters.",
)  # fmt: skip
problem.slip(
    "budget_for_one_adapter", "largest_bottleneck", {"budget // adapters": "budget // n_layers"},
    says="Your budget is for one adapter a layer.", next_step="Use `per_layer`.",
)  # fmt: skip
problem.slip(
    "budget_exceeded", "largest_bottleneck", {"return m": "return m + 1"},
    says="Your bottleneck doesn't fit: it's one too large.", next_step="Put it into the count.",
)  # fmt: skip
problem.slip(
    "budget_zero_allowed", "largest_bottleneck", {"if m < 1:": "if m < 0:"},
    says="A budget that buys nothing gives a bottleneck of zero.", next_step="Refuse it by name.",
)  # fmt: skip

problem.slip(
    "no_residual", "adapter_forward", {"return h + ": "return "},
    says="Your output lacks the residual.", next_step="The adapter adds to the hidden state.",
)  # fmt: skip
problem.slip(
    "residual_activated", "adapter_forward", {"return h + ": "return activate(h) + "},
    says="Your residual goes through the activation.", next_step="The hidden state itself is added.",
)  # fmt: skip
problem.slip(
    "output_activated", "adapter_forward", {"F.linear(z, W_up, b_up)": "activate(F.linear(z, W_up, b_up))"},
    says="Your output has a second activation.", next_step="There is one, in the bottleneck.",
)  # fmt: skip
problem.slip(
    "no_activation", "adapter_forward", {"activate(F": "(F"},
    says="Your adapter is linear.", next_step="Use the activation in the bottleneck.",
)  # fmt: skip
problem.slip(
    "down_transposed_if_square", "adapter_forward", {"(h, W_down, b": "(h, W_down.T if d == m else W_down, b"},
    says="Your lower matrix is transposed where it's square.", next_step="For rows h the map is h @ W_down.T.",
)  # fmt: skip
problem.slip(
    "up_transposed_if_square", "adapter_forward", {"(z, W_up, b": "(z, W_up.T if d == m else W_up, b"},
    says="Your upper matrix is transposed where it's square.", next_step="For rows z the map is z @ W_up.T.",
)  # fmt: skip
problem.slip(
    "lower_bias_forgotten", "adapter_forward", {"(h, W_down, b_down)": "(h, W_down)"},
    says="Your lower map has no bias.", next_step="Add it before the activation.",
)  # fmt: skip
problem.slip(
    "upper_bias_forgotten", "adapter_forward", {"(z, W_up, b_up)": "(z, W_up)"},
    says="Your upper map has no bias.", next_step="Add it after the map up.",
)  # fmt: skip
problem.slip(
    "gelu_by_tanh", "adapter_forward", {"else F.gelu": 'else lambda z: F.gelu(z, approximate="tanh")'},
    says="Your GELU is the tanh approximation.", next_step="Use the exact one, with the error function.",
)  # fmt: skip
problem.slip(
    "relu_always", "adapter_forward", {' if activation == "relu" else F.gelu': ""},
    says="Your activation is relu, whatever is asked.", next_step="Use the argument `activation`.",
)  # fmt: skip
problem.slip(
    "changes_h", "adapter_forward", {"h + F.linear(z, W_up, b_up)": "h.add_(F.linear(z, W_up, b_up))"},
    says="Your adapter writes into the hidden state that it was given.", next_step="Return a new tensor.",
)  # fmt: skip

problem.slip(
    "jacobian_no_identity", "adapter_jacobian", {"torch.eye(len(h), dtype=h.dtype) + ": ""},
    says="Your Jacobian lacks the residual's identity.",
    next_step="What does an input do that passes by the bottleneck?",
)  # fmt: skip
problem.slip(
    "jacobian_no_gate", "adapter_jacobian", {"(W_up * open_gates)": "W_up"},
    says="Your Jacobian takes all gates to be open.",
    next_step="relu's derivative is 1 where it's positive and 0 elsewhere.",
)  # fmt: skip
problem.slip(
    "gate_without_bias", "adapter_jacobian", {"(h, W_down, b_down)": "(h, W_down)"},
    says="Your gates are decided without the bias.",
    next_step="A gate is open where the whole pre-activation is positive.",
)  # fmt: skip
problem.slip(
    "gate_inverted", "adapter_jacobian", {"> 0": "<= 0"},
    says="Your gates are the wrong way round.", next_step="Open where the pre-activation is positive.",
)  # fmt: skip
problem.slip(
    "gate_is_the_activation", "adapter_jacobian",
    {"(F.linear(h, W_down, b_down) > 0).to(h.dtype)": "F.relu(F.linear(h, W_down, b_down))"},
    says="Your gates hold relu itself instead of its derivative.", next_step="relu's derivative is 0 or 1.",
)  # fmt: skip
problem.slip(
    "jacobian_transposed", "adapter_jacobian", {"(W_up * open_gates) @ W_down": "((W_up * open_gates) @ W_down).T"},
    says="Your Jacobian is transposed.", next_step="A row for each output, a column for each input.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "adapter_jacobian: torch.eye(len(h), dtype=h.dtype) -> torch.eye(len(h))":
        "the sum takes the wider type, which is h's",
})  # fmt: skip
