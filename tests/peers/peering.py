"""transformers' Llama with our decoder's weights: what every comparison starts from."""

import torch
import transformers
from ftmath.model import Config, Decoder

NAMES = {
    "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm",
}  # fmt: skip
GROUPED = Config(
    vocab=50, d_model=24, layers=2, heads=6, kv_heads=2, head_dim=8, d_hidden=40, biases=False, tied=False
)  # fmt: skip


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
            max_position_embeddings=8192, pad_token_id=None, bos_token_id=1, eos_token_id=3,
        )
    )  # fmt: skip
    state = {peer_name(name): value for name, value in model.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert [name for name in missing if "lm_head" not in name] == []
    assert unexpected == []
    return peer.eval()


def made(config: Config) -> Decoder:
    """Return a decoder with weights that are no initialisation's: gains and biases moved too."""
    model = Decoder(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return model.eval()
