"""The library against the problems' references: two implementations, written apart, that must agree on any input."""

import torch
import torch.nn.functional as F
from ftgrade.catalog import home
from ftmath import masks, preference
from hypothesis import given, settings
from hypothesis import strategies as st

P01, P08 = (home().solution(stem) for stem in ("p01_answer_only_loss", "p08_dpo_loss"))
seeds = st.integers(0, 2**31)


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 6, 8, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 8, (3, 6), generator=generator)
    mask = (torch.rand(3, 6, generator=generator) < 0.5).long()
    mask[0, 2] = 1
    return logits, ids, mask


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_losses_and_log_probabilities_of_answers_agree(seed: int):
    logits, ids, mask = batch(seed)
    torch.testing.assert_close(masks.answer_only_loss(logits, ids, mask), P01.answer_only_loss(logits, ids, mask))
    torch.testing.assert_close(masks.sequence_logprob(logits, ids, mask), P08.sequence_logprob(logits, ids, mask))
    labels = masks.labels_of(ids, mask)[:, 1:].flatten()
    torchs = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=-100, label_smoothing=0.1)
    torch.testing.assert_close(masks.answer_only_loss(logits, ids, mask, label_smoothing=0.1), torchs)


@given(seeds, st.floats(0.01, 2.0), st.floats(0.0, 0.49))
@settings(max_examples=25, deadline=None)
def test_preference_losses_agree(seed: int, beta: float, smoothing: float):
    generator = torch.Generator().manual_seed(seed)
    four = [10 * torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(4)]
    h = preference.margin(*four)
    torch.testing.assert_close(
        preference.dpo_loss(h, beta, smoothing), P08.dpo_loss(*four, beta=beta, label_smoothing=smoothing)
    )
    chosen, rejected = P08.dpo_grad(*four, beta=beta)
    torch.testing.assert_close(preference.dpo_slope(h, beta) / len(h), chosen)
    torch.testing.assert_close(-preference.dpo_slope(h, beta) / len(h), rejected)
    rewards = [
        preference.implicit_reward(policy, reference, beta)
        for policy, reference in zip(four[:2], four[2:], strict=True)
    ]
    torch.testing.assert_close(tuple(rewards), P08.implicit_rewards(*four, beta=beta))


@given(seeds, st.floats(0.05, 1.0), st.floats(0.01, 0.4))
@settings(max_examples=25, deadline=None)
def test_the_robust_loss_is_unbiased_under_flipped_labels(seed: int, beta: float, wrong: float):
    h = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = (1 - wrong) * preference.robust_dpo_loss(h, beta, wrong) + wrong * preference.robust_dpo_loss(
        -h, beta, wrong
    )
    torch.testing.assert_close(expected, preference.dpo_loss(h, beta))


def test_a_reference_gives_no_gradient_and_a_policy_does():
    four = [torch.randn(3, requires_grad=True) for _ in range(4)]
    preference.dpo_loss(preference.margin(*four)).backward()
    assert [part.grad is None for part in four] == [False, False, True, True]


def test_packed_documents_use_only_their_own_pairs():
    allowed = masks.block_causal([3, 1, 2])
    assert int(allowed.sum()) == 6 + 1 + 3
    assert not bool(allowed.triu(1).any())
    assert not bool(allowed[3:, :3].any())
