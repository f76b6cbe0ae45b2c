"""Policy updates on a skill that a rule can verify, and over-optimisation's null: the runs that section 7.5 shows.

    python benchmarks/policy_runs.py [--only gradients gold skill] [--write] [--anew]

The policy of `skill` learned from demonstrations with typos: about four sampled answers in ten have the right letters,
and half of the answers end in thanks. The verifier reads the letters alone. Each row holds the measurements of every
round, and the answers to fresh requests before and after: sampled at temperature 1, greedy, and in groups of eight. In
two controls a coin, or the policy's own greedy answer before the first update, takes the verifier's place. `gradients`
measures that policy without training: how much a round's gradient varies with the leave-one-out baseline and without,
if the verifier's rewards of 0 and 1 are shifted by -1, 0 and 1; how large the scores of right and of wrong answers are;
and for each answer whether its letters are right, and whether it went on behind them. `gold` is the run of
preference_runs.json without a price of KL, with the gold reward in the judge's place. Three seeds of each. With --write
the rows go into course/ftmath/weights/policy_runs.json; what is recorded isn't run again unless --anew is given. About
ten minutes on one quiet core.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ftmath.align import frozen_copy
from ftmath.manners import THANKS, polite_policy, polite_requests, word_of
from ftmath.masks import model_logprob
from ftmath.model import Decoder
from ftmath.policy_gradient import (
    centred_advantages,
    fixed_mean,
    group_advantages,
    k2,
    leave_one_out,
    reinforce_loss,
    row_mean,
)
from ftmath.rounds import PolicySettings, improve_policy, roll_out
from ftmath.skills import EOS, LETTERS, Batch
from ftmath.weights import FOLDER
from tqdm import tqdm

SEEDS = (0, 1, 2)
ROUNDS = 16
TYPOS: dict[str, Any] = {"steps": 40, "rate": 1e-3, "thanks": 0.5, "typos": 0.15}
SUMS = partial(fixed_mean, length=24)
METHODS: dict[str, dict[str, Any]] = {
    "GRPO": {"advantages": group_advantages, "average": row_mean},
    "Dr. GRPO": {"advantages": centred_advantages, "average": SUMS},
    "coin": {"advantages": centred_advantages, "average": SUMS},
    "own greedy answer": {"advantages": centred_advantages, "average": SUMS},
}
"""Each method with its settings; in the last two a coin or the policy's own greedy answer is the judge."""
TABLES = ("gradients", "gold", "skill")
Row = dict[str, Any]


@cache
def start(seed: int) -> Decoder:
    return frozen_copy(polite_policy(seed, **TYPOS))


def rounded(values: Any, digits: int = 4) -> Any:
    return np.round(np.asarray(values, dtype=float), digits).tolist()


def measured(policy: Decoder, seed: int, count: int = 256) -> Row:
    """Return what a policy says to fresh requests: right letters, thanks and tokens, also of right and wrong alone."""
    requests = polite_requests(count, 700 + seed)
    generator = torch.Generator().manual_seed(seed)
    lines, said = roll_out(policy, [prompt for prompt, _ in requests], 1, generator=generator)
    right = np.array([word_of(one) == answer for one, (_, answer) in zip(said, requests, strict=True)])
    thanks = np.array([one.endswith(THANKS) for one in said])
    tokens = lines.answer_mask.sum(1).numpy()
    found = {"right": right.mean(), "thanks": thanks.mean(), "tokens": tokens.mean()}
    for name, which in (("right", right), ("wrong", ~right)):
        found |= {f"thanks_{name}": thanks[which].mean(), f"tokens_{name}": tokens[which].mean()}
    prompts = [prompt for prompt, _ in requests]
    greedy = greedy_letters(policy, prompts)
    found["greedy"] = np.mean([greedy[prompt] == answer for prompt, answer in requests])
    found["different"] = different(policy, prompts[:64], generator)
    return {name: rounded(value) for name, value in found.items()}


def greedy_letters(policy: Decoder, prompts: Sequence[str]) -> dict[str, str]:
    """Return the letters of a policy's likeliest answer to each prompt, token by token."""
    said = roll_out(policy, list(prompts), 1, temperature=0.0)[1]
    return {prompt: word_of(one) for prompt, one in zip(prompts, said, strict=True)}


def different(policy: Decoder, prompts: Sequence[str], generator: torch.Generator, n: int = 8) -> float:
    """Return the share of different answers in a group of n to one prompt, the mean over prompts."""
    said = np.array(roll_out(policy, list(prompts), n, generator=generator)[1]).reshape(len(prompts), n)
    return float(np.mean([len(set(group)) / n for group in said]))


def skill_row(method: str, rate: float, seed: int, rounds: int = ROUNDS) -> Row:
    reference = start(seed)
    policy, questions = frozen_copy(reference).requires_grad_(True), dict(polite_requests(48, 300 + seed))
    coin, given = np.random.default_rng(seed), METHODS[method]
    own = greedy_letters(reference, list(questions))

    def verifier(prompt: str, answer: str) -> float:
        if method == "coin":
            return float(coin.random() < 0.4)
        if method == "own greedy answer":
            return float(word_of(answer) == own[prompt])
        return float(word_of(answer) == questions[prompt])

    settings = PolicySettings(
        steps=rounds * given.get("updates_per_round", 1), rate=rate, beta=0.0, seed=seed, **given
    )  # fmt: skip
    seen = [asdict(step) for step in improve_policy(policy, reference, list(questions), verifier, settings)]
    curves = {name: rounded([step[name] for step in seen]) for name in seen[0]}
    return {
        "table": "skill", "method": method, "rate": rate, "seed": seed, "rounds": rounds,
        "before": measured(reference, seed), "after": measured(policy, seed), **curves,
    }  # fmt: skip


