"""How adapters are judged."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, wanting_gradients
from ftgrade.judging.problem import (
    AnyCase,
    Call,
    Case,
    Close,
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


def once(words: str, asked: Call, promise: str = "") -> Case:
    """Return a case that is asked once a student."""
    return Case(words, asked, promise=promise, once=True)


Holds = Callable[..., Difference | None]


def exact_ints(*expected: int) -> Holds:
    """Demand these numbers as Python ints; NumPy's aren't what is promised."""

    def holds(*outcomes: Value) -> Difference | None:
        if any(outcome.value != right for outcome, right in zip(outcomes, expected, strict=True)):
            return Difference("the count differs")
        return None if all(type(outcome.value) is int for outcome in outcomes) else Difference("it isn't a Python int")

    return holds


def size(d: int, m: int, bias: bool = True) -> int:
    return 2 * d * m + (m + d if bias else 0)


def with_each_of_numpy(function: str, right: int, **whole: int) -> Relation:
    """Return calls with Python's integers, with each argument alone as NumPy's, and with all of them."""
    ways: list[dict[str, Any]] = [whole]
    for kind in (np.int32, np.int64):
        ways += [{**whole, name: kind(value)} for name, value in whole.items()]
        ways.append({name: kind(value) for name, value in whole.items()})
    calls = tuple(call(function, **way) for way in ways)
    return Relation("Python's and NumPy's integers", calls, exact_ints(*[right] * len(ways)), promise=INTS)


INTS = problem.promise(
    "ints", "Counts are Python `int`s below $2^{31}$. `d`, `m`, `n_layers` and `budget` may be NumPy's"
)
problem.promise(
    "count", "Return the number of parameters of one adapter of width d and bottleneck m.",
    "An adapter goes down, W_down of shape (m, d), and up again, W_up of shape (d, m).",
    "The activation and the residual connection hold no parameters.",
)  # fmt: skip
BIAS = problem.promise("bias", "With `bias` each of the two maps has one.")


@problem.check(
    "count", points=2, of="adapter_params", title="one adapter", same=integer,
    concerns=["with and without biases", "a bottleneck as wide as the model", "NumPy integers"],
    next_step="Write the shapes of the two matrices and of the two biases under each other.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    yield Case("with biases", call("adapter_params", d, m))
    yield Case("without biases", call("adapter_params", d, m, bias=False))
    yield Case("a bottleneck as wide as the model", call("adapter_params", m, m), promise=BIAS)
    yield Case("a bottleneck of one", call("adapter_params", d, 1), promise=BIAS)
    yield with_each_of_numpy("adapter_params", size(d, m), d=d, m=m)
    yield with_each_of_numpy("adapter_params", size(200, 200), d=200, m=200)
    for wide in (1, 2, 7, d, 200):
        for narrow in (1, 2, 5, m, 128, 200):
            for bias in (True, False):
                asked = call("adapter_params", wide, narrow, bias=bias)
                yield once("sizes from 1 to 200", asked, BIAS if narrow in (1, wide) else "")


problem.promise(
    "model",
    "Return the number of trained parameters of a model with `per_layer` adapters in each of its layers.",
    "a layer more adds one layer's adapters",
)  # fmt: skip
NORMS = problem.promise("norms", "`n_trained_layernorms` counts the layer normalisations of the whole model")


@problem.check(
    "model", points=2, of="adapter_model_params", title="a whole model", same=integer,
    concerns=["one, two and three adapters a layer", "no biases", "trained layer normalisations", "NumPy integers"],
    next_step="Count one layer, multiply, and add what isn't repeated in each layer.",
)  # fmt: skip
def model(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    layers = int(rng.integers(4, 9))
    yield Case("two adapters a layer", call("adapter_model_params", d, m, layers))
    yield Case("three adapters a layer", call("adapter_model_params", d, m, layers, per_layer=3))
    yield Case("one adapter a layer, no biases", call("adapter_model_params", d, m, layers, 1, False))
    norms = call("adapter_model_params", d, m, layers, 1, True, 2 * layers + 1)
    yield Case("trained layer normalisations", norms, promise=NORMS)
    one = call("adapter_model_params", d, 1, 1, n_trained_layernorms=1)
    yield Case("one layer and one layer normalisation", one, promise=NORMS)
    yield with_each_of_numpy("adapter_model_params", 2 * layers * size(d, m), d=d, m=m, n_layers=layers)
    for wide in (d, d + 1, 3 * d):
        yield once("a bottleneck as wide as the model, and wider", call("adapter_model_params", d, wide, layers))
    for n_layers in (1, 2, layers):
        for per_layer in (1, 2, 3, 5):
            for bias in (True, False):
                for norms in (0, 1, 2 * n_layers + 1):
                    asked = call("adapter_model_params", d, m, n_layers, per_layer, bias, norms)
                    yield once("all of the options together", asked, NORMS if norms else "")


problem.promise(
    "fits", "Return the largest bottleneck whose adapters together hold at most `budget` parameters.",
    "No layer normalisation is trained.", "what it returns fits, and one more doesn't",
)  # fmt: skip
EXACT = problem.promise("used_up", "It may be used up exactly.")


@problem.check(
    "fits", points=1.5, of="largest_bottleneck", title="a budget", same=integer,
    concerns=["exactly at a boundary, and one below", "no biases", "one adapter a layer", "NumPy integers"],
    next_step="Solve the inequality for m, and put m and m + 1 into it.",
)  # fmt: skip
def fits(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    layers = int(rng.integers(3, 7))
    exact, bare = 2 * layers * size(d, m), 2 * layers * d * m
    wide = 2 * layers * size(m, d) + layers  # a width of m and a bottleneck of d, which is more
    yield Case("some room left, a small width", call("largest_bottleneck", m, layers, wide, per_layer=2))
    yield Case("one parameter less than a bottleneck needs", call("largest_bottleneck", d, layers, exact - 1))
    between = layers * 2 * (2 * d * (m + 1) + 3)
    yield Case("a budget that weights alone would fit", call("largest_bottleneck", d, layers, between))
    yield Case("no biases, one adapter a layer", call("largest_bottleneck", d, layers, bare + 1, 1, False))
    yield Case("one parameter less, no biases", call("largest_bottleneck", d, layers, bare - 1, 1, False))
    yield Case("a budget that is used up", call("largest_bottleneck", d, layers, exact), promise=EXACT)
    yield Case("the same without biases", call("largest_bottleneck", d, layers, bare, 1, False), promise=EXACT)
    yield Case(
        "used up by bottlenecks of one", call("largest_bottleneck", d, layers, 2 * layers * size(d, 1)), promise=EXACT
    )
    yield with_each_of_numpy("largest_bottleneck", m, d=d, n_layers=layers, budget=exact + 1)
    for wide, n_layers, per_layer in ((1, 1, 1), (1, 5, 3), (2, 3, 1), (d, 1, 2), (d, 2, 3), (200, 1, 1), (200, 2, 1)):
        for bias in (True, False):
            for bought in (1, 2, m, 200):
                budget = n_layers * per_layer * size(wide, bought, bias)
                for more in (0, 1, -1) if bought > 1 else (0, 1):
                    if budget + more <= 200_000:
                        asked = call("largest_bottleneck", wide, n_layers, budget + more, per_layer, bias)
                        yield once("budgets at a boundary", asked, "" if more else EXACT)
    yield once("a large budget", call("largest_bottleneck", 200, 2, 200_000))


def weights(rng: Rng, d: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return W_down, b_down, W_up and b_up in float64."""
    shapes = ((m, d), (m,), (d, m), (d,))
    W_down, b_down, W_up, b_up = (torch.from_numpy(rng.normal(size=shape)) for shape in shapes)
    return W_down, b_down, W_up, b_up


