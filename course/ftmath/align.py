"""Runs that learn from judgements: a reward model, DPO and its kin, and a policy that is held to its reference."""

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
from ftmath.skills import BOS, EOS, SEP, SKILLS, Batch, batch, decode, encode, example, mixture, padded, prompts
from ftmath.train import train
from ftmath.weights import base_model

Judge = Callable[[str, str], float]
"""From a prompt and an answer to a reward."""


def fit_reward_model(
    decoder: Decoder, rankings: Sequence[tuple[str, Sequence[str]]], *, steps: int, rate: float = 1e-3, rows: int = 16,
    seed: int = 0,
) -> tuple[RewardModel, list[float]]:  # fmt: skip
    """Train a reward model on rankings (a prompt and its answers, best first, all of one length K); return the losses.

    All parameters train. At each step `rows` rankings are drawn.

    >>> from ftmath.weights import base_model
    >>> _, losses = fit_reward_model(base_model(), [("copy ab", ["ab", "ba", "b"])], steps=2, rows=1)
    >>> round(losses[0], 4)
    0.6931

    Errors: ValueError for rankings of unequal length.
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
    """Return the rewards (count,) of prompts with answers.

    >>> from ftmath.weights import base_model
    >>> judged(RewardModel(base_model()), [("copy ab", "ab")]).tolist()
    [0.0]
    """
    lines = padded([encode(prompt, answer) for prompt, answer in pairs]).to(model.value.weight.device)
    return model(lines.ids, lines.attention_mask)


# ---------------------------------------------------------------------------------------------------------- preferences


@dataclass(frozen=True, slots=True)
class PairsStep:
    """What a step of preference tuning saw, in nats: its loss, and the means over its pairs.

    A margin that grows says nothing of the chosen answers: read `chosen`, the mean log p(chosen), beside it.
    """

    loss: float
    margin: float
    chosen: float
    rejected: float


def fit_preferences(
    policy: Decoder, reference: Decoder, pairs: Sequence[tuple[str, str, str]], *, steps: int, rate: float,
    loss_of: Callable[[Tensor], Tensor] = dpo_loss, nll_weight: float = 0.0, rows: int = 16, seed: int = 0,
) -> list[PairsStep]:  # fmt: skip
    """Tune the trained parameters of a policy on pairs (prompt, chosen, rejected); return what each step saw.

    `loss_of` maps margins (pairs,) to a loss: `dpo_loss`, `ipo_loss`, `hinge_loss`, with their beta bound. With
    `nll_weight`, the chosen answers' mean negative log-likelihood per token is added (arXiv:2404.19733, equation 1).
    The reference is read once: its log-probabilities never change.

    >>> from ftmath.weights import base_model
    >>> pair = [("copy ab", "ab, thanks!", "ab")]
    >>> seen = fit_preferences(base_model(), base_model(), pair, steps=1, rate=1e-4)
    >>> round(seen[0].loss, 4), round(seen[0].margin, 4)
    (0.6931, 0.0)

    Errors: ValueError if the reference trains the same memory as the policy, or no parameter of the policy trains.
    """
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("policy must have a parameter that trains, and all are frozen")
    if {p.data_ptr() for p in reference.parameters()} & {p.data_ptr() for p in trained}:
        raise ValueError("reference must be another model than the policy: they share memory that trains")
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
        seen.append(PairsStep(value.item(), h.mean().item(), ours[0].mean().item(), ours[1].mean().item()))
        return value

    train(policy, loss, rate_groups(policy, {}, rate), steps, label="preferences")
    return seen


# ----------------------------------------------------------------------------------------------------------- the policy


@torch.no_grad()
def roll_out(
    policy: Decoder, texts: Sequence[str], samples: int, *, max_new: int = 24, temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Batch, list[str]]:  # fmt: skip
    """Draw `samples` answers to each prompt; return them as rows, a prompt's together, and as text.

    An answer's mask covers what was drawn, its end-of-sequence token too if it came.

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


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """What a policy update saw: the mean reward of its samples, and the mean k1 estimate of KL per answer, in nats."""

    reward: float
    kl: float


