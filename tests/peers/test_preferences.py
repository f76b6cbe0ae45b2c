"""Preference losses, completion masks and log-probabilities against trl, computed by its own trainers."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from ftmath.masks import answer_only_loss, model_logprob, token_logprobs
from ftmath.policy_gradient import (
    centred_advantages,
    clipped_share,
    fixed_mean,
    group_advantages,
    k3,
    leave_one_out,
    policy_loss,
    row_mean,
    token_mean,
)
from ftmath.preference import dpo_loss, hinge_loss, ipo_loss, kto_loss, margin, orpo_loss, robust_dpo_loss, simpo_loss

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")
from peering import GROUPED, made, peer_of  # noqa: E402  (only where the peers are)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
BETA, EOS = 0.3, 3
PAIRS = [
    {"prompt": "a b c", "chosen": " d e", "rejected": " f"}, {"prompt": "b b", "chosen": " g", "rejected": " h a d"},
]  # fmt: skip


def words_tokenizer():
    """Return a tokenizer of one id a letter, with an end-of-sequence token."""
    letters = {letter: 10 + place for place, letter in enumerate("abcdefgh")}
    vocabulary = {"<pad>": 0, "<bos>": 1, "<unk>": 2, "<eos>": EOS} | letters
    inside = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inside.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inside, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def rows_of(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and answer masks of one side of the pairs; the end-of-sequence token belongs to the answer."""
    tokenizer = words_tokenizer()
    lines = [(tokenizer(pair["prompt"])["input_ids"], [*tokenizer(pair[side])["input_ids"], EOS]) for pair in PAIRS]
    time = max(len(prompt) + len(answer) for prompt, answer in lines)
    ids, mask = torch.zeros(2, len(lines), time, dtype=torch.long)
    for row, (prompt, answer) in enumerate(lines):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask[row, len(prompt) : len(prompt) + len(answer)] = 1
    return ids, mask


def trainer_loss(tmp_path, policy, reference, kind: str) -> float:
    """Return the loss that trl's trainer computes on the pairs."""
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=BETA, loss_type=kind, label_smoothing=0.1 if kind == "robust" else 0.0,
        use_cpu=True, report_to=[], bf16=False, per_device_train_batch_size=2, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        peer_of(policy), ref_model=peer_of(reference), args=arguments,
        train_dataset=datasets.Dataset.from_list(PAIRS), processing_class=words_tokenizer(),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    return float(trainer._compute_loss(trainer.model, batch, False))


LOSSES = {
    "sigmoid": partial(dpo_loss, beta=BETA),
    "hinge": partial(hinge_loss, beta=BETA),
    "robust": partial(robust_dpo_loss, beta=BETA, label_smoothing=0.1),
    "ipo": partial(ipo_loss, beta=BETA),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_on_pairs_is_trls(kind: str, tmp_path):
    """IPO differs by convention: trl divides each answer's log-ratio by its length, the paper sums (equation 17)."""
    policy, reference = made(GROUPED), made(GROUPED)
    with torch.no_grad():
        reference.head.weight.mul_(0.8)
        four = []
        for model in (policy, reference):
            for side in ("chosen", "rejected"):
                ids, mask = rows_of(side)
                sums = model_logprob(model, ids, mask)
                four.append(sums / mask.sum(1) if kind == "ipo" else sums)
        ours = float(LOSSES[kind](margin(*four)))
    assert ours == pytest.approx(trainer_loss(tmp_path, policy, reference, kind), abs=2e-5)


def test_completion_only_labels_and_loss_are_trls(tmp_path):
    model = made(GROUPED)
    lines = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), completion_only_loss=True, use_cpu=True, report_to=[], bf16=False,
        per_device_train_batch_size=2, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        peer_of(model), args=arguments, train_dataset=datasets.Dataset.from_list(lines),
        processing_class=words_tokenizer(),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    ids, mask = rows_of("chosen")
    found = {tuple(row[row != 0].tolist()) for row in batch["input_ids"]}
    assert found == {tuple(row[row != 0].tolist()) for row in ids}
    learned = {tuple(row[row != -100].tolist()) for row in batch["labels"]}
    assert learned == {tuple(row[chosen == 1].tolist()) for row, chosen in zip(ids, mask, strict=True)}
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch)
        ours = answer_only_loss(model(ids), ids, mask)
    assert float(ours) == pytest.approx(float(theirs), abs=2e-5)


def test_log_probabilities_are_trls():
    from trl.trainer.utils import selective_log_softmax

    generator = torch.Generator().manual_seed(0)
    logits, ids = 5 * torch.randn(3, 7, 50, generator=generator), torch.randint(0, 50, (3, 7), generator=generator)
    torch.testing.assert_close(token_logprobs(logits, ids), selective_log_softmax(logits, ids), rtol=0, atol=1e-5)


def test_grpos_kl_term_is_written_as_in_trl():
    """Read from its source, as the trainer computes it within a step: exp(ref - policy) - (ref - policy) - 1."""
    import inspect

    from trl.trainer import grpo_trainer

    source = "".join(inspect.getsource(grpo_trainer).split())
    assert "torch.exp(ref_per_token_logps-per_token_logps)-(ref_per_token_logps-per_token_logps)-1" in source
    policy, reference = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        k3(policy, reference), torch.exp(reference - policy) - (reference - policy) - 1, rtol=1e-5, atol=1e-6
    )


# ------------------------------------------------------------------------------------------- losses without a reference


def four_numbers() -> tuple[torch.Tensor, ...]:
    """Return log-probabilities of four pairs, policy and reference, all below 0."""
    return tuple(-torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) - 0.05)