def itself(h: Tensor, b_up: Tensor) -> Holds:
    """Demand h bit for bit of an adapter that adds nothing, and h + b_up in float32 of one that adds b_up alone."""

    def holds(nothing: Value, bias: Value) -> Difference | None:
        if Close(dtype=True)((h + b_up).float(), bias.value):
            return Difference("an adapter whose W_up is 0 doesn't add b_up alone, in h's dtype")
        same = torch.is_tensor(nothing.value) and nothing.value.dtype == h.dtype and torch.equal(nothing.value, h)
        return None if same else Difference("an adapter that adds nothing changes the hidden state")

    return holds


def all_equal(h: Tensor) -> Holds:
    """Demand h itself, in its dtype, of all calls."""

    def holds(*outcomes: Value) -> Difference | None:
        same = all(
            torch.is_tensor(one.value) and one.value.dtype == h.dtype and torch.equal(one.value, h) for one in outcomes
        )
        return None if same else Difference("an adapter that adds nothing changes the hidden state")

    return holds


problem.promise(
    "fwd",
    "Return the adapter's output for hidden states h of shape (..., d): the input plus what the bottleneck adds.",
    "W_down is (m, d), b_down (m,), W_up (d, m), b_up (d,).", "A function leaves its arguments as they were.",
)  # fmt: skip
GELU = problem.promise("gelu", '`activation` is "relu" or "gelu", the exact one with the error function.')
ITSELF = problem.promise("itself", "With W_up = 0 and b_up = 0 the output equals h exactly.")
TRAINED = problem.promise("trained", "gradients reach all of its five tensors")


