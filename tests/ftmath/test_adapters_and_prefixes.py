"""Fresh adapters change nothing, counts are the formulas', and prompts and prefixes are what they stand for."""

import pytest
import torch
from ftgrade.catalog import home
from ftmath.adapters import Bottleneck, add_houlsby, add_pfeiffer
from ftmath.model import Config, Decoder
from ftmath.prefixes import SoftPrompt, add_prefix

P06, P07 = (home().solution(stem) for stem in ("p06_adapter_parameters", "p07_prefix_parameters"))
SMALL = Config(vocab=17, d_model=12, layers=2, heads=4, kv_heads=2, head_dim=6, d_hidden=20)
IDS = torch.tensor([[1, 5, 3, 9], [2, 2, 7, 16]])


def made() -> Decoder:
    return Decoder(SMALL, torch.Generator().manual_seed(0)).double()


def trained(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("add", "per_layer"), [(add_houlsby, 2), (add_pfeiffer, 1)])
def test_fresh_adapters_change_nothing_and_are_as_many_as_the_formula_says(add, per_layer: int):
    model = made()
    add(model, 5)
    assert torch.equal(model(IDS), made()(IDS))
    assert trained(model) == P06.adapter_model_params(12, 5, 2, per_layer)


def test_an_adapter_is_the_problems_forward():
    adapter = Bottleneck(6, 3).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    h = torch.randn(2, 4, 6, dtype=torch.float64)
    parts = (adapter.down.weight, adapter.down.bias, adapter.up.weight, adapter.up.bias)
    torch.testing.assert_close(adapter(h), P06.adapter_forward(h, *parts, activation="gelu"))


def test_a_soft_prompt_of_a_texts_own_embeddings_is_the_text():
    model = made()
    prompt = SoftPrompt(model, torch.tensor([4, 8, 15]))
    whole = torch.cat([torch.tensor([[4, 8, 15]] * 2), IDS], dim=1)
    torch.testing.assert_close(prompt(IDS), model(whole)[:, 3:], rtol=0, atol=1e-12)
    assert trained(prompt) == 3 * 12


def test_a_soft_prompt_stands_before_padding_too():
    prompt, mask = SoftPrompt(made(), torch.tensor([4, 8])), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(prompt(IDS, mask)[0, 2:], prompt(IDS[:1, 2:])[0], rtol=0, atol=1e-12)


def test_a_prefix_is_counted_by_key_value_heads_and_an_empty_one_changes_nothing():
    model = made()
    add_prefix(model, 7, torch.Generator().manual_seed(1))
    assert trained(model) == P07.prefix_params(2, 7, 2, 6)
    assert not torch.allclose(model(IDS), made()(IDS))
    empty = made()
    add_prefix(empty, 0)
    torch.testing.assert_close(empty(IDS), made()(IDS), rtol=0, atol=1e-12)


def test_only_the_prefix_gets_gradients():
    model = made()
    add_prefix(model, 3)
    model(IDS).sum().backward()
    named = {name for name, p in model.named_parameters() if p.grad is not None}
    assert named == {f"blocks.{block}.attn.prefix.{part}" for block in range(2) for part in ("keys", "values")}


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="bottleneck"):
        Bottleneck(4, 0)
    with pytest.raises(ValueError, match="m must"):
        add_prefix(made(), -1)
