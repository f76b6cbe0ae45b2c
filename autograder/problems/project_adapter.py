"""How project_adapter is judged: a LoRA adapter for the base model, scored on prompts that are drawn for each student.

A goal counts as reached if the better end of the 95 % interval reaches it.
"""

from ftgrade.judging.project import Measure, Project

ADAPTER = "adapter.safetensors"

project = Project(
    part="09_choosing_a_method",
    minutes=60,
    program="ftmath.project",
    files={"adapter": (ADAPTER, 2_000_000), "card": ("card.json", 4_096)},
    measures=[
        Measure(
            "task", "share of right answers to new prompts of the task", ADAPTER, ((0.5, 1), (0.8, 2.5), (0.95, 4)),
            "Train longer, or at a higher rate; a loss on prompts that the training never saw tells which.",
        ),
        Measure(
            "kept", "share of right answers to prompts of the ten old skills", ADAPTER, ((0.8, 1), (0.9, 2), (0.97, 3)),
            "Mix lines of the old skills into each batch, lower the rate, or stop earlier.", after="task",
        ),
        Measure(
            "drift", "mean KL(tuned || base) on the old skills' answers", ADAPTER, ((0.3, 0.5), (0.1, 1), (0.04, 2)),
            "Mix in more lines of the old skills, or hold the model by kl_anchor.", falling=True, after="task",
            unit=" nats per token",
        ),
        Measure(
            "size", "number of trained parameters", ADAPTER, ((40_000, 0.5), (20_000, 1)),
            "Lower the rank, or adapt fewer layers.", falling=True, after="task", unit=" parameters",
        ),
    ],
)  # fmt: skip