def test_simpos_and_orpos_losses_are_trls():
    """Both get means over tokens; the methods of trl's trainers are asked without a trainer."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    chosen, rejected, _, _ = four_numbers()
    cpu = SimpleNamespace(device="cpu")
    asked = SimpleNamespace(
        alpha=0.0, accelerator=cpu, loss_type="simpo", simpo_gamma=0.7, beta=2.0, label_smoothing=0.0
    )
    theirs = CPOTrainer.cpo_loss(asked, chosen, rejected)[0].mean()
    torch.testing.assert_close(simpo_loss(chosen, rejected, beta=2.0, gamma=0.7), theirs)
    ratio = ORPOTrainer.odds_ratio_loss(SimpleNamespace(accelerator=cpu, beta=0.3), chosen, rejected)[0]
    torch.testing.assert_close(orpo_loss(chosen, rejected, weight=0.3), -chosen.mean() - ratio.mean())


def test_ktos_loss_is_trls(tmp_path):
    policy, reference = made(GROUPED), made(GROUPED)
    with torch.no_grad():
        reference.head.weight.mul_(0.8)
    lines = [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for pair in PAIRS for side in ("chosen", "rejected")
    ]  # fmt: skip
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path), beta=BETA, use_cpu=True, report_to=[], bf16=False, per_device_train_batch_size=4,
        gradient_checkpointing=False, max_length=None,
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        peer_of(policy), ref_model=peer_of(reference), args=arguments,
        train_dataset=datasets.Dataset.from_list(lines), processing_class=words_tokenizer(),
    )  # fmt: skip
    drawn = next(iter(trainer.get_train_dataloader()))
    theirs = float(trainer._compute_loss(trainer.model, drawn, False))

    def ratios(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return model_logprob(policy, ids, mask) - model_logprob(reference, ids, mask)

    with torch.no_grad():
        moved = ratios(drawn["input_ids"], drawn["completion_mask"])
        drift = ratios(drawn["KL_input_ids"], drawn["KL_completion_mask"]).mean()
        good = torch.as_tensor(drawn["label"], dtype=torch.bool)
        ours = kto_loss(moved[good], moved[~good], drift, beta=BETA)
    assert float(ours) == pytest.approx(theirs, abs=2e-5)


# --------------------------------------------------------------------------------------------------- a round of updates

AVERAGES = {"grpo": row_mean, "bnpo": token_mean, "dr_grpo": partial(fixed_mean, length=6)}


def grpo_trainer(tmp_path, kind: str, *, scaled: bool = True):
    """Return trl's trainer of a policy; its reward is an answer's length, and it has no reference yet."""
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), loss_type=kind, beta=0.0, epsilon=0.1, num_generations=4, max_completion_length=6,
        scale_rewards="group" if scaled else "none", use_cpu=True, report_to=[], bf16=False, num_iterations=2,
        per_device_train_batch_size=4, gradient_checkpointing=False, generation_batch_size=4, seed=3,
        use_bias_correction_kl=False,
    )  # fmt: skip
    return trl.GRPOTrainer(
        peer_of(made(GROUPED)), reward_funcs=lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids],
        args=arguments, train_dataset=datasets.Dataset.from_list([{"prompt": "a b c"}] * 4),
        processing_class=words_tokenizer(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", AVERAGES)
def test_a_round_of_updates_is_trls(kind: str, tmp_path):
    """trl draws the answers, then its loss is asked for a policy that has moved away from the one that drew them."""
    trainer = grpo_trainer(tmp_path, kind)
    trainer.model.train()
    round_ = trainer._generate_and_score_completions([{"prompt": "a b c"}] * 4)
    mask = round_["completion_mask"]
    rewards = mask.sum(1).float().view(1, 4)
    torch.testing.assert_close(round_["advantages"], group_advantages(rewards).flatten(), rtol=1e-4, atol=1e-4)
    round_["advantages"] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([round_["prompt_ids"], round_["completion_ids"]], 1)
    real = torch.cat([round_["prompt_mask"], mask], 1)
    with torch.no_grad():
        now, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, real, mask.shape[1])
    sampled, held = (now + 0.3 * torch.randn(now.shape, generator=generator) for _ in range(2))
    round_ |= {"old_per_token_logps": sampled, "ref_per_token_logps": held}
    trainer.current_gradient_accumulation_steps, trainer.beta = 1, BETA
    theirs = float(trainer._compute_loss(trainer.model, round_))
    ours = policy_loss(
        now, sampled, held, round_["advantages"], mask, beta=BETA, clip=0.1, estimator=k3, average=AVERAGES[kind]
    )
    assert float(ours) == pytest.approx(theirs, abs=2e-5)
    told = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
    assert clipped_share(now, sampled, round_["advantages"], mask, clip=0.1) == pytest.approx(told, abs=1e-6)


def test_dr_grpos_and_rloos_advantages_are_trls(tmp_path):
    trainer = grpo_trainer(tmp_path, "dr_grpo", scaled=False)
    round_ = trainer._generate_and_score_completions([{"prompt": "a b c"}] * 4)
    rewards = round_["completion_mask"].sum(1).float().view(1, 4)
    torch.testing.assert_close(round_["advantages"], centred_advantages(rewards).flatten())
    import inspect

    from trl.trainer import rloo_trainer

    source = "".join(inspect.getsource(rloo_trainer).split())
    assert "baselines=(grouped_sum-grouped_rewards)/(scorable_counts-1)" in source
    others = (rewards.sum(1, keepdim=True) - rewards) / 3
    torch.testing.assert_close(leave_one_out(rewards), rewards - others)
