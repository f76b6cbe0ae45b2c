"""Pictures and explorers: numbers are ftmath's own, every picture is described, and a twin stands without a kernel."""

import html
import json
import math
import re

import pytest
import torch
from ftmath.memory import GIB, LOGIT_BYTES, kept_bytes_per_token, training_bytes
from ftmath.model import Config
from ftmath.plots import Picture, bars, grid, lines, points
from ftmath.predict import predicted
from ftmath.widgets import (
    Explorer,
    MaskPainter,
    lora_explorer,
    memory_explorer,
    path_explorer,
    prefix_gate_explorer,
)  # fmt: skip
from matplotlib import rc_context

DELTA = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))


def explorers() -> dict[str, Explorer]:
    return {
        "path": path_explorer([0.0, 0.5, 1.0], {"task": [2.0, 1.0, 0.1], "base": [0.1, 0.5, 1.5]}, ["a", "b", "c"]),
        "lora": lora_explorer(DELTA),
        "memory": memory_explorer(),
        "prefix gate": prefix_gate_explorer(torch.eye(2), torch.tensor([-1.0, 3.0]), torch.tensor([1.0, 0.0])),
    }


@pytest.mark.parametrize("name", explorers())
def test_an_explorer_has_a_frame_for_every_state_and_a_twin(name: str):
    explorer = explorers()[name]
    count = math.prod(len(slider["values"]) for slider in explorer.table["sliders"])
    assert len(explorer.table["frames"]) == count
    json.dumps(explorer.table, allow_nan=False)  # what the browser reads
    data, _ = explorer._repr_mimebundle_()
    assert data["text/html"].count("<tr>") >= 3
    for panel in explorer.frame(*explorer.state)["panels"]:
        assert html.escape(panel["alt"]) in data["text/html"]
        assert all(len(series["y"]) == len(panel["x"]) for series in panel["series"])
    explorer.close()


def test_the_lora_explorers_numbers_are_the_svds():
    explorer = lora_explorer(DELTA)
    sigma = torch.linalg.svdvals(DELTA.double())
    for at in (0, 3, 8):
        said = dict(explorer.frame(at)["readouts"])
        assert float(said["energy kept"]) == pytest.approx(
            float((sigma[: at + 1] ** 2).sum() / (sigma**2).sum()), rel=1e-3
        )
        assert said["numbers stored"] == str((at + 1) * 21)
        assert sum(explorer.frame(at)["panels"][0]["series"][0]["on"]) == at + 1


def test_the_memory_explorers_numbers_are_the_closed_forms():
    said = dict(memory_explorer().frame(0, 1)["readouts"])
    config = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
    budget = training_bytes(0, 6_738_415_616)
    kept = 32 * 512 * kept_bytes_per_token(config)
    assert said["activations"] == f"{kept / GIB:.2f} GiB"
    assert said["logits"] == f"{512 * 32_000 * LOGIT_BYTES / GIB:.2f} GiB"
    assert said["in all"] == f"{(budget.total + kept + 512 * 32_000 * LOGIT_BYTES) / GIB:.1f} GiB"


def test_the_prefix_gate_is_the_softmaxs_share():
    explorer = explorers()["prefix gate"]
    scores = torch.tensor([2.0, 1.0, 0.0])
    assert dict(explorer.frame(8)["readouts"])["gate"] == f"{scores.softmax(0)[0]:.4f}"
    mixed = scores.softmax(0) @ torch.tensor([[-1.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    assert dict(explorer.frame(8)["readouts"])["output"] == f"({mixed[0]:.4f}, {mixed[1]:.4f})"


def test_a_painted_mask_gives_the_mean_of_what_is_painted():
    painter = MaskPainter("A line", ["a", "b", "c"], [9.0, 1.0, 3.0], [1, 1, 1])
    assert painter.mask == [0, 1, 1]  # the first token is never a target
    assert painter.loss == 2.0
    painter.mask = [0, 0, 0]
    assert math.isnan(painter.loss)
    with pytest.raises(ValueError, match="equally long"):
        MaskPainter("A line", ["a"], [1.0, 2.0], [0])


PICTURES = {
    "lines": lambda: lines([1, 2], {"a": [1, 2], "b": [2, 1]}, title="T", x_label="x", y_label="y", alt="Two lines <."),
    "bars": lambda: bars(
        ["p", "q"], {"a": [1, 2]}, title="T", y_label="y", alt="Bars <.", spread={"a": ([1, 1], [2, 3])}
    ),
    "points": lambda: points({"g": [(1, 2, "z")]}, title="T", x_label="x", y_label="y", alt="A dot <.", log_x=True),
    "grid": lambda: grid(
        [[0.5, -1]], row_names=["r"], column_names=["c", "d"], title="T", alt="Shades <.", signed=True
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_carries_its_description_and_its_numbers(name: str):
    picture: Picture = PICTURES[name]()
    shown = picture._repr_mimebundle_()
    alt = re.search(r'<img alt="([^"]+)"', shown["text/html"])
    assert alt
    assert html.unescape(alt[1]) == picture.alt
    assert "<summary>The numbers</summary><table>" in shown["text/html"]
    assert shown["text/plain"] == f"{picture.title}\n{picture.alt}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_where_matplotlib_is_asked_for_drawings(name: str):
    with rc_context({"savefig.format": "svg", "svg.fonttype": "none"}):
        picture: Picture = PICTURES[name]()
        shown = picture.as_html()
    alt = re.search(r'<svg [^>]*role="img" aria-label="([^"]+)"', shown)
    assert alt
    assert html.unescape(alt[1]) == picture.alt
    assert f">{picture.title}</text>" in shown
    assert "<img" not in shown
    assert "<metadata" not in shown


def test_a_picture_without_a_description_is_refused():
    with pytest.raises(ValueError, match="alt"):
        lines([1], {"a": [1]}, title="T", x_label="x", y_label="y", alt=" ")
    with pytest.raises(ValueError, match="series"):
        lines([1, 2], {"a": [1]}, title="T", x_label="x", y_label="y", alt="One.")


def test_a_guess_is_compared_and_none_is_no_guess():
    assert "well seen" in predicted("x", 1.05, 1.0).words
    assert "4 times too much" in predicted("x", 4.0, 1.0).words
    assert "No guess" in predicted("x", None, 1.0).words
    held_back = predicted("x", None, 1.25, "since it is so")._repr_mimebundle_()["text/html"]
    assert "<details><summary>x: guess first" in held_back
    assert "1.25" not in held_back.partition("</summary>")[0]
    assert "<details>" not in predicted("x", 2.0, 1.25, "since it is so")._repr_mimebundle_()["text/html"]
    assert predicted("x", 2.0, 1.25, "since it is so").words.endswith("since it is so")
    assert "you said -1" in predicted("x", -1, 1.0).words
    with pytest.raises(ValueError, match="guess"):
        predicted("x", "2", 1.0)