def gradient_row(method: str, rate: float, seed: int, rounds: int = 16, groups: int = 8, n: int = 8) -> Row:
    """Return how a round's gradient varies, by baseline and by the rewards' shift; the mean is the same."""
    policy = frozen_copy(start(seed)).requires_grad_(True)
    texts, generator = polite_requests(rounds * groups, 900 + seed), torch.Generator().manual_seed(seed)
    totals: dict[str, list[Any]] = {name: [torch.zeros(825_728), 0.0] for name in ("leave one out", "-1", "0", "1")}
    answers: dict[str, list[float]] = {"right": [], "goes_on": [], "chance": [], "tokens": [], "score": []}
    for at in range(0, len(texts), groups):
        asked = [one for one in texts[at : at + groups] for _ in range(n)]
        lines, said = roll_out(policy, [prompt for prompt, _ in texts[at : at + groups]], n, generator=generator)
        rewards = torch.tensor([float(word_of(one) == answer) for one, (_, answer) in zip(said, asked, strict=True)])
        logprob = model_logprob(policy, lines.ids, lines.answer_mask)
        ones, others = torch.ones_like(rewards), leave_one_out(rewards.view(groups, n)).flatten()
        raw, score, left = (gradient(policy, reinforce_loss(logprob, weights)) for weights in (rewards, ones, others))
        for total, found in zip(totals.values(), (left, raw - score, raw, raw + score), strict=True):
            total[0] += found
            total[1] += float(found.square().sum())
        answers["score"] += [float(gradient(policy, logprob[row]).square().sum()) for row in range(0, len(said), 16)]
        note(answers, policy, lines, said, rewards)
    variances = {
        name: float(f"{float(squares - total.square().sum() / rounds) / (rounds - 1):.4g}")
        for name, (total, squares) in totals.items()
    }
    return {
        "table": "gradients", "method": method, "rate": rate, "seed": seed, "rounds": rounds, "variance": variances,
        **{name: rounded(values, 3) for name, values in answers.items()},
    }  # fmt: skip


def gradient(policy: Decoder, value: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a value with respect to all parameters, as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()), retain_graph=True)])


@torch.no_grad()
def note(
    answers: dict[str, list[float]], policy: Decoder, lines: Batch, said: list[str], rewards: torch.Tensor
) -> None:  # fmt: skip
    """Add each answer's reward and length, and the place where its letters end: whether it went on, and that chance.

    That the letters end there is known, so the chance is that of going on where no letter follows.
    """
    chances = policy(lines.ids, lines.attention_mask).softmax(-1)
    letters = [ord(letter) for letter in LETTERS + LETTERS.upper()]
    for row, one in enumerate(said):
        there = chances[row, int(lines.answer_mask[row].argmax()) - 1 + len(word_of(one))]
        answers["right"].append(float(rewards[row]))
        answers["goes_on"].append(float(len(one) > len(word_of(one))))
        answers["chance"].append(float(1 - there[EOS] / (1 - there[letters].sum())))
        answers["tokens"].append(float(lines.answer_mask[row].sum()))


def gold_row(method: str, rate: float, seed: int, rounds: int = 32) -> Row:
    reference = frozen_copy(polite_policy(seed))
    policy, questions = frozen_copy(reference).requires_grad_(True), dict(polite_requests(48, 300 + seed))

    def judge(prompt: str, answer: str) -> float:
        return float(answer == questions[prompt] + THANKS)

    settings = PolicySettings(steps=rounds, rate=rate, beta=0.0, estimator=k2, seed=seed)
    seen = [asdict(step) for step in improve_policy(policy, reference, list(questions), judge, settings)]
    curves = {name: rounded([step[name] for step in seen]) for name in seen[0]}
    return {"table": "gold", "method": method, "rate": rate, "seed": seed, "rounds": rounds, **curves}


def jobs(tables: Sequence[str]) -> list[tuple[tuple[Any, ...], Callable[[], Row]]]:
    """Return the runs of some tables, each with what names it."""
    found = [("skill", name, rate, seed) for name in METHODS for rate in (1e-4,) for seed in SEEDS]
    found += [("gold", "gold judge", 5e-5, seed) for seed in SEEDS]
    found += [("gradients", "many typos", 0.0, seed) for seed in SEEDS]
    found.sort(key=lambda key: (TABLES.index(key[0]), key[3]))
    make = {"skill": skill_row, "gold": gold_row, "gradients": gradient_row}
    return [(key, partial(make[key[0]], *key[1:])) for key in found if key[0] in tables]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--write", action="store_true", help="keep the rows for the course")
    parser.add_argument("--anew", action="store_true", help="run what is recorded again")
    arguments = parser.parse_args()
    path = Path(FOLDER) / "policy_runs.json"
    known: Row = json.loads(path.read_text("utf-8")) if path.exists() else {"rows": []}
    rows = {tuple(row[name] for name in ("table", "method", "rate", "seed")): row for row in known["rows"]}
    for key, job in tqdm(jobs(arguments.only)):
        if key in rows and not arguments.anew:
            continue
        rows[key] = job()
        print(json.dumps({name: value for name, value in rows[key].items() if not isinstance(value, list)}))
        if arguments.write:
            kept = {"torch": torch.__version__, "rows": list(rows.values())}
            path.write_text(json.dumps(kept, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
