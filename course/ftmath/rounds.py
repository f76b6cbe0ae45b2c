"""Rounds of policy updates: answers are drawn and judged, and the weights move towards the better ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ftmath.groups import rate_groups
from ftmath.masks import answer_token_logprobs, model_loss
from ftmath.model import Decoder, generate
from ftmath.policy_gradient import Average, Estimator, clipped_share, group_advantages, k3, policy_loss, row_mean
from ftmath.skills import BOS, EOS, SEP, SKILLS, Batch, decode, mixture, padded, prompts
from ftmath.training import train

Judge = Callable[[str, str], float]
"""A function from a prompt and an answer to a reward."""


@torch.no_grad()
def roll_out(
    policy: Decoder, texts: Sequence[str], samples: int, *, max_new: int = 24, temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Batch, list[str]]:  # fmt: skip
    """Draw `samples` answers to each prompt; return them as token rows and as text, each prompt's answers together.

    A row's answer mask covers the drawn tokens, including the end-of-sequence token if it was drawn.

    >>> from ftmath.weights import base_model
    >>> rows, answers = roll_out(base_model(), ["upper abc"], samples=2, temperature=0.0)
    >>> answers, rows.answer_mask.sum(1).tolist()
    (['ABC', 'ABC'], [4, 4])
    """
    repeated = [text for text in texts for _ in range(samples)]
    ids, mask = (part.to(policy.embed.weight.device) for part in prompts(repeated))
    drawn = generate(
        policy, ids, mask, max_new=max_new, stop=EOS, temperature=temperature, generator=generator
    ).tolist()  # fmt: skip
    lines: list[tuple[list[int], list[int]]] = []
    for text, tokens in zip(repeated, drawn, strict=True):
        kept = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        before = [BOS, *text.encode("ascii"), SEP]
        lines.append((before + kept, [0] * len(before) + [1] * len(kept)))
    return padded(lines).to(policy.embed.weight.device), [decode(tokens) for tokens in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """The settings of `improve_policy`. A round draws samples once and takes one or more updates on them.

    - `steps`: updates of the weights, over all rounds.
    - `rate`: AdamW's learning rate.
    - `prompts_per_round`: prompts drawn in each round, with replacement.
    - `samples_per_prompt`: answers drawn to each of these prompts, at temperature 1.
    - `updates_per_round`: updates of the weights on one round's samples.
    - `beta`: the weight of the KL estimate in the loss, per nat of KL per token.
    - `clip`: half the width of the interval around 1 to which a token's probability ratio is clipped; no unit.
    - `estimator`: the estimator of KL for one token (`k1`, `k2` or `k3`), in nats. Its gradient is what counts: that of
      KL(policy || reference) is `k2`'s; the default is GRPO's.
    - `advantages`: the function from rewards (prompts, n) to advantages: `leave_one_out`, `centred_advantages`, ...
    - `average`: the function that makes one number of the tokens' losses: `row_mean`, `token_mean`, ...
    - `replay_weight`: the weight of the mean loss per token on lines of the base skills; at 0 no lines are drawn. It is
      the pretraining coefficient of InstructGPT (arXiv:2203.02155, equation 2).
    - `seed`: the seed of the prompts, the samples and the replayed lines.

    >>> PolicySettings(steps=8, rate=5e-5, beta=0.1).samples_per_prompt
    8
    """

    steps: int
    rate: float
    prompts_per_round: int = 8
    samples_per_prompt: int = 8
    updates_per_round: int = 1
    beta: float = 0.02
    clip: float = 0.2
    estimator: Estimator = k3
    advantages: Callable[[Tensor], Tensor] = group_advantages
    average: Average = row_mean
    replay_weight: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """Measurements of one round, taken when its answers were drawn.

    `reward` is their mean reward, `kl` their mean `k1` estimate of the KL to the reference in nats per answer, and
    `entropy` the mean of -log(policy), in nats per answer. `distinct` is the share of different answers within a group,
    `tokens` the mean length, and `clipped` holds the share of clipped tokens at each of the round's updates.
    """

    reward: float
    kl: float
    entropy: float = 0.0
    distinct: float = 0.0
    tokens: float = 0.0
    clipped: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """One round's sampled answers, and the inputs of the clipped loss that stay fixed for all of its updates.

    `sampled` and `reference` hold log-probabilities (rows, time - 1) under the policy that drew the answers and under
    the reference, in nats. `advantages` (rows,) holds a number for each answer.
    """

    lines: Batch
    sampled: Tensor
    reference: Tensor
    advantages: Tensor


def draw_round(
    policy: Decoder, reference: Decoder, texts: Sequence[str], judge: Judge, settings: PolicySettings,
    generator: torch.Generator,
) -> tuple[Round, PolicyStep]:  # fmt: skip
    """Draw answers to each prompt and judge them; return the round and a summary of it."""
    samples = settings.samples_per_prompt
    lines, answers = roll_out(policy, texts, samples, generator=generator)
    repeated = [text for text in texts for _ in range(samples)]
    rewards = torch.tensor([judge(text, answer) for text, answer in zip(repeated, answers, strict=True)])
    with torch.no_grad():
        sampled, held = token_table(policy, lines), token_table(reference, lines)
    advantages = settings.advantages(rewards.view(len(texts), samples)).flatten().to(sampled.device)
    kinds = [len(set(answers[at : at + samples])) / samples for at in range(0, len(answers), samples)]
    return Round(lines, sampled, held, advantages), PolicyStep(
        reward=float(rewards.mean()), kl=float((sampled - held).sum(1).mean()) + 0.0,  # -0.0 becomes 0.0
        entropy=-float(sampled.sum(1).mean()), distinct=float(np.mean(kinds)),
        tokens=float(lines.answer_mask.sum(1).float().mean()),
    )  # fmt: skip


def improve_policy(
    policy: Decoder, reference: Decoder, texts: Sequence[str], judge: Judge, settings: PolicySettings
) -> list[PolicyStep]:
    """Raise a judge's reward of a policy's answers at a price of KL to a reference; return a summary of each round.

    In each round, answers to prompts from `texts` are drawn, and each answer's reward is compared with those of the
    other answers to its prompt. Then the clipped loss is minimised on these answers: PPO's update with GRPO's baseline
    (arXiv:1707.06347, 2402.03300). With one update a round the ratio is 1: the clip does nothing.

    >>> from ftmath.weights import base_model
    >>> longer = lambda prompt, answer: float(len(answer))
    >>> settings = PolicySettings(steps=1, rate=1e-5, prompts_per_round=1)
    >>> seen = improve_policy(base_model(), base_model(), ["copy ab"], longer, settings)
    >>> len(seen), seen[0].kl
    (1, 0.0)
    """
    device, rng = policy.embed.weight.device, np.random.default_rng(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    rounds: list[Round] = []
    seen: list[PolicyStep] = []

    def loss(step: int) -> Tensor:
        if step % settings.updates_per_round == 0:
            drawn = [texts[int(place)] for place in rng.integers(len(texts), size=settings.prompts_per_round)]
            fresh, summary = draw_round(policy, reference, drawn, judge, settings, generator)
            rounds[:] = [fresh]
            seen.append(summary)
        (now,) = rounds
        table, mask = token_table(policy, now.lines), now.lines.answer_mask[:, 1:]
        cut = clipped_share(table.detach(), now.sampled, now.advantages, mask, settings.clip)
        seen[-1] = replace(seen[-1], clipped=(*seen[-1].clipped, cut))
        value = policy_loss(
            table, now.sampled, now.reference, now.advantages, mask,
            beta=settings.beta, clip=settings.clip, estimator=settings.estimator, average=settings.average,
        )  # fmt: skip
        if settings.replay_weight:
            old = mixture(dict.fromkeys(SKILLS, 1.0), 16, rng).to(device)
            value = value + settings.replay_weight * model_loss(policy, old.ids, old.answer_mask)
        return value

    train(policy, loss, rate_groups(policy, {}, settings.rate), settings.steps, label="policy")
    return seen


def token_table(model: Decoder, lines: Batch) -> Tensor:
    """Return the log-probability of each answer token in nats (batch, time - 1); every other entry is 0."""
    found, _ = answer_token_logprobs(model, lines.ids, lines.answer_mask)
    table = torch.zeros(lines.ids[:, 1:].shape, dtype=found.dtype, device=found.device)
    return table.masked_scatter(lines.answer_mask[:, 1:] != 0, found)


__all__ = ["Judge", "PolicySettings", "PolicyStep", "improve_policy", "roll_out"]
