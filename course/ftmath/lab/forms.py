"""A training step by closed form: its peak in bytes, and its operations.

The forms are for the steps of `ftmath.lab.steps`: weights, gradients and Adam's moments in 16 bits, one fused optimizer
kernel, logits upcast to 32 bits. Part 6 derives the bytes of weights, moments and blocks. The loss, the gradients and
the moments at which a peak can occur are added here.
"""

from dataclasses import dataclass, replace

from ftmath.memory import decoder_parameters, kept_bytes_per_token, linear_parameters, lora_parameters
from ftmath.model import Config
from ftmath.quant import bits_per_weight

SHAPES: dict[str, Config] = {
    "toy": Config(500, 64, 2, 4, 2, 16, 176, biases=False),
    "small": Config(2_000, 128, 4, 4, 2, 32, 352, biases=False),
    "135M": Config(49_152, 576, 30, 9, 3, 64, 1_536, biases=False),
    "0.5B": Config(151_936, 896, 24, 14, 2, 64, 4_864, biases=False),
    "1.5B": Config(151_936, 1_536, 28, 12, 2, 128, 8_960, biases=False),
    "7B": Config(32_000, 4_096, 32, 32, 32, 128, 11_008, biases=False, tied=False),
}
"""Two toys for a CPU, SmolLM2-135M, Qwen2.5-0.5B and -1.5B (without the biases of q, k and v) and LLaMA-7B."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a step is: the name of a shape, the method, the task and the batch.

    `method` is full, LoRA or QLoRA; `task` is sft, dpo or grpo. For dpo, `batch` counts pairs. For grpo it counts
    samples, whose last `answer` tokens are generated. The loss is computed in `chunks` pieces; 1 is the plain loss.
    """

    shape: str
    method: str = "full"
    task: str = "sft"
    batch: int = 1
    time: int = 1024
    checkpointing: bool = False
    chunks: int = 1
    rank: int = 16
    answer: int = 64

    @property
    def rows(self) -> int:
        """Return how many rows of tokens the trained pass reads."""
        return 2 * self.batch if self.task == "dpo" else self.batch

    @property
    def tokens(self) -> int:
        """Return how many tokens the trained pass reads."""
        return self.rows * self.time

    @property
    def adapters(self) -> bool:
        return self.method != "full"

    @property
    def name(self) -> str:
        """Return the setup in words, the same for the same setup.

        >>> Setup("7B", "LoRA", batch=2, checkpointing=True).name
        '7B LoRA sft 2x1024 checkpointed'
        """
        words = [self.shape, self.method, self.task, f"{self.batch}x{self.time}"]
        words += ["checkpointed"] * self.checkpointing + [f"{self.chunks} chunks"] * (self.chunks > 1)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Peak:
    """The bytes that a step is predicted to hold: the terms that stay, and the extra terms of each moment.

    >>> Peak({"weights": 4}, {"loss": {"logits": 3}, "end": {"gradients": 2}}).total
    7
    """

    stay: dict[str, int]
    moments: dict[str, dict[str, int]]

    @property
    def moment(self) -> str:
        """Return the name of the moment that holds most."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def terms(self) -> dict[str, int]:
        """Return all terms at the peak, by name."""
        return self.stay | self.moments[self.moment]

    @property
    def total(self) -> int:
        """Return the bytes of the peak."""
        return sum(self.terms.values())


def loss_bytes(tokens: int, vocab: int, chunks: int = 1) -> int:
    """Return the most bytes that the loss holds at once: 12 for each logit of the largest chunk, in the backward pass.

    Three copies in 32 bits are alive there: the log-probabilities that the forward pass kept, the gradient with respect
    to them, and the gradient with respect to the logits. The forward pass holds 10 bytes a logit: the logits in 16
    bits, their copy in 32, and the log-probabilities.

    >>> loss_bytes(4096, 49_152) / 2**20
    2304.0
    """
    return 12 * -(-tokens // chunks) * vocab


def stays(setup: Setup, config: Config) -> dict[str, int]:
    """Return the bytes that stay between steps: weights, Adam's moments, and the reference copy of DPO or GRPO."""
    total, linears = decoder_parameters(config), linear_parameters(config)
    trained = lora_parameters(config, setup.rank) if setup.adapters else total
    bits = bits_per_weight(64, double=True) if setup.method == "QLoRA" else 16
    frozen = round(2 * (total - linears) + bits / 8 * linears) if setup.adapters else 0
    copied = 2 * total if setup.task != "sft" and not setup.adapters else 0
    return {"weights": frozen + 2 * trained, "optimizer": 4 * trained, "reference": copied}


def kept_bytes(setup: Setup, config: Config, copied: bool) -> dict[str, int]:
    """Return the bytes per token that are kept for the backward pass: by one block, by all blocks, and above them.

    This is part 6's form with two corrections. Where the embeddings are frozen, the first norm keeps 4 d + 4 bytes
    less. Where the attention kernel writes its output as the next layer reads it, its second copy (2 h d_h) isn't made.
    """
    d, adapters = config.d_model, setup.adapters
    block = kept_bytes_per_token(config, lora_rank=setup.rank if adapters else None, all_linears=True)
    block -= 0 if copied else 2 * config.heads * config.head_dim
    inputs = config.layers * 2 * d
    blocks = inputs if setup.checkpointing else config.layers * block - (4 * d + 4 if adapters else 0)
    # The final norm (like a block's), the rotation angles that all blocks share, and 8 bytes of an id or a target.
    # A chunked loss keeps its input (2 d), which a frozen head otherwise needn't.
    top = (4 * d + 4 if adapters else 8 * d + 4) + 2 * config.head_dim + 8
    return {"block": block, "blocks": blocks, "top": top + (2 * d if adapters and setup.chunks > 1 else 0)}


