"""Training on judgements: reward models, preference losses such as DPO, and policy updates at a price of KL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.groups import rate_groups
from ftmath.masks import answer_token_logprobs, model_logprob, model_loss
from ftmath.model import Decoder, generate
from ftmath.preference import dpo_loss, margin
from ftmath.reward import Estimator, RewardModel, group_advantages, k3, policy_loss, ranking_loss
from ftmath.skills import BOS, EOS, SEP, SKILLS, Batch, batch, decode, encode, mixture, padded, prompts
from ftmath.training import train

Judge = Callable[[str, str], float]
"""A function from a prompt and an answer to a reward."""


def fit_reward_model(
    decoder: Decoder, rankings: Sequence[tuple[str, Sequence[str]]], *, steps: int, rate: float = 1e-3, rows: int = 16,
    seed: int = 0,
) -> tuple[RewardModel, list[float]]:  # fmt: skip
    """Train a reward model on rankings; return it and the loss of each step.

    A ranking is a prompt and its K answers, best first; K is the same for all. Every parameter trains. Each step draws
    `rows` rankings, with replacement.

    >>> from ftmath.weights import base_model
    >>> _, losses = fit_reward_model(base_model(), [("copy ab", ["ab", "ba", "b"])], steps=2, rows=1)
    >>> round(losses[0], 4)
    0.6931

    Errors: ValueError unless all rankings have equally many answers.
    """
    if len({len(answers) for _, answers in rankings}) != 1:
        raise ValueError("every ranking must have as many answers as the others")
    model, rng = RewardModel(decoder.requires_grad_(True)), np.random.default_rng(seed)

    def loss(step: int) -> Tensor:
        drawn = [rankings[int(place)] for place in rng.integers(len(rankings), size=rows)]
        lines = padded([encode(prompt, answer) for prompt, answers in drawn for answer in answers])
        lines = lines.to(decoder.embed.weight.device)
        return ranking_loss(model(lines.ids, lines.attention_mask).view(rows, -1))

    return model, train(model, loss, rate_groups(model, {}, rate), steps, label="reward model")


@torch.no_grad()
def judged(model: RewardModel, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Return the rewards (pairs,) that a model gives to pairs of a prompt and an answer.

    >>> from ftmath.weights import base_model
    >>> judged(RewardModel(base_model()), [("copy ab", "ab")]).tolist()
    [0.0]
    """
    lines = padded([encode(prompt, answer) for prompt, answer in pairs]).to(model.value.weight.device)
    return model(lines.ids, lines.attention_mask)


# ---------------------------------------------------------------------------------------------------------- preferences


@dataclass(frozen=True, slots=True)
class PairsStep:
    """One step of preference tuning: its loss, and means over its pairs, in nats.

    `chosen` and `rejected` are mean log-probabilities under the policy. Read `chosen` beside `margin`: a margin can
    grow while the chosen answers become less likely.
    """

    loss: float
    margin: float
    chosen: float
    rejected: float


def fit_preferences(
    policy: Decoder, reference: Decoder, pairs: Sequence[tuple[str, str, str]], *, steps: int, rate: float,
    loss_of: Callable[[Tensor], Tensor] = dpo_loss, nll_weight: float = 0.0,
    also: Callable[[], Tensor] | None = None, rows: int = 16, seed: int = 0,
) -> list[PairsStep]:  # fmt: skip
    """Train a policy's unfrozen parameters on pairs (prompt, chosen, rejected); return a summary of each step.

    `loss_of` maps margins (pairs,) to a loss, for example `partial(ipo_loss, beta=0.1)`. `nll_weight` times the chosen
    answers' mean negative log-likelihood per token is added (arXiv:2404.19733, equation 1), and so is whatever `also`
    returns at each step. The reference's log-probabilities are computed once, before training.

    >>> from ftmath.weights import base_model
    >>> pair = [("copy ab", "ab, thanks!", "ab")]
    >>> seen = fit_preferences(base_model(), base_model(), pair, steps=1, rate=1e-4)
    >>> round(seen[0].loss, 4), round(seen[0].margin, 4)
    (0.6931, 0.0)

    Errors: ValueError if no parameter of the policy trains, or if the reference shares memory with one that does.
    """
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("policy must have a parameter that trains; all of them are frozen")
    if {p.data_ptr() for p in reference.parameters()} & {p.data_ptr() for p in trained}:
        raise ValueError("reference must be a separate model: it shares trained parameters with the policy")
    device = policy.embed.weight.device
    chosen, rejected = (
        padded([encode(prompt, answers[side]) for prompt, *answers in pairs]).to(device) for side in (0, 1)
    )
    with torch.no_grad():
        wanted = [model_logprob(reference, side.ids, side.answer_mask) for side in (chosen, rejected)]
    rng, seen = np.random.default_rng(seed), list[PairsStep]()

    def loss(step: int) -> Tensor:
        drawn = torch.from_numpy(rng.permutation(len(pairs))[:rows]).to(device)
        ours = [model_logprob(policy, side.ids[drawn], side.answer_mask[drawn]) for side in (chosen, rejected)]
        h = margin(ours[0], ours[1], wanted[0][drawn], wanted[1][drawn])
        value = loss_of(h)
        if nll_weight:
            value = value - nll_weight * ours[0].sum() / chosen.answer_mask[drawn].sum()
        if also is not None:
            value = value + also()
        seen.append(PairsStep(value.item(), h.mean().item(), ours[0].mean().item(), ours[1].mean().item()))
        return value

    train(policy, loss, rate_groups(policy, {}, rate), steps, label="preferences")
    return seen