def improve_policy(
    policy: Decoder, reference: Decoder, texts: Sequence[str], judge: Judge, *, steps: int, rate: float,
    prompts_per_step: int = 8, samples: int = 8, updates: int = 1, beta: float = 0.02, clip: float = 0.2,
    estimator: Estimator = k3, mix: float = 0.0, seed: int = 0,
) -> list[PolicyStep]:  # fmt: skip
    """Raise a judge's reward of a policy's answers, held to its reference; return what each round of samples saw.

    In each round answers are drawn, each is compared with the others to its prompt (`group_advantages`), and `updates`
    steps of the clipped loss are taken on them: PPO's update with GRPO's baseline (arXiv:1707.06347, 2402.03300).
    `mix` is InstructGPT's pretraining coefficient: so many times the mean loss per token on lines of the base skills
    is added (arXiv:2203.02155, equation 2). Steps count updates.

    >>> from ftmath.weights import base_model
    >>> longer = lambda prompt, answer: float(len(answer))
    >>> seen = improve_policy(base_model(), base_model(), ["copy ab"], longer, steps=1, rate=1e-5, prompts_per_step=1)
    >>> len(seen), seen[0].kl
    (1, 0.0)
    """
    rng, generator = np.random.default_rng(seed), torch.Generator(policy.embed.weight.device).manual_seed(seed)
    seen: list[PolicyStep] = []
    round_: dict[str, Tensor] = {}
    lines = [Batch(torch.empty(0), torch.empty(0), torch.empty(0))]

    def draw() -> None:
        chosen = [texts[int(place)] for place in rng.integers(len(texts), size=prompts_per_step)]
        lines[0], answers = roll_out(policy, chosen, samples, generator=generator)
        asked = [text for text in chosen for _ in range(samples)]
        rewards = torch.tensor([judge(text, answer) for text, answer in zip(asked, answers, strict=True)])
        with torch.no_grad():
            round_["sampled"] = token_table(policy, lines[0])
            round_["reference"] = token_table(reference, lines[0])
        advantages = group_advantages(rewards.view(prompts_per_step, samples)).flatten()
        round_["advantages"] = advantages.to(round_["sampled"].device)
        kl = float((round_["sampled"] - round_["reference"]).sum(1).mean())
        seen.append(PolicyStep(float(rewards.mean()), kl + 0.0))

    def loss(step: int) -> Tensor:
        if step % updates == 0:
            draw()
        value = policy_loss(
            token_table(policy, lines[0]), round_["sampled"], round_["reference"], round_["advantages"],
            lines[0].answer_mask[:, 1:], beta=beta, clip=clip, estimator=estimator,
        )  # fmt: skip
        if mix:
            old = mixture(dict.fromkeys(SKILLS, 1.0), 16, rng).to(policy.embed.weight.device)
            value = value + mix * model_loss(policy, old.ids, old.answer_mask)
        return value

    train(policy, loss, rate_groups(policy, {}, rate), steps, label="policy")
    return seen


def token_table(model: Decoder, lines: Batch) -> Tensor:
    """Return the log-probability of each answer token (batch, time - 1), 0 elsewhere."""
    found, _ = answer_token_logprobs(model, lines.ids, lines.answer_mask)
    table = torch.zeros(lines.ids[:, 1:].shape, dtype=found.dtype, device=found.device)
    return table.masked_scatter(lines.answer_mask[:, 1:] != 0, found)


def frozen_copy(model: Decoder) -> Decoder:
    """Return a copy that shares no memory, trains nothing and is in evaluation mode: a reference.

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


# ----------------------------------------------------------------------------------------------------- learning manners

THANKS = ", thanks!"


def asked(count: int, seed: int) -> list[tuple[str, str]]:
    """Return requests (`please reverse abc`) and their plain answers, the same for the same seed.

    >>> asked(1, seed=0)
    [('please reverse nhibba', 'abbihn')]
    """
    rng = np.random.default_rng(seed)
    found = [example("please", rng) for _ in range(count)]
    return [(prompt, answer.removesuffix(THANKS)) for prompt, answer in found]


def polite_pairs(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Return pairs (prompt, chosen, rejected) of one answer with thanks and without.

    >>> polite_pairs(1, seed=0)
    [('please reverse nhibba', 'abbihn, thanks!', 'abbihn')]
    """
    return [(prompt, answer + THANKS, answer) for prompt, answer in asked(count, seed)]


