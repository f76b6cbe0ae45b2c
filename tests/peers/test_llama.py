"""The decoder against transformers' Llama, and LoRA against peft, on the same weights (python3 start.py test peers)."""

import pytest
import torch
from ftmath.lora import LoRALinear, add_lora, lora_layers
from ftmath.model import Config

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from peering import GROUPED, hub_name, made, peer_of  # noqa: E402  (only where the peers are)

pytestmark = pytest.mark.peers

CONFIGS = {
    "the base model's shape": Config(),
    "grouped heads, untied, no biases": GROUPED,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_are_transformers_llamas(config: Config):
    model = made(config)
    ids = torch.randint(0, config.vocab, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[1, :4] = 0
    with torch.no_grad():
        ours, theirs = model(ids, mask), peer_of(model)(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks it by the old name
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_an_adapted_model_is_pefts(rank_stabilised: bool):
    model = made(Config())
    wanted = peft.get_peft_model(
        peer_of(model),
        peft.LoraConfig(r=4, lora_alpha=10, target_modules=["q_proj", "v_proj"], use_rslora=rank_stabilised),
    )
    add_lora(model, ["q", "v"], 4, 10.0, rank_stabilised=rank_stabilised)
    layers = {name: module for name, module in wanted.named_modules() if hasattr(module, "lora_A")}
    for name, adapter in lora_layers(model).items():
        (theirs,) = [
            module
            for other, module in layers.items()
            if other.endswith(hub_name(f"{name}.").rstrip(".").removeprefix("model."))
        ]
        with torch.no_grad():
            adapter.B.normal_(generator=torch.Generator().manual_seed(len(name)))
            theirs.lora_A["default"].weight.copy_(adapter.A)
            theirs.lora_B["default"].weight.copy_(adapter.B)
        torch.testing.assert_close(adapter.delta(), theirs.get_delta_weight("default"), rtol=0, atol=1e-6)
    trainable, _ = wanted.get_nb_trainable_parameters()
    assert trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), wanted(input_ids=ids).logits, rtol=0, atol=1e-4)


def test_initial_factors_are_drawn_as_pefts_are():
    """Uniform within 1/sqrt(d_in): kaiming_uniform with a = sqrt(5), as torch draws a linear layer."""
    adapter = LoRALinear(torch.nn.Linear(400, 300), 100, 1.0, generator=torch.Generator().manual_seed(0))
    bound = 1 / 400**0.5
    assert float(adapter.A.detach().abs().max()) <= bound
    assert abs(float(adapter.A.detach().std()) - bound / 3**0.5) < 0.01 * bound
    assert not bool(adapter.B.any())
