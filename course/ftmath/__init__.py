"""The library behind the notebooks of Fine-Tuning Math.

A notebook may import every name of `__all__`; each function and class has a docstring with an example that runs.
"""

import os

# Set this before torch starts its threads. By default a waiting thread spins for milliseconds: where other programs
# share the cores, a step of the small model then takes 1,200 ms instead of 40. On an idle machine, a step takes 80 ms
# instead of 28 if threads never spin. A short spin is fast in both cases.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from ftmath.adapters import Bottleneck, add_houlsby, add_pfeiffer
from ftmath.align import (
    PairLogprobs,
    fit_on_pairs,
    fit_preferences,
    fit_reward_model,
    frozen_copy,
    judged,
    pair_logprobs,
)  # fmt: skip
from ftmath.audit import (
    adapter_effect,
    audit_freeze,
    audit_groups,
    audit_masks,
    audit_reference,
    audit_step,
    count_parameters,
    merge_difference,
)  # fmt: skip
from ftmath.checks import check
from ftmath.choose import Advice, Needs, Option, choosing_table, measured_options, recommend
from ftmath.context import Notes, better_prompt, few_shot, retrieved
from ftmath.device import best_device, describe, fastest_dtype, relative_times
from ftmath.evaluate import (
    accuracy_change,
    brier_score,
    calibration_error,
    effective_sample_size,
    expected_best,
    kappa,
    mcnemar,
    paired_error,
    paired_interval,
    pareto_set,
    pass_at_k,
    reliability,
    scorecard,
    verdict,
)  # fmt: skip
from ftmath.groups import bitfit, layer_groups, layer_rates, rate_groups, slanted_triangle, thaw, train_only
from ftmath.local_model import load_model
from ftmath.lora import LoRALinear, add_lora, disabled, load_lora, lora_layers, lora_state, merge, unmerge
from ftmath.manners import (
    measure_manners,
    polite_pairs,
    polite_policy,
    polite_requests,
    sorting_rankings,
    split_logprobs,
)
from ftmath.masks import (
    answer_only_loss,
    block_causal,
    labels_of,
    mixture_weights,
    model_logprob,
    model_loss,
    sequence_logprob,
    token_logprobs,
)  # fmt: skip
from ftmath.memory import (
    Budget,
    allocated_bytes,
    best_segments,
    block_activation_bytes,
    chunked_loss,
    decoder_parameters,
    imagined,
    kept_bytes_per_token,
    measured,
    planned,
    storage_bytes,
    training_bytes,
    zero_bytes,
)  # fmt: skip
from ftmath.methods import METHODS, ask, ewc_anchor, fine_tune, fit_epochs, kl_anchor, kl_to_base, l2_anchor, quality
from ftmath.model import Config, Decoder, generate
from ftmath.policy_gradient import (
    centred_advantages,
    clipped_loss,
    clipped_share,
    fixed_mean,
    group_advantages,
    k1,
    k2,
    k3,
    leave_one_out,
    policy_loss,
    priced_rewards,
    reinforce_loss,
    row_mean,
    token_mean,
)  # fmt: skip
from ftmath.precision import (
    clustered_error,
    clustered_interval,
    design_effect,
    equal_length_wins,
    error_of_mean,
    items_needed,
    power_of,
    variance_parts,
)  # fmt: skip
from ftmath.preference import (
    anchored_dpo_loss,
    dpo_loss,
    dpo_slope,
    hinge_loss,
    implicit_reward,
    ipo_loss,
    kto_loss,
    margin,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
)  # fmt: skip
from ftmath.prefixes import SoftPrompt, add_prefix
from ftmath.probe import add_head, features, ridge_probe
from ftmath.quant import (
    QuantLinear,
    bits_per_weight,
    dequantise,
    nf4_levels,
    normal_levels,
    pack,
    quantise,
    quantise_linears,
    uniform_levels,
    unpack,
)  # fmt: skip
from ftmath.reward import (
    RewardModel,
    best_of_n,
    best_of_n_kl,
    bradley_terry,
    gold_reward,
    last_token,
    optimal_policy,
    preference_probability,
    ranking_loss,
)  # fmt: skip
from ftmath.rotary import rotated, turn
from ftmath.rounds import PolicySettings, improve_policy, roll_out
from ftmath.shift import (
    anchored_minimum,
    ewc,
    fisher_diagonal,
    forgetting_bound,
    kl_shift,
    l2_sp,
    token_kl,
    total_variation,
)  # fmt: skip
from ftmath.skills import (
    SKILLS,
    TASKS,
    accuracy,
    batch,
    decode,
    distinct,
    encode,
    example,
    mixture,
    mood_prompts,
    outcomes,
    probes,
    prompts,
    retention,
    spoilt,
)  # fmt: skip
from ftmath.smollm import smollm2
from ftmath.training import Run, constant, cosine, train
from ftmath.weights import base_model, load_weights, recorded, save_weights