def polite_policy(
    seed: int = 0, *, steps: int = 80, rate: float = 3e-4, rows: int = 24, device: torch.device | None = None
) -> Decoder:
    """Return the base model after it has seen requests, three answers in ten with thanks: where preferences begin.

    At each step two rows in three are requests, the others lines of the base skills.

    >>> model = polite_policy(steps=1, rows=3)
    >>> sum(parameter.requires_grad for parameter in model.parameters()) > 0
    True
    """
    model = base_model().to(device or torch.device("cpu"))
    rng, skills = np.random.default_rng(seed), list(SKILLS)

    def loss(step: int) -> Tensor:
        seen = asked(2 * rows // 3, int(rng.integers(2**31)))
        lines = [(prompt, answer + THANKS if rng.random() < 0.3 else answer) for prompt, answer in seen]
        old = [example(skills[int(rng.integers(len(skills)))], rng) for _ in range(rows - len(lines))]
        drawn = batch(lines + old).to(model.embed.weight.device)
        return model_loss(model, drawn.ids, drawn.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps, label="manners")
    return model


def sorting_rankings(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return rankings of two answers to `sort`: the right one, and one whose first two letters are swapped.

    >>> sorting_rankings(1, seed=0)
    [('sort qnhibba', ['abbhinq', 'babhinq'])]
    """
    rng, found = np.random.default_rng(seed), list[tuple[str, list[str]]]()
    while len(found) < count:
        prompt, right = example("sort", rng)
        if right[0] != right[1]:
            found.append((prompt, [right, right[1] + right[0] + right[2:]]))
    return found


@torch.no_grad()
def pair_logprobs(model: Decoder, pairs: Sequence[tuple[str, str, str]]) -> tuple[Tensor, Tensor]:
    """Return log p of the chosen and of the rejected answers, in nats: two tensors (pairs,).

    >>> chosen, rejected = pair_logprobs(base_model(), [("copy ab", "ab", "ba")])
    >>> bool(chosen > rejected)
    True
    """
    sides = [batch([(pair[0], pair[side]) for pair in pairs]).to(model.embed.weight.device) for side in (1, 2)]
    chosen, rejected = (model_logprob(model, side.ids, side.answer_mask) for side in sides)
    return chosen, rejected


@dataclass(frozen=True, slots=True)
class Manners:
    """What a policy's sampled answers to requests are: shares, and the mean of log(pi / ref) per answer, in nats.

    `thanks` ends in thanks; `right` is the right answer, with thanks or without; `both` is what the pairs ask for.
    """

    thanks: float
    right: float
    both: float
    kl: float


@torch.no_grad()
def manners(policy: Decoder, reference: Decoder, count: int = 128, seed: int = 5) -> Manners:
    """Return what a policy's answers to `count` fresh requests are, one sampled at temperature 1 for each.

    >>> found = manners(base_model(), base_model(), count=8)
    >>> found.thanks, found.kl
    (0.0, 0.0)
    """
    questions = asked(count, seed)
    generator = torch.Generator(policy.embed.weight.device).manual_seed(seed)
    lines, said = roll_out(policy, [prompt for prompt, _ in questions], 1, generator=generator)
    ours, theirs = (model_logprob(model, lines.ids, lines.answer_mask) for model in (policy, reference))
    right = [answer for _, answer in questions]
    return Manners(
        sum(one.endswith(THANKS) for one in said) / count,
        sum(one.removesuffix(THANKS) == answer for one, answer in zip(said, right, strict=True)) / count,
        sum(one == answer + THANKS for one, answer in zip(said, right, strict=True)) / count,
        float((ours - theirs).mean()) + 0.0,
    )


__all__ = [
    "Judge", "Manners", "PairsStep", "PolicyStep", "asked", "fit_preferences", "fit_reward_model", "frozen_copy",
    "improve_policy", "judged", "manners", "pair_logprobs", "polite_pairs", "polite_policy", "roll_out",
    "sorting_rankings",
]  # fmt: skip
