"""The arithmetic of the page "Fine-tune in the tab" under node, held to torch and to the library's own runs."""

import doctest
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ftmath.groups import rate_groups
from ftmath.lora import add_lora, lora_layers
from ftmath.masks import model_loss
from ftmath.model import Decoder
from ftmath.skills import SKILLS, accuracy, batch, example, mixture
from ftmath.training import train
from ftmath.weights import FOLDER, base_model

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "all seven matrices": ("flip", 4, 8.0, ["q", "k", "v", "o", "gate", "up", "down"], 1e-3),
    "one side of attention": ("neb", 1, 2.0, ["q", "v"], 3e-3),
    "a rank that fills no vector": ("pig", 12, 6.0, ["gate", "down", "o"], 1e-3),
    "long answers": ("please", 16, 32.0, ["k", "up"], 1e-2),
}
Node = Callable[..., Any]


@pytest.fixture(scope="module")
def finetune() -> ModuleType:
    sys.path.insert(0, str(ROOT / "site"))
    try:
        return importlib.import_module("finetune")
    finally:
        sys.path.remove(str(ROOT / "site"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, finetune: ModuleType) -> Node:
    """Return a function that runs a body of JavaScript behind the page's code, with `trainer` and `inputs` in reach."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node isn't installed: only the browser tests hold the tab's arithmetic to torch")
    folder = tmp_path_factory.mktemp("node")
    before = "const fs = require('fs'), self = {};\n"
    after = f"""
const inputs = JSON.parse(fs.readFileSync({json.dumps(str(folder / "inputs.json"))}, "utf8"));
const weights = readWeights(new Uint8Array(fs.readFileSync({json.dumps(str(FOLDER / "base.safetensors"))})));
trainer = new Trainer(weights, inputs.simd !== false);
"""

    def run(body: str, **inputs: Any) -> Any:
        (folder / "inputs.json").write_text(json.dumps(inputs))
        text = f"{before}{finetune.code()}{after}\nprocess.stdout.write(JSON.stringify((() => {{ {body} }})()));"
        (folder / "run.js").write_text(text, "utf-8")
        found = subprocess.run([program, str(folder / "run.js")], capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    return run


def asked(rank: int, alpha: float, targets: list[str], rate: float) -> dict[str, Any]:
    return {"rank": rank, "alpha": alpha, "targets": targets, "rate": rate, "seed": 0}


def adapted(rank: int, alpha: float, targets: list[str]) -> Decoder:
    model = base_model()
    add_lora(model, targets, rank, alpha, generator=torch.Generator().manual_seed(0))
    return model


def loss_of(model: Decoder, lines: list[tuple[str, str]]) -> torch.Tensor:
    rows = batch(lines)
    return model_loss(model, rows.ids, rows.answer_mask)


def short(name: str) -> str:
    """Return a layer's name as the page writes it: `blocks.1.attn.q` is 1.q."""
    return f"{name.split('.')[1]}.{name.split('.')[3]}"


STEPS = "trainer.reset(inputs.settings); return inputs.batches.map((lines) => trainer.step(lines));"


# ------------------------------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize("name", SETTINGS)
def test_the_losses_of_ten_steps_are_torchs_within_one_percent(node: Node, finetune: ModuleType, name: str):
    task, rank, alpha, targets, rate = SETTINGS[name]
    batches = finetune.batches(task, 10)
    model = adapted(rank, alpha, targets)
    wanted = train(model, lambda step: loss_of(model, batches[step]), rate_groups(model, {}, rate), 10)
    found = node(STEPS, settings=asked(rank, alpha, targets, rate), batches=batches)
    assert found == pytest.approx(wanted, rel=0.01)
    assert abs(found[-1] - found[0]) > 0.1  # something was trained
    other = node(STEPS, settings=asked(rank, 2 * alpha, targets, rate), batches=batches)
    assert other != pytest.approx(wanted, rel=0.01)  # another scale is another run


def test_the_default_run_of_sixty_steps_is_the_librarys(node: Node, finetune: ModuleType):
    from ftmath.methods import fine_tune

    _, run = fine_tune("LoRA", "flip", rows=16, steps=60, seed=0, device=torch.device("cpu"))
    _, rank, alpha, targets, rate = SETTINGS["all seven matrices"]
    found = node(STEPS, settings=asked(rank, alpha, targets, rate), batches=finetune.batches("flip", 60))
    # A loss of 0.003 nats is below what a change in the order of sums leaves of it on other processors.
    assert found == pytest.approx(run.losses, rel=0.01, abs=1e-3)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("simd", [True, False], ids=["WebAssembly", "plain JavaScript"])
def test_every_gradient_is_torchs_within_a_ten_thousandth_of_its_length(node: Node, name: str, simd: bool):
    task, rank, alpha, targets, rate = SETTINGS[name]
    rng = np.random.default_rng(5)
    lines = [example(skill, rng) for skill in [task, *SKILLS]]  # rows of 7 to 45 tokens
    model, generator = adapted(rank, alpha, targets), torch.Generator().manual_seed(1)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.B, std=0.05, generator=generator)
    loss = loss_of(model, lines)
    loss.backward()
    grown = {short(name): layer.B.T.tolist() for name, layer in lora_layers(model).items()}
    body = """
      trainer.reset(inputs.settings);
      for (const [name, adapter] of trainer.model.adapters) {
        inputs.grown[name].forEach((row, i) => adapter.B.value.set(row, i * adapter.fanOut));
        adapter.refresh();
      }
      const loss = trainer.slopes(inputs.lines), slopes = {};
      for (const [name, { A, B }] of trainer.model.adapters) slopes[name] = [[...A.slope], [...B.slope]];
      return { loss, slopes };
    """
    found = node(body, settings=asked(rank, alpha, targets, rate), grown=grown, lines=lines, simd=simd)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, layer in lora_layers(model).items():
        for mine, factor in zip(found["slopes"][short(name)], (layer.A.grad, layer.B.grad.T), strict=True):
            slope = torch.tensor(mine).reshape(-1, factor.shape[1])
            assert not slope[rank:].any()  # what fills the vectors has no slope
            assert (slope[:rank] - factor).norm() <= 1e-4 * factor.norm()