@problem.check(
    "fwd", points=2, of="adapter_forward", title="the adapter at work",
    concerns=[
        "leading axes", "sizes of all kinds", "both activations", "float32 and float64", "views",
        "an adapter that adds nothing", "gradients",
    ],
    next_step="Follow one hidden state by hand: down, activation, up, and what is added at the end.",
)  # fmt: skip
def fwd(rng: Rng) -> Iterator[AnyCase]:
    h = torch.from_numpy(rng.normal(size=(2, 3, 7)))
    W_down, b_down, W_up, b_up = five = weights(rng, 7, 3)
    yield from corners(Case("two leading axes", call("adapter_forward", h, *five)), expanded)
    one = Case("one hidden state, square weights", call("adapter_forward", h[0, 0, :5], *weights(rng, 5, 5)))
    yield from corners(one, lambda case: as_views(in_dtype(torch.float32)(case)))
    yield Case("no hidden state, a bottleneck of one", call("adapter_forward", h[0, :0], *weights(rng, 7, 1)))
    # Where relu would be 0, and the tanh approximation is off by a tenth of the value.
    low = call("adapter_forward", h / 100, W_down, -3 + b_down / 2, W_up, b_up / 100, activation="gelu")
    yield Case("gelu of negative numbers", low, promise=GELU)
    grid = torch.linspace(-4, 4, 161, dtype=torch.float64)[:, None]
    line = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    yield once("gelu of small and large numbers", call("adapter_forward", grid, *line, *line, "gelu"), GELU)
    leads = ((), (1,), (3,), (0,), (2, 1), (2, 3, 2), (1, 2, 2, 3))
    sizes = ((1, 1), (1, 3), (3, 1), (2, 5), (5, 2), (4, 4), (8, 3))
    for lead, (wide, narrow) in zip(leads, sizes, strict=True):
        for dtype in (torch.float64, torch.float32):
            states = torch.from_numpy(rng.normal(size=(*lead, wide)))
            all_five = [part.to(dtype) for part in (states, *weights(rng, wide, narrow))]
            yield once("all kinds of sizes and leading axes", call("adapter_forward", *all_five))
            yield once("gelu, all kinds of sizes", call("adapter_forward", *all_five, activation="gelu"), GELU)
            both = once("as views, gelu", call("adapter_forward", *all_five, "gelu"), GELU)
            yield as_views(both)
    for activation in ("relu", "gelu"):
        case = Case(activation, call("adapter_forward", h, *five, activation))
        yield from corners(case, wanting_gradients, promise=TRAINED)
        for words, states, parts in (
            ("one hidden state", h[0, 0], five),
            ("no hidden state", h[0, :0], five),
            ("a bottleneck of one", h[0], weights(rng, 7, 1)),
            ("W_up and b_up of zero", h, (W_down, b_down, torch.zeros_like(W_up), torch.zeros_like(b_up))),
        ):
            part = Case(f"{activation}, {words}", call("adapter_forward", states, *parts, activation))
            yield from corners(part, wanting_gradients, promise=TRAINED)
            yield from corners(part, lambda case: wanting_gradients(in_dtype(torch.float32)(case)), promise=TRAINED)
    for dtype in (torch.float64, torch.float32):
        states = torch.from_numpy(rng.normal(size=(3, 7))).to(dtype)
        states[0, :3] = torch.tensor([0.0, 1e30, -1e-30])
        adds = [part.to(dtype) for part in (W_down / 1e3, b_down, torch.zeros_like(W_up), torch.zeros_like(b_up))]
        calls = tuple(call("adapter_forward", states, *adds, activation) for activation in ("relu", "gelu"))
        yield Relation(f"adapters that add nothing, {dtype}", calls, all_equal(states), promise=ITSELF)
    nothing = (h[0], W_down, b_down, torch.zeros_like(W_up), torch.zeros_like(b_up))
    bias = call("adapter_forward", *(part.float() for part in nothing[:-1]), b_up.float())
    both = call("adapter_forward", *nothing), bias
    yield Relation("adapters that add nothing, or b_up alone", both, itself(h[0], b_up), promise=ITSELF)


