"""Chats and packed rows: a chat is a line, roles decide the targets, packing changes no loss. And their pictures."""

import numpy as np
import pytest
import torch
from ftmath.chats import answer_turns, assistant_mask, chat, completion_mask, packed_logits
from ftmath.datasets import chat_probes, own_lines
from ftmath.diagrams import decoder, token_grid
from ftmath.masks import block_causal
from ftmath.model import Config, Decoder
from ftmath.plots import contours
from ftmath.skills import EOS, SKILLS, TASKS, encode
from ftmath.weights import base_model, recorded
from ftmath.world import ANSWERS, world

TALK = [("system", "be kind"), ("user", "hi"), ("assistant", "ho"), ("user", "so"), ("assistant", "no")]


def test_a_chat_of_one_question_and_one_answer_is_a_line_of_the_world():
    ids, roles = chat([("user", "flip abc"), ("assistant", "cba")])
    assert (ids, assistant_mask(roles)) == encode("flip abc", "cba")
    assert completion_mask(roles) == assistant_mask(roles)


def test_every_answer_is_taught_to_end_and_the_last_one_alone_is_the_completion():
    ids, roles = chat(TALK)
    every, last = assistant_mask(roles), completion_mask(roles)
    assert sum(every) == 2 * sum(last) == 6
    assert [ids[place] for place in range(len(ids)) if every[place]].count(EOS) == 2
    assert answer_turns(every)[-1] == 2
    assert [turn for turn in answer_turns(every) if turn] == [1, 1, 1, 2, 2, 2]


def test_a_chat_that_ends_with_a_question_has_no_completion():
    _, roles = chat(TALK[:-1])
    assert sum(completion_mask(roles)) == 0
    assert sum(assistant_mask(roles)) == 3


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="role"):
        chat([("tool", "x")])


def test_packed_lines_score_as_they_do_alone_and_a_plain_mask_leaks():
    model = Decoder(Config(layers=2), torch.Generator().manual_seed(0)).double().requires_grad_(False)
    lines = [torch.tensor(encode(*pair)[0]) for pair in (("up a", "A"), ("copy sun", "sun"))]
    lengths, row = [len(line) for line in lines], torch.cat(lines)
    positions, allowed = torch.cat([torch.arange(n) for n in lengths]), block_causal(lengths)
    alone = torch.cat([model(line[None])[0] for line in lines])
    assert torch.allclose(packed_logits(model, row, positions, allowed), alone, atol=1e-9)
    leaky = packed_logits(model, row, positions, torch.ones_like(allowed).tril())
    assert torch.allclose(leaky[: lengths[0]], alone[: lengths[0]], atol=1e-9)
    assert not torch.allclose(leaky[lengths[0] :], alone[lengths[0] :], atol=1e-6)


def test_the_model_writes_lines_of_its_own_skills():
    pairs = own_lines(base_model(), 32, seed=1)
    assert len(pairs) >= 28
    assert len({prompt.split()[0] for prompt, _ in pairs} & SKILLS.keys()) >= 5


def test_probes_of_a_turn_mark_that_turn_alone():
    first, second = (chat_probes(2, turn, count=4) for turn in (1, 2))
    assert torch.equal(first.ids, second.ids)
    assert not (first.answer_mask * second.answer_mask).any()


def test_the_record_holds_three_seeds_of_rehearsals_and_six_of_the_rest():
    runs = recorded("data_runs")
    assert set(runs) >= {"chats", "rehearsal", "quality"}
    assert {len(seeds) for name in ("chats", "quality") for seeds in runs[name].values()} == {6}
    assert {len(seeds) for seeds in runs["rehearsal"].values()} == {3}


def test_the_world_says_what_each_skill_and_task_answers():
    assert set(ANSWERS) == {*SKILLS, *TASKS}
    shown = world(["mood", "flip"])._repr_mimebundle_()["text/html"]  # pyright: ignore[reportPrivateUsage]
    assert shown.count("<details>") == 2
    assert "flip (new)" in shown


def test_the_decoders_diagram_counts_its_matrices():
    config = Config(layers=3, biases=False)
    model = Decoder(config)
    matrices = sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
    assert sum(int(row[2].replace(",", "")) for row in decoder(config).rows) == matrices


def test_a_grid_shows_every_cell_and_contours_demand_words():
    shown = token_grid(["a", "b"], [("a", [1, 0]), ("b", [1, 1])], title="Causal", alt="A triangle.", borders=[1])
    assert shown.rows == (("a", "1", "0"), ("b", "1", "1"))
    with pytest.raises(ValueError, match="alt text"):
        contours(np.add, [0, 1], [0, 1], paths={}, title="t", x_label="x", y_label="y", alt="")