@torch.no_grad()
def pair_logprobs(model: Decoder, pairs: Sequence[tuple[str, str, str]]) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the chosen and of the rejected answers, in nats: two tensors (pairs,).

    >>> from ftmath.weights import base_model
    >>> chosen, rejected = pair_logprobs(base_model(), [("copy ab", "ab", "ba")])
    >>> bool(chosen > rejected)
    True
    """
    sides = [batch([(pair[0], pair[side]) for pair in pairs]).to(model.embed.weight.device) for side in (1, 2)]
    chosen, rejected = (model_logprob(model, side.ids, side.answer_mask) for side in sides)
    return chosen, rejected


# ----------------------------------------------------------------------------------------------------------- the policy


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
    replay_weight: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """One round's mean reward, and its mean `k1` estimate of the KL to the reference, in nats per answer."""

    reward: float
    kl: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round's sampled answers, and the inputs of the clipped loss that stay fixed for all of its updates.

    `sampled` and `reference` hold log-probabilities (rows, time - 1) under the policy that drew the answers and under
    the reference, in nats. `advantages` (rows,) are rewards in standard deviations from the mean of their group.
    """

    lines: Batch
    sampled: Tensor
    reference: Tensor
    advantages: Tensor


def draw_round(
    policy: Decoder, reference: Decoder, texts: Sequence[str], judge: Judge, samples: int, generator: torch.Generator
) -> tuple[Round, PolicyStep]:
    """Draw `samples` answers to each prompt and judge them; return the round and a summary of it."""
    lines, answers = roll_out(policy, texts, samples, generator=generator)
    repeated = [text for text in texts for _ in range(samples)]
    rewards = torch.tensor([judge(text, answer) for text, answer in zip(repeated, answers, strict=True)])
    with torch.no_grad():
        sampled, held = token_table(policy, lines), token_table(reference, lines)
    advantages = group_advantages(rewards.view(len(texts), samples)).flatten().to(sampled.device)
    kl = float((sampled - held).sum(1).mean()) + 0.0  # -0.0 becomes 0.0
    return Round(lines, sampled, held, advantages), PolicyStep(float(rewards.mean()), kl)


def improve_policy(
    policy: Decoder, reference: Decoder, texts: Sequence[str], judge: Judge, settings: PolicySettings
) -> list[PolicyStep]:
    """Raise a judge's reward of a policy's answers at a price of KL to a reference; return a summary of each round.

    In each round, answers to prompts from `texts` are drawn, and each answer's reward is compared with those of the
    other answers to its prompt (`group_advantages`). Then the clipped loss is minimised on these answers: PPO's update
    with GRPO's baseline (arXiv:1707.06347, 2402.03300). With one update a round the ratio is 1: the clip does nothing.

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
            fresh, summary = draw_round(policy, reference, drawn, judge, settings.samples_per_prompt, generator)
            rounds[:] = [fresh]
            seen.append(summary)
        (now,) = rounds
        value = policy_loss(
            token_table(policy, now.lines), now.sampled, now.reference, now.advantages, now.lines.answer_mask[:, 1:],
            beta=settings.beta, clip=settings.clip, estimator=settings.estimator,
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


def frozen_copy(model: Decoder) -> Decoder:
    """Return a copy to use as a reference: it shares no memory, is in evaluation mode, and none of it trains.

    >>> from ftmath.audit import audit_reference
    >>> from ftmath.weights import base_model
    >>> policy = base_model()
    >>> audit_reference(frozen_copy(policy), policy)
    []
    """
    copied = Decoder(model.config).to(model.embed.weight)
    copied.load_state_dict(model.state_dict())
    nn.Module.requires_grad_(copied, False)
    return copied.eval()


__all__ = [
    "Judge", "PairsStep", "PolicySettings", "PolicyStep", "fit_preferences", "fit_reward_model", "frozen_copy",
    "improve_policy", "judged", "pair_logprobs", "roll_out",
]  # fmt: skip
