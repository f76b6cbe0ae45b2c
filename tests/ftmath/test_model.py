"""The decoder's laws: causality, padding, positions, cache, prefixes, grouped heads."""

import pytest
import torch
from ftmath.model import Cache, Config, Decoder, KVPrefix, generate
from ftmath.rotary import rotated, turn
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = Config(vocab=17, d_model=12, layers=2, heads=4, kv_heads=2, head_dim=6, d_hidden=20)
seeds = st.integers(0, 2**31)


def made(config: Config = SMALL, seed: int = 0) -> Decoder:
    """Return a model in float64 whose weights are large enough to matter, biases too."""
    generator = torch.Generator().manual_seed(seed)
    model = Decoder(config, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def some_ids(seed: int, batch: int = 2, time: int = 7) -> torch.Tensor:
    return torch.randint(0, SMALL.vocab, (batch, time), generator=torch.Generator().manual_seed(seed))


@given(seeds, st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_a_token_changes_no_logits_before_it(seed: int, place: int):
    model, ids = made(), some_ids(seed)
    changed = ids.clone()
    changed[:, place] = (changed[:, place] + 1) % SMALL.vocab
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :place], after[:, :place], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, place:], after[:, place:])


@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=4), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_padded_batch_scores_like_its_rows_alone(seed: int, lengths: list[int], left: bool):
    model, time = made(), max(lengths) + 2
    ids, mask = torch.zeros(len(lengths), time, dtype=torch.long), torch.zeros(len(lengths), time)
    rows = [some_ids(seed + number, 1, length) for number, length in enumerate(lengths)]
    for number, row in enumerate(rows):
        start = time - row.shape[1] if left else 0
        ids[number, start : start + row.shape[1]], mask[number, start : start + row.shape[1]] = row[0], 1
    together = model(ids, mask)
    assert bool(torch.isfinite(together).all())
    for number, row in enumerate(rows):
        torch.testing.assert_close(together[number][mask[number] == 1], model(row)[0], rtol=0, atol=1e-10)


@given(seeds, st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_rotated_queries_and_keys_see_only_their_distance(seed: int, shift: int):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(1, 1, 5, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    here, there = torch.arange(5)[None], torch.arange(5)[None] + shift
    angles = [turn(at, 8, 100.0) for at in (here, there)]
    scores = [rotated(q, at) @ rotated(k, at).mT for at in angles]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-4)  # angles are computed in float32
    torch.testing.assert_close(rotated(q, angles[0]).norm(dim=-1), q.norm(dim=-1), rtol=0, atol=1e-6)


def test_grouped_heads_are_full_heads_with_repeated_keys_and_values():
    grouped = made()
    full = made(Config(vocab=17, d_model=12, layers=2, heads=4, kv_heads=4, head_dim=6, d_hidden=20))
    state = grouped.state_dict()
    for name in [name for name in state if ".k." in name or ".v." in name]:
        parts = state[name].view(2, 6, *state[name].shape[1:])
        state[name] = parts.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(full(some_ids(1)), grouped(some_ids(1)), rtol=0, atol=1e-10)


def test_a_cache_changes_nothing():
    model, ids = made(), some_ids(3)
    cache: Cache = [None] * SMALL.layers
    parts = [model(ids[:, :4], cache=cache), model(ids[:, 4:5], torch.ones(2, 5), cache=cache)]
    parts.append(model(ids[:, 5:], torch.ones(2, 7), cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=0, atol=1e-10)


def test_greedy_generation_is_the_argmax_of_everything_recomputed():
    model, ids = made(), some_ids(4, 3, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    new = generate(model, ids, mask, max_new=6)
    for row in range(3):
        grown = ids[row][mask[row] == 1]
        for token in new[row]:
            assert int(model(grown[None])[0, -1].argmax()) == int(token)
            grown = torch.cat([grown, token[None]])


def test_generation_stops_and_draws_by_its_generator():
    model, ids = made(), some_ids(5)
    first = generate(model, ids, max_new=1)
    stopped = generate(model, ids[:1], max_new=9, stop=int(first[0, 0]))
    assert stopped.shape == (1, 1)
    drawn = [
        generate(model, ids, max_new=8, temperature=2.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match="temperature"):
        generate(model, ids, max_new=1, temperature=-1.0)


def test_a_prefix_of_a_models_own_first_tokens_stands_for_them():
    """The cached keys and values of four tokens, as a prefix, leave the logits of the others as they were."""
    model, ids = made(), some_ids(6, 1, 9)
    wanted = model(ids)[:, 4:]
    cache: Cache = [None] * SMALL.layers
    model(ids[:, :4], cache=cache)
    for block, kept in zip(model.blocks, cache, strict=True):
        assert kept is not None
        block.attn.prefix = KVPrefix(kept[0][0], kept[1][0])
    torch.testing.assert_close(model(ids[:, 4:]), wanted, rtol=0, atol=1e-10)


def test_the_base_models_size():
    assert sum(parameter.numel() for parameter in Decoder(Config()).parameters()) == 825_728


def test_bad_input_is_refused_by_name():
    model, ids = made(), some_ids(1)
    with pytest.raises(ValueError, match="attention_mask"):
        model(ids, torch.ones(2, 3))
    with pytest.raises(ValueError, match="ids"):
        model()
    with pytest.raises(ValueError, match="kv_heads"):
        Config(heads=4, kv_heads=3)