def test_a_fresh_adapter_holds_the_numbers_that_torch_draws(node: Node):
    _, rank, alpha, targets, rate = SETTINGS["a rank that fills no vector"]
    body = """
      trainer.reset(inputs.settings);
      const values = ({ A, B }) => [[...A.value], [...B.value]];
      return Object.fromEntries([...trainer.model.adapters].map(([name, adapter]) => [name, values(adapter)]));
    """
    found = node(body, settings=asked(rank, alpha, targets, rate))
    layers = lora_layers(adapted(rank, alpha, targets))
    assert list(found) == [short(name) for name in layers]
    for name, layer in layers.items():
        first, second = found[short(name)]
        # On processors without a fused multiply-add torch rounds twice.
        assert first[: layer.A.numel()] == pytest.approx(layer.A.flatten().tolist(), rel=0, abs=1e-8)
        assert not any(first[layer.A.numel() :] + second)


def test_at_rate_zero_nothing_is_learned(node: Node, finetune: ModuleType):
    _, rank, alpha, targets, _ = SETTINGS["all seven matrices"]
    batches = finetune.batches("flip", 3)
    found = node(STEPS, settings=asked(rank, alpha, targets, 0.0), batches=batches)
    plain = base_model()
    assert found == pytest.approx([loss_of(plain, lines).item() for lines in batches], rel=1e-5)


# ---------------------------------------------------------------------------------------------------- what is measured


def test_accuracies_and_losses_are_the_librarys(node: Node, finetune: ModuleType):
    lines = {name: finetune.probed(name, 24) for name in ("add", "story", "mood", "flip")}
    body = """
      trainer.reset(inputs.settings);
      return Object.fromEntries(Object.entries(inputs.lines).map(([name, lines]) => [name, trainer.measure(lines)]));
    """
    found = node(body, settings=asked(1, 1.0, ["q"], 1e-3), lines=lines)
    model = base_model()
    for name, pairs in lines.items():
        assert found[name]["accuracy"] == accuracy(model, batch(pairs))
        assert found[name]["loss"] == pytest.approx(loss_of(model, pairs).item(), rel=1e-3, abs=1e-5)


def test_an_answers_tokens_are_shown_with_their_probabilities(node: Node):
    line = ("flip abc", "cba")
    shown = node("return trainer.predict(inputs.line);", line=line)
    rows = batch([line])
    chances = base_model()(rows.ids)[0, :-1].softmax(-1)[rows.answer_mask[0, 1:] == 1]
    assert [one["right"] for one in shown] == [*b"cba", 3]
    assert [one["guess"] for one in shown] == chances.argmax(-1).tolist()
    assert [one["pGuess"] for one in shown] == pytest.approx(chances.max(-1).values.tolist(), rel=1e-4)
    right = chances.gather(-1, torch.tensor([*b"cba", 3])[:, None])[:, 0]
    assert [one["pRight"] for one in shown] == pytest.approx(right.tolist(), rel=1e-3)


