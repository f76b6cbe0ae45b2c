"""Preference losses, completion masks and log-probabilities against trl, computed by its own trainers."""

from functools import partial

import pytest
import torch
from ftmath.masks import answer_only_loss, model_logprob, token_logprobs
from ftmath.policy_gradient import k3
from ftmath.preference import dpo_loss, hinge_loss, ipo_loss, margin, robust_dpo_loss

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
