"""The shapes that the lab builds: four sizes of published models with random weights, and two toys for a CPU."""

from ftmath.memory import decoder_parameters, linear_parameters
from ftmath.model import Config

SHAPES: dict[str, Config] = {
    "toy": Config(500, 64, 2, 4, 2, 16, 176, biases=False),
    "small": Config(2_000, 128, 4, 4, 2, 32, 352, biases=False),
    "135M": Config(49_152, 576, 30, 9, 3, 64, 1_536, biases=False),
    "0.5B": Config(151_936, 896, 24, 14, 2, 64, 4_864, biases=False),
    "1.5B": Config(151_936, 1_536, 28, 12, 2, 128, 8_960, biases=False),
    "7B": Config(32_000, 4_096, 32, 32, 32, 128, 11_008, biases=False, tied=False),
}
"""SmolLM2-135M, Qwen2.5-0.5B, Qwen2.5-1.5B (without the biases of q, k and v) and LLaMA-7B, as their configs say."""


def step_flops(config: Config, tokens: int, time: int, *, adapters: bool = False) -> int:
    """Return the operations that a training step must do on rows of `time` tokens, nothing being computed twice.

    A weight of a matrix costs 2 forward, 2 for the gradient of its input and 2 for its own, which adapters spare:
    6 or 4 a token (arXiv:2001.08361, section 2.1). Attention adds two products over the time / 2 tokens that a
    token sees on average, forward once and backward twice. Norms, the softmax and the optimizer count as nothing.

    >>> round(step_flops(SHAPES["7B"], 1, 2048) / (6 * decoder_parameters(SHAPES["7B"])), 3)
    1.02
    """
    matrices = linear_parameters(config) + config.vocab * config.d_model
    attention = 2 * config.layers * config.heads * config.head_dim * time
    return tokens * ((4 if adapters else 6) * matrices + 3 * attention)


__all__ = ["SHAPES", "decoder_parameters", "step_flops"]
