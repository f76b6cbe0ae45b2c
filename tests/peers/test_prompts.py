"""Prefixes and soft prompts against peft, on the same weights."""

import pytest
import torch
from ftmath.model import Config
from ftmath.prefixes import SoftPrompt, add_prefix

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from peering import GROUPED, made, peer_of  # noqa: E402  (only where the peers are)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
M = 5


def trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("config", [Config(), GROUPED], ids=["one kv head a query head", "grouped"])
def test_a_prefix_is_pefts_where_positions_begin_after_it(config: Config):
    """Theirs is stored as (m, layers * 2 * kv_heads * head_dim), key then value of each layer, and counts so too."""
    model = made(config)
    wanted = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=M, prefix_projection=False)
    theirs = peft.get_peft_model(peer_of(model), wanted)
    add_prefix(model, M, torch.Generator().manual_seed(0), scale=1.0)
    prefixes = [block.attn.prefix for block in model.blocks]
    table = torch.stack([part for prefix in prefixes for part in (prefix.keys, prefix.values)])
    flat = table.permute(2, 0, 1, 3).reshape(M, -1).detach()
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(flat)
    assert theirs.get_nb_trainable_parameters()[0] == trainable(model) == flat.numel()
    assert flat.numel() == 2 * config.layers * M * config.kv_heads * config.head_dim
    ids = torch.randint(0, config.vocab, (2, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = model(ids), theirs(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_a_soft_prompt_is_pefts():
    model = made(GROUPED)
    theirs = peft.get_peft_model(
        peer_of(model), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=M)
    )  # fmt: skip
    soft = SoftPrompt(model, torch.arange(M))
    with torch.no_grad():
        soft.vectors.normal_(generator=torch.Generator().manual_seed(0))
        theirs.prompt_encoder["default"].embedding.weight.copy_(soft.vectors)
    assert theirs.get_nb_trainable_parameters()[0] == trainable(soft) == M * GROUPED.d_model
    ids = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = soft(ids), theirs(input_ids=ids).logits[:, M:]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
