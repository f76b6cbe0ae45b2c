"""The library behind the notebooks of Fine-Tuning Math.

Names stand here that a notebook may import; each has a docstring with its source and an example that runs.
"""

import os

# Before torch loads its threads. By default they spin for milliseconds while they wait: where other programs share the
# cores, a step of the small model then takes 1,200 ms in place of 40; threads that never spin cost 80 ms instead of 28
# on an idle machine. A short spin is good at both.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from ftmath.adapters import Bottleneck, add_houlsby, add_pfeiffer
from ftmath.align import (
    asked,
    fit_preferences,
    fit_reward_model,
    frozen_copy,
    improve_policy,
    judged,
    manners,
    pair_logprobs,
    polite_pairs,
    polite_policy,
    roll_out,
    sorting_rankings,
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
from ftmath.check import check
from ftmath.choose import Advice, Needs, Option, choosing_table, measured_options, recommend
from ftmath.context import Notes, better_prompt, few_shot, retrieved
from ftmath.device import best_device, describe, fastest_dtype, relative_times
from ftmath.evaluate import (
    accuracy_change,
    effective_sample_size,
    expected_best,
    kappa,
    mcnemar,
    paired_error,
    paired_interval,
    pareto_set,
    pass_at_k,
    scorecard,
    verdict,
)  # fmt: skip
from ftmath.groups import bitfit, layer_groups, layer_rates, rate_groups, slanted_triangle, thaw, train_only
from ftmath.lora import LoRALinear, add_lora, disabled, load_lora, lora_layers, lora_state, merge, unmerge
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
    best_segments,
    block_activation_bytes,
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
from ftmath.model import Config, Decoder, generate, rotated, turn
from ftmath.preference import (
    anchored_dpo_loss,
    dpo_loss,
    dpo_slope,
    hinge_loss,
    implicit_reward,
    ipo_loss,
    margin,
    robust_dpo_loss,
)  # fmt: skip
from ftmath.probe import add_head, features, ridge_probe
from ftmath.prompts import SoftPrompt, add_prefix
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
    clipped_loss,
    gold_reward,
    group_advantages,
    k1,
    k2,
    k3,
    last_token,
    optimal_policy,
    policy_loss,
    preference_probability,
    ranking_loss,
)  # fmt: skip
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
    outcomes,
    probes,
    prompts,
    retention,
    spoilt,
)  # fmt: skip
from ftmath.smollm import smollm2
from ftmath.train import Run, constant, cosine, train
from ftmath.weights import base_model, load_weights, recorded, save_weights

__all__ = [
    "METHODS", "SKILLS", "TASKS", "Advice", "Bottleneck", "Budget", "Config", "Decoder", "LoRALinear", "Needs",
    "Notes", "Option", "QuantLinear", "RewardModel", "Run", "SoftPrompt", "accuracy", "accuracy_change",
    "adapter_effect", "add_head", "add_houlsby", "add_lora", "add_pfeiffer", "add_prefix", "anchored_dpo_loss",
    "anchored_minimum", "answer_only_loss", "ask", "asked", "audit_freeze", "audit_groups", "audit_masks",
    "audit_reference", "audit_step", "base_model", "batch", "best_device", "best_of_n", "best_of_n_kl",
    "best_segments", "better_prompt", "bitfit", "bits_per_weight", "block_activation_bytes", "block_causal",
    "bradley_terry", "check", "choosing_table", "clipped_loss", "constant", "cosine", "count_parameters",
    "decode", "decoder_parameters", "dequantise", "describe", "disabled", "distinct", "dpo_loss", "dpo_slope",
    "effective_sample_size", "encode", "ewc", "ewc_anchor", "example", "expected_best", "fastest_dtype",
    "features", "few_shot", "fine_tune", "fisher_diagonal", "fit_epochs", "fit_preferences", "fit_reward_model",
    "forgetting_bound", "frozen_copy", "generate", "gold_reward", "group_advantages", "hinge_loss", "imagined",
    "implicit_reward", "improve_policy", "ipo_loss", "judged", "k1", "k2", "k3", "kappa",
    "kept_bytes_per_token", "kl_anchor", "kl_shift", "kl_to_base", "l2_anchor", "l2_sp", "labels_of",
    "last_token", "layer_groups", "layer_rates", "load_lora", "load_weights", "lora_layers", "lora_state",
    "manners", "margin", "mcnemar", "measured", "measured_options", "merge", "merge_difference", "mixture",
    "mixture_weights", "model_logprob", "model_loss", "nf4_levels", "normal_levels", "optimal_policy",
    "outcomes", "pack", "pair_logprobs", "paired_error", "paired_interval", "pareto_set", "pass_at_k",
    "planned", "policy_loss", "polite_pairs", "polite_policy", "preference_probability", "probes", "prompts",
    "quality", "quantise", "quantise_linears", "ranking_loss", "rate_groups", "recommend", "recorded",
    "relative_times", "retention", "retrieved", "ridge_probe", "robust_dpo_loss", "roll_out", "rotated",
    "save_weights", "scorecard", "sequence_logprob", "slanted_triangle", "smollm2", "sorting_rankings",
    "spoilt", "storage_bytes", "thaw", "token_kl", "token_logprobs", "total_variation", "train", "train_only",
    "training_bytes", "turn", "uniform_levels", "unmerge", "unpack", "verdict", "zero_bytes",
]  # fmt: skip