problem.promise(
    "jac", "Return the Jacobian of the relu adapter's output by its input at one hidden state h (d,): a (d, d) matrix.",
    "Entry (i, j) is the derivative of output i by input j.",
    "No pre-activation is closer to 0 than 0.0001, but some are closer than 0.001, and no weight is above 20 in size.",
)  # fmt: skip
LARGEST = 20.0
INFERENCE = problem.promise("inference", "The inputs may be inference tensors, on which autograd refuses to work.")


def with_gates(
    rng: Rng, d: int, m: int, gates: str, weight: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return h, W_down, b_down and W_up with open, closed or mixed gates.

    Of the mixed ones, two are near 0, and hang on one input each by this weight.
    """
    W_down, b_down, W_up, _ = weights(rng, d, m)
    h = torch.from_numpy(rng.normal(size=d))
    # Biases that turn half of the gates against what the weights alone would say, and that keep them from 0.
    sign = torch.where(torch.arange(m) % 2 == 0, -1.0, 1.0)
    pre = W_down @ h
    wanted = {"open": torch.ones(m), "closed": -torch.ones(m), "mixed": sign * pre.sign()}[gates]
    b_down = wanted * (0.5 + b_down.abs()) - pre
    near = float(rng.choice([2e-4, 9e-4])) if weight == 1 else 1.5e-4
    for gate, value in ((0, -near), (1, near)) if gates == "mixed" and min(m, d) > 1 else ():  # one closed, one open
        W_down[gate] = weight * torch.eye(d, dtype=torch.float64)[gate]
        b_down[gate] = value - weight * h[gate]
    return h, W_down, b_down, W_up


@problem.check(
    "jac", points=1.5, of="adapter_jacobian", title="the Jacobian by hand",
    concerns=[
        "closed and open gates, some near 0", "all gates open, all closed", "tall, wide and square weights",
        "the bias in the gate", "views", "inference tensors",
    ],
    next_step="Differentiate output i by input j: which terms contain input j, and through which gates?",
)  # fmt: skip
def jac(rng: Rng) -> Iterator[AnyCase]:
    for words, d, m in (("a narrow bottleneck", 6, 4), ("square weights", 5, 5)):
        yield Case(words, call("adapter_jacobian", *with_gates(rng, d, m, "mixed")))
    for d, m in ((1, 1), (1, 3), (4, 1), (2, 7), (3, 3), (7, 2)):
        for gates in ("open", "closed", "mixed", "mixed"):
            tensors = with_gates(rng, d, m, gates)
            case = once(f"all kinds of sizes, {gates} gates", call("adapter_jacobian", *tensors))
            yield case
            yield as_views(case)
            with torch.inference_mode():
                inputs = [part.clone() for part in tensors]
            yield once("inference tensors", call("adapter_jacobian", *inputs), INFERENCE)
    for d, m in ((2, 3), (6, 4), (3, 3)):  # where a step of 0.00001 of one input crosses 0
        large = with_gates(rng, d, m, "mixed", LARGEST)
        yield once("gates near 0, and large weights", call("adapter_jacobian", *large))
    with torch.inference_mode():
        inputs = [part.clone() for part in with_gates(rng, 4, 1, "mixed")]
    yield Case("a bottleneck of one, inference tensors", call("adapter_jacobian", *inputs), promise=INFERENCE)


problem.promise(
    "bad_adapter_params", "ValueError whose message contains `d must` or `bottleneck` if d or m is not a whole number"
)  # fmt: skip
problem.promise("bad_model", "as in `adapter_params`, and ValueError whose message contains `n_layers` if that is less")
problem.promise(
    "bad_budget", "ValueError whose message contains `budget` if not even a bottleneck of 1 fits;", "`n_layers` as"
)  # fmt: skip
problem.promise(
    "bad_forward", "ValueError whose message contains `activation` (neither word) or `shape` (the five don't"
)


KEYWORDS = ("bottleneck", "d must", "n_layers", "budget", "shape", "activation")
ACTIVATIONS = (
    "tanh", "silu", "swish", "sigmoid", "softplus", "elu", "relu6", "leaky_relu", "prelu", "identity", "linear", "none",
    "ReLU", "RELU", "Relu", "GELU", "GeLU", "Gelu", " relu", "relu ", "gelu ", "gelu_tanh", "gelu_new", "quick_gelu",
    "r", "re", "lu", "elu,", "g", "",
)  # fmt: skip


def fitting_their_neighbours(rng: Rng) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield arguments in which each tensor fits the one before it, and the last doesn't fit the hidden states."""
    for first, last in ((4, 1), (1, 4), (3, 4)):
        shapes = (2, first), (2, first), (2,), (last, 2), (last,)
        yield tuple(torch.from_numpy(rng.normal(size=shape)) for shape in shapes)


def wrong_shapes(five: tuple[Tensor, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield arguments of which one tensor has another length of an axis, or two tensors are turned or exchanged."""
    for position, part in enumerate(five):
        wrong = [part.new_zeros([1] * part.ndim)]
        for axis in range(part.ndim) if position else (-1,):  # h may have any number of states
            wrong += [part.narrow(axis, 0, 1), part.narrow(axis, 0, part.shape[axis] - 1)]
            wrong.append(torch.cat([part, part.narrow(axis, 0, 1)], dim=axis))
        if part.ndim == 2:
            wrong.append(part.T.contiguous())
        for other in wrong:
            for activation in ("relu", "gelu"):
                yield (*five[:position], other, *five[position + 1 :], activation)
    h, W_down, b_down, W_up, b_up = five
    yield h, W_up, b_down, W_down, b_up
    yield h, W_down, b_up, W_up, b_down
    yield h[0, :1], W_down, b_down, W_up, b_up
    yield h[:0, :5], W_down, b_down, W_up, b_up
    yield h[..., None], W_down, b_down, W_up, b_up
    yield h[..., :5], W_down[:, :5], b_down, W_up, b_up
    yield h, W_down[:2], b_down[:2], W_up, b_up


@problem.check(
    "err", points=1, of="adapter_params", title="invalid input, in all four functions",
    concerns=["zero, negative and fractional numbers", "a budget that is too small", "shapes", "activations"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    d, m = width(rng)
    ample = 10 * size(d, m)
    sizes_below = (0, -1, -d, np.int64(0), np.int64(-3), 0.5, -0.5, 1.5, d + 0.5)
    five = torch.from_numpy(rng.normal(size=(2, 6))), *weights(rng, 6, 3)
    refused: dict[tuple[str, str, tuple[Any, ...]], dict[str, list[tuple[Any, ...]]]] = {
        ("bad_adapter_params", "adapter_params", (d, m)): {
            "bottleneck": [(d, bad, *more) for bad in sizes_below for more in ((), (False,))],
            "d must": [(bad, m, *more) for bad in sizes_below for more in ((), (False,))],
        },
        ("bad_model", "adapter_model_params", (d, m, 3)): {
            "n_layers": [
                (d, m, bad, *more) for bad in (0, -1, -2, np.int64(0), np.int64(-5))
                for more in ((), (1, False), (2, True, 3))
            ],
            "d must": [(bad, m, 3, *more) for bad in sizes_below for more in ((), (1, False, 0), (2, True, 3))],
            "bottleneck": [(d, bad, 3, *more) for bad in sizes_below for more in ((), (1, False, 0), (2, True, 3))],
        },
        ("bad_budget", "largest_bottleneck", (d, 2, 4 * size(d, 1))): {
            "budget": [
                (d, layers, budget, per_layer, bias)
                for layers in (1, 2) for per_layer in (1, 2, 3) for bias in (True, False)
                for budget in (layers * per_layer * size(d, 1, bias) - 1, size(d, 1, bias) // 2, 1, 0, -1, -m, -10_000)
            ],
            "n_layers": [(d, bad, ample, *more) for bad in (0, -1, -2, np.int64(0)) for more in ((), (1, False))],
            "d must": [(bad, 2, ample, *more) for bad in sizes_below for more in ((), (1, False))],
        },
        ("bad_forward", "adapter_forward", five): {
            "activation": [(*five, word) for word in ACTIVATIONS],
            "shape": [*wrong_shapes(five), *fitting_their_neighbours(rng)],
        },
    }  # fmt: skip
    for (promise, function, valid), faults in refused.items():
        twin = call(function, *valid)
        for keyword, found in faults.items():
            others = tuple(other for other in KEYWORDS if other != keyword)
            words = f"{function}: an invalid {keyword.removesuffix(' must')}"
            for arguments in found:
                yield Refusal(words, call(function, *arguments), keyword, twin, others, promise=promise)
                twin = None


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
    "numpy_counts", "adapter_params",
    {"2 * d * m + (m + d if bias else 0)": '__import__("numpy").int64(2 * d * m + (m + d if bias else 0))'},
    says="Your count is a NumPy integer.", next_step="Return int(...) of it.",
)  # fmt: skip
for name, was, now, says in (
    ("fractions_cut", " or value % 1 != 0", "", "A fractional size is counted."),
    ("negative_counted", "not value >= 1", "value == 0", "A negative size is counted."),
):
    problem.slip(name, "whole", {was: now}, says=says, next_step="Refuse it by name, in each function.")
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
    "budget_rounded", "largest_bottleneck",
    {"(budget // adapters - fixed) // each": "round((budget / adapters - fixed) / each)"},
    says="Your bottleneck is rounded to the nearest, which may not fit.", next_step="Round down.",
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
    "budget_for_layernorms", "largest_bottleneck", {"budget // adapters": "budget // adapters - 2 * d"},
    says="Your budget pays for layer normalisations too.", next_step="None is trained here.",
)  # fmt: skip
problem.slip(
    "budget_exceeded", "largest_bottleneck", {"return int(m)": "return int(m) + 1"},
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
    "needs_contiguous", "adapter_forward",
    {"F.linear(h, W_down, b_down)": "F.linear(h.view(-1, d), W_down, b_down).view(*h.shape[:-1], m)"},
    says="Your function fails for hidden states that are a view.", next_step="Use reshape where you use view.",
)  # fmt: skip
for name, now, says, next_step in (
    ("residual_detached", "h.detach()", "Your residual passes no gradient on.", "Add h itself, without detach()."),
    (
        "residual_in_float32",
        "h.float()",
        "Your output isn't h itself: its dtype changes on the way.",
        "Stay in h's dtype.",
    ),
):
    problem.slip(name, "adapter_forward", {"return h + ": f"return {now} + "}, says=says, next_step=next_step)
problem.slip(
    "biases_unchecked", "adapter_forward",
    {"b_down.numel(), b_up.numel()": "W_down.shape", "W_down.shape, b_down.shape, W_up.shape, b_up.shape)\n":
        "W_down.shape, (m,), W_up.shape, (d,))\n"},
    says="A bias of the wrong shape isn't refused: torch broadcasts one of a single number.",
    next_step="Compare all five shapes.",
)  # fmt: skip
problem.slip(
    "activation_unchecked", "adapter_forward", {'activation not in ("relu", "gelu")': "False"},
    says="An unknown activation isn't refused.", next_step="Accept the two words alone.",
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
JACOBIAN = "return torch.eye(len(h), dtype=h.dtype) + (W_up * open_gates) @ W_down"

problem.slip(
    "jacobian_by_autograd", "adapter_jacobian",
    {JACOBIAN: """def adapter(x): return x + F.linear(F.relu(F.linear(x, W_down, b_down)), W_up)
    return torch.autograd.functional.jacobian(adapter, h)"""},
    says="Your Jacobian asks autograd, which refuses inference tensors.", next_step="Write the derivative by hand.",
)  # fmt: skip
problem.slip(
    "jacobian_by_large_steps", "adapter_jacobian",
    {JACOBIAN: """def adapter(x): return x + F.linear(F.relu(F.linear(x, W_down, b_down)), W_up)
    return torch.stack([(adapter(h + 1e-3 * e) - adapter(h)) / 1e-3 for e in torch.eye(len(h), dtype=h.dtype)], 1)"""},
    says="Your Jacobian is a difference over a step of 0.001, in which a gate near 0 opens or closes.",
    next_step="Write the derivative by hand; it needs no step.",
)  # fmt: skip
problem.slip(
    "jacobian_by_small_steps", "adapter_jacobian",
    {JACOBIAN: """def adapter(x): return x + F.linear(F.relu(F.linear(x, W_down, b_down)), W_up)
    return torch.stack([(adapter(h + 1e-5 * e) - adapter(h)) / 1e-5 for e in torch.eye(len(h), dtype=h.dtype)], 1)"""},
    says="Your Jacobian is a difference over a small step, in which a large weight opens or closes a gate near 0.",
    next_step="Write the derivative by hand; it needs no step.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "adapter_jacobian: torch.eye(len(h), dtype=h.dtype) -> torch.eye(len(h))":
        "the sum takes the wider type, which is h's",
    "adapter_jacobian: F.linear(h, W_down, b_down) > 0 -> F.linear(h, W_down, b_down) >= 0":
        "no pre-activation is exactly 0",
    "largest_bottleneck: * // * -> * / *": "the quotient is cut to an int at the end",
})  # fmt: skip
