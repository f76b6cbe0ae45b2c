"""What preference tuning does to the course's base model: the rows that part 7 shows, three seeds of each.

    python benchmarks/preference_runs.py [--only reward dpo controls policy] [--write]

Four tables. `reward`: a reward model's accuracy on fresh pairs of a right and a wrong `sort`, by the number of pairs
that it learned from. `dpo`: 40 steps on 64 pairs, by loss and rate, with the log-probabilities of the training pairs at
each step (`curve`), and of fresh pairs in pieces: the letters that both answers share, the thanks, the rejected
answer's end. Its last row is a control: the shared letters are held by a term of their own. `controls`: the same steps
with one thing changed each: no DPO beside the NLL, the same rate with and without the NLL, IPO with a farther target,
a lower rate for more steps, one of the two tails alone, a reference that was trained for three times as many steps.
`policy`: 32 rounds of policy updates for a judge that counts the word "thanks" (proxy), beside the share of answers
that are what was asked for (gold), by beta and by the estimate of KL that stands in the loss. Every row holds the
arguments that made it, so that the notebook can run one again. About fourteen minutes on one core. With --write the
tables go into course/ftmath/weights/preference_runs.json; a table that wasn't run stays as it was.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ftmath.align import fit_preferences, fit_reward_model, frozen_copy, judged, pair_logprobs
from ftmath.manners import (
    THANKS,
    measure_manners,
    polite_pairs,
    polite_policy,
    polite_requests,
    sorting_rankings,
    split_logprobs,
)
from ftmath.masks import model_logprob
from ftmath.model import Decoder
from ftmath.policy_gradient import Estimator, k2, k3
from ftmath.preference import dpo_loss, ipo_loss
from ftmath.rounds import PolicySettings, improve_policy, roll_out
from ftmath.skills import batch, retention
from ftmath.weights import FOLDER, base_model
from tqdm import tqdm

SEEDS = (0, 1, 2)
LOSSES: dict[str, Callable[..., torch.Tensor]] = {"DPO": dpo_loss, "IPO": ipo_loss}
DPO = [
    {"name": "DPO, 5e-6", "loss": "DPO", "rate": 5e-6, "beta": 0.1, "nll_weight": 0.0},
    {"name": "DPO, 1e-5", "loss": "DPO", "rate": 1e-5, "beta": 0.1, "nll_weight": 0.0},
    {"name": "DPO, 3e-5", "loss": "DPO", "rate": 3e-5, "beta": 0.1, "nll_weight": 0.0},
    {"name": "DPO, 1e-4", "loss": "DPO", "rate": 1e-4, "beta": 0.1, "nll_weight": 0.0},
    {"name": "IPO, 1e-4", "loss": "IPO", "rate": 1e-4, "beta": 0.1, "nll_weight": 0.0},
    {"name": "DPO + NLL, 1e-4", "loss": "DPO", "rate": 1e-4, "beta": 0.1, "nll_weight": 20.0},
    {"name": "DPO, letters held, 1e-4", "loss": "DPO", "rate": 1e-4, "beta": 0.1, "nll_weight": 0.0, "held": 20.0},
]
CONTROLS = [
    {"name": "DPO, 1e-5", "loss": "DPO", "rate": 1e-5, "beta": 0.1},
    {"name": "DPO, 2e-5, longer reference", "loss": "DPO", "rate": 2e-5, "beta": 0.1, "reference_steps": 240},
    {"name": "DPO, 3e-5, 130 steps", "loss": "DPO", "rate": 3e-5, "beta": 0.1, "steps": 130},
    {"name": "NLL alone, 1e-4", "loss": "none", "rate": 1e-4, "nll_weight": 20.0},
    {"name": "DPO + NLL, 1e-5", "loss": "DPO", "rate": 1e-5, "beta": 0.1, "nll_weight": 20.0},
    {"name": "IPO to h = 31, 1e-4", "loss": "IPO", "rate": 1e-4, "beta": 1 / 62},
    {"name": "end pushed down alone, 1e-4", "loss": "none", "rate": 1e-4, "tail": "stop"},
    {"name": "thanks pulled up alone, 1e-4", "loss": "none", "rate": 1e-4, "tail": "thanks"},
]
ESTIMATORS: dict[str, Estimator] = {"k2": k2, "k3": k3}
POLICY = [(0.0, "k2"), *((beta, name) for beta in (0.2, 1.0) for name in ESTIMATORS)]
SIZES = (4, 16, 64, 256)
TABLES = ("reward", "dpo", "controls", "policy")
Row = dict[str, Any]


@cache
def start(seed: int, steps: int = 80) -> Decoder:
    return frozen_copy(polite_policy(seed, steps=steps))


def rounded(values: Any, digits: int = 4) -> Any:
    return np.round(np.asarray(values, dtype=float), digits).tolist()


def reward_row(pairs: int, seed: int, steps: int = 40) -> Row:
    rankings = sorting_rankings(pairs, seed)
    model, losses = fit_reward_model(base_model(), rankings, steps=steps, rate=3e-4, seed=seed)
    fresh = sorting_rankings(256, 1000 + seed)
    better, worse = (judged(model, [(prompt, answers[side]) for prompt, answers in fresh]) for side in (0, 1))
    accuracy = float((better > worse).double().mean())
    return {"pairs": pairs, "seed": seed, "accuracy": rounded(accuracy), "last_loss": rounded(np.mean(losses[-5:]))}


def dpo_row(setting: Row, seed: int, steps: int = 40) -> Row:
    reference = start(seed)
    policy, learned = frozen_copy(reference).requires_grad_(True), polite_pairs(64, 100 + seed)
    rng = np.random.default_rng(1000 + seed)

    def letters_held() -> torch.Tensor:
        drawn = [learned[int(place)] for place in rng.permutation(len(learned))[:16]]
        return -setting["held"] * split_logprobs(policy, drawn)[0].sum() / sum(len(pair[2]) for pair in drawn)

    seen = fit_preferences(
        policy, reference, learned, steps=steps, rate=setting["rate"],
        loss_of=partial(LOSSES[setting["loss"]], beta=setting["beta"]), nll_weight=setting["nll_weight"],
        also=letters_held if "held" in setting else None, seed=seed,
    )  # fmt: skip
    fresh = polite_pairs(128, 200 + seed)
    chosen, rejected = pair_logprobs(policy, fresh)
    chosen_before, rejected_before = pair_logprobs(reference, fresh)
    margins = (chosen - rejected) - (chosen_before - rejected_before)
    with torch.no_grad():
        pieces = [
            float((now - then).mean())
            for now, then in zip(split_logprobs(policy, fresh), split_logprobs(reference, fresh), strict=True)
        ]
    kept = retention(policy)
    return {
        **setting, "seed": seed, "steps": steps, "pair_accuracy": rounded((margins > 0).double().mean()),
        "margin": rounded(margins.mean()), "chosen_moved": rounded((chosen - chosen_before).mean()),
        "rejected_moved": rounded((rejected - rejected_before).mean()),
        "pieces_moved": dict(zip(("letters", "thanks", "stop"), rounded(pieces), strict=True)),
        "before": asdict(measure_manners(reference, reference)), "after": asdict(measure_manners(policy, reference)),
        "base_kept": rounded(sum(kept.values()) / len(kept)),
        "curve": {
            name: rounded([getattr(step, name) for step in seen], 3) for name in ("margin", "chosen", "rejected")
        },
    }  # fmt: skip


def control_row(setting: Row, seed: int) -> Row:
    steps = setting.get("steps", 40)
    reference = start(seed, setting.get("reference_steps", 80))
    policy, learned = frozen_copy(reference).requires_grad_(True), polite_pairs(64, 100 + seed)
    rng = np.random.default_rng(1000 + seed)

    def one_tail() -> torch.Tensor:
        drawn = [learned[int(place)] for place in rng.permutation(len(learned))[:16]]
        _, thanks, stop = split_logprobs(policy, drawn)
        if setting["tail"] == "thanks":
            return -thanks.mean()
        with torch.no_grad():
            before = split_logprobs(reference, drawn)[2]
        return torch.nn.functional.softplus(0.1 * (stop - before)).mean()  # DPO's loss with the chosen side left out

    loss = setting["loss"]
    fit_preferences(
        policy, reference, learned, steps=steps, rate=setting["rate"],
        loss_of=partial(LOSSES[loss], beta=setting["beta"]) if loss in LOSSES else lambda h: 0 * h.sum(),
        nll_weight=setting.get("nll_weight", 0.0), also=one_tail if "tail" in setting else None, seed=seed,
    )  # fmt: skip
    fresh, kept = polite_pairs(128, 200 + seed), retention(policy)
    with torch.no_grad():
        pieces = [
            float((now - then).mean())
            for now, then in zip(split_logprobs(policy, fresh), split_logprobs(reference, fresh), strict=True)
        ]
    return {
        **setting, "seed": seed, "steps": steps, "margin": rounded(pieces[1] - pieces[2]),
        "chosen_moved": rounded(pieces[0] + pieces[1]),
        "pieces_moved": dict(zip(("letters", "thanks", "stop"), rounded(pieces), strict=True)),
        "before": asdict(measure_manners(reference, reference)), "after": asdict(measure_manners(policy, reference)),
        "base_kept": rounded(sum(kept.values()) / len(kept)),
        "tail_before": rounded(tail_right(reference, fresh)), "tail_after": rounded(tail_right(policy, fresh)),
        "greedy_before": rounded(greedy_right(reference)), "greedy_after": rounded(greedy_right(policy)),
    }  # fmt: skip


@torch.no_grad()
def tail_right(model: Decoder, pairs: list[tuple[str, str, str]]) -> float:
    """Return the mean chance that thanks ends as it should, once the right letters and the comma stand there."""
    rows = batch([(prompt, chosen) for prompt, chosen, _ in pairs])
    place = rows.answer_mask.cumsum(1) * rows.answer_mask
    letters = torch.tensor([len(pair[2]) for pair in pairs])[:, None]
    return float(model_logprob(model, rows.ids, (place > letters + 1).to(rows.answer_mask.dtype)).exp().mean())


def greedy_right(policy: Decoder, count: int = 128, seed: int = 5) -> float:
    """Return the share of right answers, with or without thanks, where the likeliest token is taken each time."""
    requests = polite_requests(count, seed)
    _, said = roll_out(policy, [prompt for prompt, _ in requests], 1, temperature=0.0)
    return float(np.mean([one.removesuffix(THANKS) == right for one, (_, right) in zip(said, requests, strict=True)]))


def policy_row(beta: float, estimator: str, seed: int, rounds: int = 32) -> Row:
    reference = start(seed)
    policy = frozen_copy(reference).requires_grad_(True)
    questions, gold, said = dict(polite_requests(48, 300 + seed)), list[bool](), list[tuple[str, str]]()

    def judge(prompt: str, answer: str) -> float:
        gold.append(answer == questions[prompt] + ", thanks!")
        said.append((prompt, answer))
        return float(answer.count("thanks"))

    settings = PolicySettings(steps=rounds, rate=5e-5, beta=beta, estimator=ESTIMATORS[estimator], seed=seed)
    seen = improve_policy(policy, reference, list(questions), judge, settings)
    size = len(said) // rounds
    kinds = [len(set(said[at : at + size])) / size for at in range(0, len(said), size)]
    return {
        "beta": beta, "estimator": estimator, "seed": seed, "rounds": rounds,
        "distinct": rounded(kinds), "proxy": rounded([step.reward for step in seen]),
        "gold": rounded(np.array(gold).reshape(rounds, -1).mean(1)), "kl": rounded([step.kl for step in seen], 3),
        "ends_with": sample(policy, reference, questions, seed),
    }  # fmt: skip


def sample(policy: Decoder, reference: Decoder, questions: dict[str, str], seed: int) -> list[str]:
    """Return a few requests with what the policy now answers."""
    texts = list(questions)[:3]
    _, said = roll_out(policy, texts, 1, generator=torch.Generator().manual_seed(seed))
    return [f"{text} -> {answer}" for text, answer in zip(texts, said, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--write", action="store_true", help="keep the rows for the course")
    arguments = parser.parse_args()
    jobs: dict[str, list[Callable[[], Row]]] = {
        "reward": [partial(reward_row, pairs, seed) for pairs in SIZES for seed in SEEDS],
        "dpo": [partial(dpo_row, setting, seed) for setting in DPO for seed in SEEDS],
        "controls": [partial(control_row, setting, seed) for setting in CONTROLS for seed in SEEDS],
        "policy": [partial(policy_row, beta, name, seed) for beta, name in POLICY for seed in SEEDS],
    }
    path = Path(FOLDER) / "preference_runs.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for table in arguments.only:
        rows = [job() for job in tqdm(jobs[table], desc=table)]
        found[table] = rows
        for row in rows:
            print(json.dumps({name: value for name, value in row.items() if name not in ("curve", "before")}))
        if arguments.write:
            found["torch"] = torch.__version__
            path.write_text(json.dumps(found, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