def test_the_spectrum_is_that_of_the_update(node: Node):
    rank, alpha = 6, 9.0
    body = """
      trainer.reset(inputs.settings);
      const adapter = trainer.model.adapters.get("2.gate");
      adapter.B.value.set(inputs.B.flat());
      return spectrum(adapter);
    """
    model = adapted(rank, alpha, ["gate"])
    layer = lora_layers(model)["blocks.2.mlp.gate"]
    torch.nn.init.normal_(layer.B, generator=torch.Generator().manual_seed(2))
    found = node(body, settings=asked(rank, alpha, ["gate"], 1e-3), B=layer.B.T.tolist())
    wanted = torch.linalg.svdvals(layer.delta().double())
    assert found == pytest.approx(wanted[:rank].tolist(), rel=1e-5)
    assert wanted[rank] < 1e-6 * wanted[0]


@pytest.mark.parametrize("simd", [True, False], ids=["WebAssembly", "plain JavaScript"])
def test_products_of_all_shapes_are_numpys(node: Node, simd: bool):
    rng = np.random.default_rng(0)
    for m, n, k in ((4, 8, 1), (8, 16, 3), (12, 8, 130), (4, 352, 7)):
        a, b, c = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=(m, n))
        body = """
          const [a, b, c] = inputs.matrices.map((values) => trainer.heap.floats(values.length));
          [a, b, c].forEach((made, i) => made.set(inputs.matrices[i]));
          trainer.heap.gemm(a, b, c, ...inputs.sizes);
          return [trainer.heap.simd, [...c]];
        """
        used, found = node(body, matrices=[x.flatten().tolist() for x in (a, b, c)], sizes=[m, n, k], simd=simd)
        assert used is simd
        assert np.reshape(found, (m, n)) == pytest.approx(c + a @ b, rel=1e-4, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_examples_of_the_pages_module_hold(finetune: ModuleType):
    assert doctest.testmod(finetune).failed == 0


def test_the_lines_are_those_that_the_library_draws(finetune: ModuleType):
    rng = np.random.default_rng(0)
    for lines in finetune.batches("please", 3):
        assert torch.equal(batch(lines).ids, mixture({"please": 1.0}, 16, rng).ids)


def test_every_line_fits_what_the_page_computes_at_once(finetune: ModuleType):
    """A row has at most 64 tokens and a batch 768: the sizes that transformer.js makes room for."""
    shown = finetune.tables()
    batches = [lines for task in shown["tasks"].values() for lines in task["batches"]]
    lengths = [[len(prompt) + len(answer) + 2 for prompt, answer in lines] for lines in batches]
    assert max(map(sum, lengths)) <= 768
    measured = [*shown["skills"].values(), *(task["held"] for task in shown["tasks"].values())]
    assert max(len(prompt) + len(answer) + 2 for lines in [*batches, *measured] for prompt, answer in lines) <= 64


def test_parts_1_4_and_5_lead_to_the_page(finetune: ModuleType):
    for part in finetune.LINKS:
        notebook = json.loads((ROOT / "course" / part / "theory.ipynb").read_text("utf-8"))
        cells = finetune.linked(notebook, part)["cells"]
        assert len(cells) == len(notebook["cells"]) + 1
        assert sum("](../lab/finetune.md)" in "".join(cell["source"]) for cell in cells) == 1
    with pytest.raises(ValueError, match=r"## 1\.1 "):
        finetune.linked({"cells": []}, "01_local_adaptation")
    assert finetune.linked({"cells": []}, "02_supervised_objective") == {"cells": []}


def test_recorded_runs_are_drawn_and_tabulated_and_made_once(finetune: ModuleType, tmp_path: Path):
    made: list[tuple[int, float]] = []

    def work(rank: int, rate: float) -> Any:
        made.append((rank, rate))
        return finetune.Recorded(rank, rate, (7.0, 3.5), 0.25, {"copy": 1.0, "add": 0.5})

    for _ in range(2):
        runs = finetune.recorded(tmp_path, work)
    assert len(made) == len(runs) == 4
    shown = finetune.twin(runs)
    assert "rank 1 from 7.0 to 5.25" in shown
    assert shown.count("<polyline") == 4
    assert shown.count("<td>0.75</td>") == 4
