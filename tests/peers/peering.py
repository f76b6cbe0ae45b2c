"""transformers' Llama with our decoder's weights: what every comparison starts from."""

import torch
import transformers
from ftmath.model import Config, Decoder
from hub_names import hub_name

GROUPED = Config(
    vocab=50, d_model=24, layers=2, heads=6, kv_heads=2, head_dim=8, d_hidden=40, biases=False, tied=False
)  # fmt: skip


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
    state = {hub_name(name): value for name, value in model.state_dict().items()}
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
