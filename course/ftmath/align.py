"""Training on judgements that were written down: reward models, and preference losses such as DPO."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.groups import rate_groups
from ftmath.masks import model_logprob
from ftmath.model import Decoder
from ftmath.preference import dpo_loss, margin
from ftmath.reward import RewardModel, ranking_loss
from ftmath.skills import batch, encode, padded
from ftmath.training import train


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


@dataclass(frozen=True, slots=True)
class PairLogprobs:
    """What a preference loss may see of the pairs of one step: everything is (pairs,), in nats or in tokens.

    `chosen` and `rejected` are log-probabilities of whole answers under the policy, the two that end in `_reference`
    those under the reference. `chosen_tokens` and `rejected_tokens` are the answers' lengths. `drawn` says which pairs
    these are.

    >>> four = (torch.tensor([value]) for value in (-12.0, -14.0, -13.0, -13.5))
    >>> PairLogprobs(*four, torch.tensor([3]), torch.tensor([2]), drawn=torch.tensor([0])).margin
    tensor([1.5000])
    """

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor
    rejected_reference: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    drawn: Tensor

    @property
    def margin(self) -> Tensor:
        """Return h of each pair."""
        return margin(self.chosen, self.rejected, self.chosen_reference, self.rejected_reference)


def fit_on_pairs(
    policy: Decoder, reference: Decoder, pairs: Sequence[tuple[str, str, str]],
    loss_of: Callable[[PairLogprobs], Tensor], *, steps: int, rate: float, rows: int = 16, seed: int = 0,
) -> list[PairsStep]:  # fmt: skip
    """Train a policy's unfrozen parameters on pairs (prompt, chosen, rejected); return a summary of each step.

    `loss_of` may use whatever `PairLogprobs` holds. The reference's log-probabilities are computed once, before
    training.

    >>> from ftmath.weights import base_model
    >>> pair, nll = [("copy ab", "ab, thanks!", "ab")], lambda now: -now.chosen.mean()
    >>> seen = fit_on_pairs(base_model(), base_model(), pair, nll, steps=1, rate=1e-4)
    >>> seen[0].loss == -seen[0].chosen
    True

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
        tokens = [side.answer_mask[drawn].sum(1) for side in (chosen, rejected)]
        now = PairLogprobs(ours[0], ours[1], wanted[0][drawn], wanted[1][drawn], tokens[0], tokens[1], drawn)
        value = loss_of(now)
        means = (part.mean().item() for part in (now.margin, now.chosen, now.rejected))
        seen.append(PairsStep(value.item(), *means))
        return value

    train(policy, loss, rate_groups(policy, {}, rate), steps, label="preferences")
    return seen


def fit_preferences(
    policy: Decoder, reference: Decoder, pairs: Sequence[tuple[str, str, str]], *, steps: int, rate: float,
    loss_of: Callable[[Tensor], Tensor] = dpo_loss, nll_weight: float = 0.0,
    also: Callable[[], Tensor] | None = None, rows: int = 16, seed: int = 0,
) -> list[PairsStep]:  # fmt: skip
    """Train a policy on pairs by a loss of their margins, as `fit_on_pairs` does; return a summary of each step.

    `loss_of` maps margins (pairs,) to a loss, for example `partial(ipo_loss, beta=0.1)`. `nll_weight` times the chosen
    answers' mean negative log-likelihood per token is added (arXiv:2404.19733, equation 1), and so is whatever `also`
    returns at each step.

    >>> from ftmath.weights import base_model
    >>> pair = [("copy ab", "ab, thanks!", "ab")]
    >>> seen = fit_preferences(base_model(), base_model(), pair, steps=1, rate=1e-4)
    >>> round(seen[0].loss, 4), round(seen[0].margin, 4)
    (0.6931, 0.0)

    Errors: as `fit_on_pairs`.
    """

    def loss(now: PairLogprobs) -> Tensor:
        value = loss_of(now.margin)
        if nll_weight:
            value = value - nll_weight * now.chosen.sum() / now.chosen_tokens.sum()
        return value if also is None else value + also()

    return fit_on_pairs(policy, reference, pairs, loss, steps=steps, rate=rate, rows=rows, seed=seed)


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
    "PairLogprobs", "PairsStep", "fit_on_pairs", "fit_preferences", "fit_reward_model", "frozen_copy", "judged",
    "pair_logprobs",
]  # fmt: skip
