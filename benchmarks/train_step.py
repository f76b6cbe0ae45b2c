"""A training step beside its peers: full, LoRA and DPO, ours against transformers with peft, and trl for DPO.

    python3 start.py test peers              (once, to have the peers)
    .venv/bin/python benchmarks/train_step.py [--smollm2] [--rounds 30]

Same weights, same batch, same optimizer (AdamW), one process; rounds of ours and theirs alternate, and what is printed
is the median of each and their ratio: above 1, ours is faster. First both losses are compared.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from ftmath.align import frozen_copy
from ftmath.lora import add_lora
from ftmath.masks import labels_of, model_logprob, model_loss
from ftmath.model import Decoder
from ftmath.preference import dpo_loss, margin
from ftmath.skills import SKILLS, Batch, mixture, padded
from ftmath.smollm import smollm2
from ftmath.weights import base_model

warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "peers"))
Step = Callable[[], float]


def stepper(parameters: list[torch.nn.Parameter], loss: Callable[[], torch.Tensor]) -> Step:
    """Return one training step: forward, backward, update; it returns the loss."""
    optimizer = torch.optim.AdamW([parameter for parameter in parameters if parameter.requires_grad], lr=1e-5)

    def step() -> float:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def lora_pair(make: Callable[[], Decoder]) -> tuple[Decoder, torch.nn.Module]:
    """Return LoRA of rank 8 on q and v, as ours and as peft's, from the same factors."""
    import peft
    from peering import peer_of

    theirs = peft.get_peft_model(
        peer_of(make()), peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    )
    ours = make()
    add_lora(ours, ["q", "v"], 8, 16.0)
    return ours.train(), theirs.train()


def supervised(make: Callable[[], Decoder], rows: Batch, lora: bool) -> tuple[Step, Step]:
    from peering import peer_of

    ours, theirs = lora_pair(make) if lora else (make().train(), peer_of(make()).train())
    labels = labels_of(rows.ids, rows.answer_mask)

    def their_loss() -> torch.Tensor:
        return theirs(input_ids=rows.ids, attention_mask=rows.attention_mask, labels=labels).loss

    return (
        stepper(list(ours.parameters()), lambda: model_loss(ours, rows.ids, rows.answer_mask)),
        stepper(list(theirs.parameters()), their_loss),
    )


def dpo(make: Callable[[], Decoder], chosen: Batch, rejected: Batch) -> tuple[Step, Step]:
    """Return a DPO step with the reference's log-probabilities at hand, ours and trl's own loss on its trainer."""
    import datasets
    import trl
    from peering import peer_of
    from test_preferences import words_tokenizer

    ours, reference = make().train(), frozen_copy(make())
    sides = (chosen, rejected)
    with torch.no_grad():
        wanted = [model_logprob(reference, side.ids, side.answer_mask) for side in sides]

    def our_loss() -> torch.Tensor:
        h = margin(*(model_logprob(ours, side.ids, side.answer_mask) for side in sides), *wanted)
        return dpo_loss(h)

    arguments = trl.DPOConfig(
        output_dir="/tmp/ftmath-benchmark", use_cpu=True, report_to=[], bf16=False, gradient_checkpointing=False
    )
    pair = [{"prompt": "a", "chosen": " b", "rejected": " c"}]
    trainer = trl.DPOTrainer(
        peer_of(make()), ref_model=peer_of(make()), args=arguments, train_dataset=datasets.Dataset.from_list(pair),
        processing_class=words_tokenizer(),
    )  # fmt: skip
    trainer.model.train()
    trainer.precompute_ref_logps = True
    both = together(chosen, rejected)
    inputs = {
        "input_ids": both.ids, "attention_mask": both.attention_mask, "completion_mask": both.answer_mask,
        "ref_chosen_logps": wanted[0], "ref_rejected_logps": wanted[1],
    }  # fmt: skip
    return (
        stepper(list(ours.parameters()), our_loss),
        stepper(list(trainer.model.parameters()), lambda: trainer._compute_loss(trainer.model, inputs, False)),
    )


def together(first: Batch, second: Batch) -> Batch:
    """Return two batches as one, padded alike."""
    lines = [
        (ids[: int(real.sum())].tolist(), answer[: int(real.sum())].tolist())
        for side in (first, second)
        for ids, answer, real in zip(side.ids, side.answer_mask, side.attention_mask, strict=True)
    ]
    return padded(lines)


def compared(name: str, ours: Step, theirs: Step, rounds: int) -> None:
    """Run both in turns and print a row."""
    first, other = ours(), theirs()
    if abs(first - other) > 1e-3 * max(1.0, abs(other)):
        raise SystemExit(f"{name}: the losses differ, {first} and {other}; a comparison would say nothing")
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for who, step in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            step()
            times[who].append(time.perf_counter() - start)
    a, b = (1000 * median(times[who]) for who in ("ours", "theirs"))
    print(f"| {name} | {a:.1f} | {b:.1f} | {b / a:.2f} |", flush=True)


def long_rows(make: Callable[[], Decoder], seed: int) -> Batch:
    """Return 4 rows of 128 tokens drawn from the vocabulary, the last quarter being the answer."""
    ids = torch.randint(20, make().config.vocab, (4, 128), generator=torch.Generator().manual_seed(seed))
    answer = (torch.arange(128) >= 96).long().expand(4, -1)
    return Batch(ids, answer, torch.ones_like(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", action="store_true", help="also the real model (python3 start.py model smollm2)")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    small = [mixture(dict.fromkeys(SKILLS, 1.0), 32, np.random.default_rng(seed)) for seed in (0, 1)]
    print("| step | ours, ms | peer, ms | peer / ours |\n|---|---:|---:|---:|")
    compared("small, full", *supervised(base_model, small[0], lora=False), arguments.rounds)
    compared("small, LoRA", *supervised(base_model, small[0], lora=True), arguments.rounds)
    compared("small, DPO", *dpo(base_model, *small), arguments.rounds)
    if arguments.smollm2:
        loaded = smollm2()[0]

        def make() -> Decoder:
            return frozen_copy(loaded).requires_grad_(True)

        rows = [long_rows(make, seed) for seed in (0, 1)]
        compared("SmolLM2, LoRA", *supervised(make, rows[0], lora=True), max(3, arguments.rounds // 6))
        compared("SmolLM2, full", *supervised(make, rows[0], lora=False), max(3, arguments.rounds // 6))
        compared("SmolLM2, DPO", *dpo(make, *rows), max(3, arguments.rounds // 6))


if __name__ == "__main__":
    main()
