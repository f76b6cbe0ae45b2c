"""The decoder against transformers' Llama, and LoRA against peft, on the same weights (python3 start.py test peers)."""

import pytest
import torch
from ftmath.lora import LoRALinear, adapters, add_lora
from ftmath.model import Config, Decoder

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.peers

NAMES = {
    "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm",
}  # fmt: skip
CONFIGS = {
    "the base model's shape": Config(),
    "grouped heads, untied, no biases": Config(
        vocab=50, d_model=24, layers=2, heads=6, kv_heads=2, head_dim=8, d_hidden=40, biases=False, tied=False
    ),
}


def peer_name(name: str) -> str:
    """Return what transformers calls a parameter of ours."""
    for ours, theirs in NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    if name == "head.weight":
        return "lm_head.weight"
    return "model." + name.replace("embed.", "embed_tokens.").replace("blocks.", "layers.")


def peer_of(model: Decoder):
    """Return transformers' Llama with our weights."""
    config = model.config
    peer = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab, hidden_size=config.d_model, intermediate_size=config.d_hidden,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim, rms_norm_eps=config.norm_eps, attention_bias=config.biases,
            mlp_bias=config.biases, tie_word_embeddings=config.tied, rope_theta=config.rope_base,
            max_position_embeddings=256, pad_token_id=None, bos_token_id=1, eos_token_id=3,
        )
    )  # fmt: skip
    state = {peer_name(name): value for name, value in model.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert [name for name in missing if "lm_head" not in name] == []
    assert unexpected == []
    return peer.eval()


def made(config: Config) -> Decoder:
    model = Decoder(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return model.eval()


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
    for name, adapter in adapters(model).items():
        (theirs,) = [
            module
            for other, module in layers.items()
            if other.endswith(peer_name(f"{name}.").rstrip(".").removeprefix("model."))
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
