"""A project's reference: a recipe that reaches every goal of project_adapter within a minute or two on a CPU.

LoRA of rank 2 beside every linear layer has 19,712 parameters. Half of each batch are lines of the old skills, so that
the drift stays small (replay, arXiv:1811.11682); the rate falls as half a cosine.
"""

from ftmath.methods import LINEARS, Method, fine_tune, lora
from ftmath.project import save_adapter
from ftmath.training import Run, cosine

RECIPE = Method(lora(LINEARS, rank=2), rate=3e-3, schedule=cosine)


def hand_in(folder: str, *, who: str, steps: int = 120, replay: float = 0.5, seed: int = 0) -> Run:
    """Train an adapter on the task and write it with its card into a folder; return the run."""
    methods = {"my adapter": RECIPE}
    model, run = fine_tune("my adapter", "loud", steps=steps, replay=replay, seed=seed, methods=methods)
    save_adapter(model, folder, who=who, targets=LINEARS)
    return run