__all__ = [  # noqa: RUF022 - grouped by the part of the course that uses the name
    # Part 1, local adaptation
    "anchored_minimum", "ewc", "ewc_anchor", "fisher_diagonal", "forgetting_bound", "kl_anchor", "kl_shift",
    "l2_anchor", "l2_sp", "token_kl", "total_variation",
    # Part 2, the supervised objective
    "answer_only_loss", "labels_of", "mixture_weights", "sequence_logprob", "token_logprobs",
    # Part 3, full fine-tuning
    "Budget", "bitfit", "decoder_parameters", "layer_groups", "layer_rates", "slanted_triangle", "thaw",
    "train_only", "training_bytes", "zero_bytes",
    # Part 4, parameter-efficient methods
    "Bottleneck", "SoftPrompt", "add_head", "add_houlsby", "add_pfeiffer", "add_prefix", "features", "ridge_probe",
    "rotated",
    # Part 5, the algebra of LoRA
    "LoRALinear", "adapter_effect", "add_lora", "disabled", "fastest_dtype", "lora_layers",
    "merge", "merge_difference", "unmerge",
    # Part 6, quantized memory
    "QuantLinear", "allocated_bytes", "best_segments", "bits_per_weight", "block_activation_bytes", "chunked_loss",
    "dequantise", "imagined", "kept_bytes_per_token", "measured", "nf4_levels", "normal_levels", "pack", "planned",
    "quantise", "quantise_linears", "storage_bytes", "uniform_levels", "unpack",
    # Part 7, preference
    "PairLogprobs", "PolicySettings", "RewardModel", "anchored_dpo_loss", "best_of_n", "best_of_n_kl", "bradley_terry",
    "centred_advantages", "clipped_loss", "clipped_share", "dpo_loss", "dpo_slope", "fit_on_pairs", "fit_preferences",
    "fit_reward_model", "fixed_mean", "frozen_copy", "gold_reward", "group_advantages", "hinge_loss", "implicit_reward",
    "improve_policy", "ipo_loss", "judged", "k1", "k2", "k3", "kto_loss", "last_token", "leave_one_out", "margin",
    "measure_manners", "optimal_policy", "orpo_loss", "pair_logprobs", "policy_loss", "polite_pairs", "polite_policy",
    "polite_requests", "preference_probability", "priced_rewards", "ranking_loss", "reinforce_loss", "robust_dpo_loss",
    "roll_out", "row_mean", "simpo_loss", "sorting_rankings", "split_logprobs", "token_mean",
    # Part 8, evaluation
    "accuracy_change", "brier_score", "calibration_error", "clustered_error", "clustered_interval", "design_effect",
    "distinct", "effective_sample_size", "equal_length_wins", "error_of_mean", "fit_epochs", "items_needed", "kappa",
    "mcnemar", "mood_prompts", "outcomes", "paired_error", "paired_interval", "pass_at_k", "power_of", "reliability",
    "scorecard", "spoilt", "variance_parts", "verdict",
    # Part 9, choosing a method
    "METHODS", "Advice", "Needs", "Notes", "Option", "ask", "choosing_table", "few_shot", "measured_options",
    "pareto_set", "recommend", "relative_times", "retrieved",
    # Part 10, the implementation checklist
    "audit_freeze", "audit_groups", "audit_masks", "audit_reference", "audit_step", "better_prompt", "block_causal",
    "count_parameters", "example", "expected_best", "load_lora", "load_weights",
    "lora_state", "save_weights", "turn",
    # Shared by several parts
    "SKILLS", "TASKS", "Config", "Decoder", "Run", "accuracy", "base_model", "batch", "best_device", "check",
    "constant", "cosine", "decode", "describe", "encode", "fine_tune", "generate", "kl_to_base", "load_model",
    "mixture", "model_logprob", "model_loss", "probes", "prompts", "quality", "rate_groups", "recorded",
    "retention", "smollm2", "train",
]  # fmt: skip