def predicted(setup: Setup, config: Config | None = None, *, copied: bool = True, watched: bool = False) -> Peak:
    """Return the peak of a setup by closed form: the largest of six moments, in bytes.

    A moment's terms come on top of those that stay (`stays`). With the letters of part 6, the moments are:

    - *loss*: the copies of the logits (`loss_bytes`), and all that the blocks kept. With chunks also the gradient of
      the head so far, and the gradient of the head's input (2 d bytes a token).
    - *chunks' sum*: the head's gradients of two chunks and of their sum.
    - *final norm*: six tensors of its input's size in 32 bits (4 d bytes a token each): the input, its gradient and
      four products of the backward pass.
    - *last block*: the gradients inside its MLP (4 f + 2 d bytes a token), or the weight that QLoRA unfolds, if that is
      larger. With checkpoints also what the block kept, since it has just been computed again.
    - *first block*: the same, and the gradients of all weights of the blocks above it.
    - *embedding*: the gradients of all weights. A tied embedding gets one gradient from the head and a second one here.

    `copied` says whether attention's output is copied before the next layer reads it. `watched` gives what a count
    (`AliveBytes`) sees: autograd adds two gradients in place only where nothing observes them, so a count finds one
    copy more of a tied embedding's gradient than a card holds.

    >>> peak = predicted(Setup("135M", batch=4))
    >>> peak.moment, round(peak.total / 2**20)
    ('loss', 6112)
    """
    config = config or SHAPES[setup.shape]
    tokens, full, d = setup.tokens, not setup.adapters, config.d_model
    kept = kept_bytes(setup, config, copied)
    blocks, block = tokens * kept["blocks"], tokens * kept["block"]
    head = 2 * config.vocab * d if full else 0
    trained = 2 * decoder_parameters(config) if full else 2 * lora_parameters(config, setup.rank)
    # QLoRA unfolds one layer's weight at a time, through 64-bit indices and two copies in 32 bits.
    unfolded = 17 * d * config.d_hidden + tokens * (2 * config.d_hidden + 2 * d) if setup.method == "QLoRA" else 0
    passing = max(tokens * (4 * config.d_hidden + 2 * d), unfolded)
    later = 2 * (linear_parameters(config) // config.layers - d * config.d_hidden) + (0 if config.tied else head)
    inputs = 2 * d * tokens
    twice = max(2 * head, head + inputs) if watched else head + inputs
    pieces = setup.chunks > 1
    moments = {
        "loss": {
            "activations": blocks + tokens * kept["top"], "logits": loss_bytes(tokens, config.vocab, setup.chunks),
            "gradients": head if pieces else 0,
            "passing": 2 * d * (tokens - tokens // setup.chunks) if pieces else 0,
        },
        "chunks' sum": {
            "activations": blocks + tokens * kept["top"], "gradients": 3 * head if pieces else 0,
            "passing": 2 * d * tokens if pieces else 0,
        },
        "final norm": {
            "activations": blocks, "gradients": head, "passing": tokens * (24 * d + 2 * config.head_dim + 8)
        },
        "last block": {
            "activations": blocks + (block if setup.checkpointing else 0), "gradients": head, "passing": passing,
        },
        "first block": {"activations": block, "gradients": max(0, trained - later), "passing": passing},
        "embedding": {"gradients": trained, "passing": twice if config.tied else inputs},
    }  # fmt: skip
    return Peak(stays(setup, config), moments)


def largest_batch(setup: Setup, bytes_: float, config: Config | None = None) -> int:
    """Return the largest batch of a setup whose predicted peak fits into some bytes; 0 if not even one row fits.

    >>> largest_batch(Setup("1.5B", "LoRA", checkpointing=True), 24 * 2**30)
    11
    """
    low, high = 0, 1
    while high < 65_536 and predicted(replace(setup, batch=high), config).total <= bytes_:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if predicted(replace(setup, batch=middle), config).total <= bytes_:
            low = middle
        else:
            high = middle
    return low


def step_flops(config: Config, tokens: int, time: int, *, adapters: bool = False) -> int:
    """Return the operations of a training step on rows of `time` tokens, if nothing is computed twice.

    A weight of a matrix costs 6 operations a token (arXiv:2001.08361, section 2.1): 2 in the forward pass, 2 for the
    gradient of its input and 2 for its own gradient. With adapters the weights are frozen and the last 2 are saved.
    Attention adds two products over the time / 2 tokens that a token sees on average, once forward and twice backward.
    Norms, the softmax and the optimizer aren't counted.

    >>> round(step_flops(SHAPES["7B"], 1, 2048) / (6 * decoder_parameters(SHAPES["7B"])), 3)
    1.02
    """
    matrices = linear_parameters(config) + config.vocab * config.d_model
    attention = 2 * config.layers * config.heads * config.head_dim * time
    return tokens * ((4 if adapters else 6) * matrices + 3 * attention)


__all__ = ["SHAPES", "Peak", "Setup", "largest_batch", "loss_bytes", "predicted", "stays", "step_flops"]
