"""Bottleneck adapters against the adapters library, which needs an older transformers (start.py test adapters)."""

import pytest
import torch
import torch.nn.functional as F
from ftmath.adapters import Adapted, Bottleneck, add_houlsby, add_pfeiffer
from ftmath.model import Config

pytest.importorskip("transformers")
adapters = pytest.importorskip("adapters", reason="compared in its own environment: start.py test adapters")
from peering import made, peer_of  # noqa: E402  (only where the peers are)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
CONFIG, M = Config(vocab=50, d_model=32, layers=2, heads=4, kv_heads=2, head_dim=8, d_hidden=40, biases=False), 4
WAYS = {
    "Houlsby": (add_houlsby, adapters.DoubleSeqBnConfig, 2 * 2 * (2 * 32 * M + M + 32)),
    "Pfeiffer": (add_pfeiffer, adapters.SeqBnConfig, 2 * (2 * 32 * M + M + 32)),
}


@pytest.mark.parametrize("way", WAYS)
def test_counts_are_the_librarys(way: str):
    add, config, count = WAYS[way]
    model = made(CONFIG)
    theirs = peer_of(model)
    adapters.init(theirs)
    theirs.add_adapter("a", config=config(reduction_factor=32 // M, non_linearity="gelu"))
    theirs.train_adapter("a")
    add(model, M)
    own = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert own == sum(p.numel() for p in theirs.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("activation", ["gelu", "swish", "relu"])
def test_a_bottlenecks_output_is_the_librarys(activation: str):
    """Theirs adds the residual that it's given; given its own input, it is ours."""
    from adapters.methods.modeling import Adapter

    generator = torch.Generator().manual_seed(0)
    config = adapters.SeqBnConfig(reduction_factor=32 // M, non_linearity=activation)
    theirs = Adapter("a", 32, M, config)
    ours = Bottleneck(32, M, {"gelu": F.gelu, "swish": F.silu, "relu": F.relu}[activation])
    with torch.no_grad():
        for mine, other in zip(
            (ours.down, ours.up), (theirs.adapter_down[0], theirs.adapter_up), strict=True
        ):  # fmt: skip
            for parameter in (mine.weight, mine.bias):
                parameter.normal_(generator=generator)
            other.weight.copy_(mine.weight)
            other.bias.copy_(mine.bias)
        h = torch.randn(2, 3, 32, generator=generator)
        torch.testing.assert_close(ours(h), theirs(h, h)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_an_adapted_models_logits_are_the_librarys(way: str):
    """Theirs adds the adapter's residual to the block's own; ours stands behind the sublayer. Both are one sum."""
    add, config, _ = WAYS[way]
    model = made(CONFIG)
    theirs = peer_of(model)
    adapters.init(theirs)
    theirs.add_adapter(
        "a", config=config(reduction_factor=32 // M, non_linearity="gelu", original_ln_before=False,
                           residual_before_ln=True, adapter_residual_before_ln=False)
    )  # fmt: skip
    theirs.set_active_adapters("a")
    add(model, M)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for number, block in enumerate(model.blocks):
            for place, layer in (("attention_adapters", block.attn.o), ("output_adapters", block.mlp.down)):
                if not isinstance(layer, Adapted):
                    continue
                for parameter in layer.adapter.parameters():
                    parameter.normal_(generator=generator).mul_(0.3)
                other = getattr(theirs.model.layers[number], place).adapters["a"]
                other.adapter_down[0].weight.copy_(layer.adapter.down.weight)
                other.adapter_down[0].bias.copy_(layer.adapter.down.bias)
                other.adapter_up.weight.copy_(layer.adapter.up.weight)
                other.adapter_up.bias.copy_(layer.adapter.up.bias)
        ids = torch.randint(0, 50, (2, 6), generator=generator)
        torch.testing.assert_close(model(ids), theirs(input_ids=ids).logits, rtol=0, atol=1e-4)
