"""The lab: its forms are what a count finds, a record is whole after each finding, and a notebook replays it."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ftmath.lab import __main__ as lab
from ftmath.lab.cards import SCHEMA, SECTIONS, Budget, Record, combined, recorded_cards, slug
from ftmath.lab.forms import SHAPES, Setup, largest_batch, loss_bytes, predicted, step_flops
from ftmath.lab.ladder import CASTS, LAUNCHES, drawn_rows, predicted_seconds, rungs
from ftmath.lab.meters import AliveBytes, held, shapes_only, thinned
from ftmath.lab.recipes import (
    FAMILIES,
    Sizes,
    answers,
    best_rate,
    calibration_error,
    compared,
    contains,
    desk_for,
    drawn,
    measure_one_model,
    policy_stage,
    preference_stage,
    small_subject,
    supervised,
)  # fmt: skip
from ftmath.lab.replay import NOT_RECORDED, chosen_record, measured_rows, read_verdict, section, stage, table_row, whose
from ftmath.lab.steps import build, chunked_loss, make_optimizer, plain_loss, step
from ftmath.lab.sweep import counted, finding, fitting_batches, loss_of, measure_memory, setups_for
from ftmath.memory import GIB, decoder_parameters
from ftmath.model import Config, Decoder
from ftmath.weights import save_weights
from hub_names import hub_name
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
SMALL = Setup("small", batch=2, time=64)
CASES = [
    SMALL,
    replace(SMALL, checkpointing=True),
    replace(SMALL, chunks=4),
    replace(SMALL, chunks=16),
    replace(SMALL, checkpointing=True, chunks=4),
    replace(SMALL, method="LoRA"),
    replace(SMALL, method="LoRA", checkpointing=True),
    replace(SMALL, method="LoRA", chunks=4),
    replace(SMALL, method="QLoRA", time=32),
    replace(SMALL, task="dpo", batch=1),
    replace(SMALL, method="LoRA", task="dpo", batch=1),
    replace(SMALL, method="LoRA", task="grpo", answer=4),
]


# ------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("setup", CASES, ids=lambda setup: setup.name)
def test_the_form_of_a_peak_is_what_a_count_finds(setup: Setup):
    assert predicted(setup, watched=True).total == pytest.approx(counted(setup).peak, rel=2e-3)


def test_a_count_sees_one_copy_more_of_a_tied_embeddings_gradient():
    """Autograd adds in place only where nothing watches: the first card measured showed it, and the form was mended."""
    setup = Setup("small", batch=2, time=64, checkpointing=True, chunks=4)
    moment = predicted(setup).moments["embedding"]
    watched = predicted(setup, watched=True)
    assert watched.moment == "embedding"
    assert sum(watched.moments["embedding"].values()) > sum(moment.values())
    assert predicted(setup).total < counted(setup).peak


def test_the_form_of_a_published_shape_is_what_a_count_finds():
    setup = Setup("135M", batch=4)
    assert predicted(setup).total == pytest.approx(counted(setup).peak, rel=1e-5)


def test_the_count_on_shapes_is_that_on_numbers():
    """No tensor of a step is there only because its numbers are, or missing since they aren't."""
    config = SHAPES["toy"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = build(config, "LoRA")
        ids = torch.zeros(2, 16, dtype=torch.long)
        loss, optimizer = loss_of(Setup("toy", "LoRA"), model, None, ids), make_optimizer(model)
        step(loss, optimizer)
        alive = AliveBytes()
        alive.watch([*held(model, optimizer), ids])
        with alive:
            step(loss, optimizer)
    finally:
        torch.set_default_dtype(before)
    assert alive.peak == pytest.approx(counted(Setup("toy", "LoRA", batch=2, time=16)).peak, rel=1e-3)


def test_a_count_forgets_what_died_and_counts_a_view_once():
    with AliveBytes(unit=512) as alive:
        x = torch.ones(100)
        _ = x[:50].view(5, 10)
        assert alive.now == 512
        del x, _
    assert (alive.now, alive.peak) == (0, 512)


def test_the_logits_matter_to_the_form():
    """The control of the claim that they are a term of their own: without them the form misses the count."""
    setup = Setup("small", batch=2, time=64)
    peak = predicted(setup)
    assert peak.moment == "loss"
    assert peak.terms["logits"] == loss_bytes(128, 2_000) == 12 * 128 * 2_000
    assert abs((peak.total - peak.terms["logits"]) / counted(setup).peak - 1) > 0.1


def test_a_kernel_that_spares_the_copy_saves_one_output_a_block():
    setup, config = Setup("135M", batch=4), SHAPES["135M"]
    saved = predicted(setup).total - predicted(setup, copied=False).total
    assert saved == 2 * config.layers * config.heads * config.head_dim * setup.tokens


@pytest.mark.parametrize("chunks", [1, 2, 5, 16])
def test_a_chunked_loss_has_the_plain_ones_value_and_gradients(chunks: int):
    config = replace(SHAPES["toy"], vocab=64)
    model = Decoder(config, torch.Generator().manual_seed(0)).double()
    ids = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(1))
    found: list[list[torch.Tensor]] = []
    for loss in (plain_loss(model, ids), chunked_loss(model, ids, chunks)):
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-6)


def test_the_largest_batch_fits_and_one_more_does_not():
    setup, room = Setup("1.5B", "LoRA", checkpointing=True), 24 * GIB
    most = largest_batch(setup, room)
    assert predicted(replace(setup, batch=most)).total <= room < predicted(replace(setup, batch=most + 1)).total
    assert largest_batch(Setup("7B"), 40 * GIB) == 0
    few, more = fitting_batches(setup, 24)
    assert 0 < few <= most < more + 2


@pytest.mark.parametrize("shape", ["toy", "small"])
def test_model_flops_are_those_that_torch_counts(shape: str):
    """Torch counts attention in full, where causal attention needs half; so the whole of it is added to our half."""
    config, rows, time = SHAPES[shape], 2, 32
    model = Decoder(config)
    ids = torch.zeros(rows, time, dtype=torch.long)
    with FlopCounterMode(display=False) as flops:
        plain_loss(model, ids).backward()
    ours = step_flops(config, rows * time, time)
    attention = rows * time * 3 * 2 * config.layers * config.heads * config.head_dim * time
    assert flops.get_total_flops() == pytest.approx(ours, rel=0.1)
    assert ours - attention == 6 * rows * time * (decoder_parameters(config) - (2 * config.layers + 1) * config.d_model)


def test_the_published_shapes_have_their_published_sizes():
    sizes = {name: decoder_parameters(SHAPES[name]) for name in ("135M", "0.5B", "1.5B", "7B")}
    assert sizes["135M"] == 134_515_008
    assert sizes["7B"] == 6_738_415_616
    assert sizes["0.5B"] == 494_032_768 - 24 * (896 + 2 * 128)  # Qwen2.5's own, less the biases of q, k and v
    assert sizes["1.5B"] == 1_543_714_304 - 28 * (1536 + 2 * 256)


# ----------------------------------------------------------------------------------------------------------- records


def test_a_record_is_whole_after_each_finding(tmp_path: Path):
    record = Record(CPU, tmp_path / "cpu.json", say=lambda text: None)
    record.begin("memory")
    for setup in CASES[:2]:
        record.add("memory", finding(setup, {"counted": 1}))
        stored = json.loads((tmp_path / "cpu.json").read_text("utf-8"))
        assert stored["memory"][-1]["name"] == setup.name
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.json"]


def test_a_later_run_keeps_the_sections_it_does_not_measure(tmp_path: Path):
    path = tmp_path / "cpu.json"
    first = Record(CPU, path, say=lambda text: None)
    first.begin("speed")
    first.add("speed", {"seconds": 1.0})
    first.skip("speed", "a rung", "out of time")
    first.skip("memory", "a step", "out of time")
    second = Record(CPU, path, say=lambda text: None)
    second.begin("memory")
    second.add("memory", {"name": "x"})
    stored = json.loads(path.read_text("utf-8"))
    assert stored["speed"] == [{"seconds": 1.0}]
    assert [skipped["section"] for skipped in stored["skipped"]] == ["speed"]  # memory's was tried again
    assert stored["memory"] == [{"name": "x"}]


def test_a_measurement_without_time_is_skipped_by_name():
    record = Record(CPU, None, say=lambda text: None)
    setups = setups_for(toy=True)
    measure_memory(record, Budget(-1), CPU, setups)
    assert record.data["memory"] == []
    assert [skipped["what"] for skipped in record.data["skipped"]] == [setup.name for setup in setups]
    assert {skipped["why"] for skipped in record.data["skipped"]} == {"out of time"}


def test_a_cut_off_run_of_the_model_is_continued(tmp_path: Path):
    """What is recorded isn't run again, and keeps its numbers; what is missing is run."""
    path, said = tmp_path / "cpu.json", list[str]()
    measure_one_model(Record(CPU, path, say=said.append), Budget(300), CPU, toy=True)
    whole = json.loads(path.read_text("utf-8"))
    assert [run["stage"] for run in whole["one_model"]] == ["base", *["trial"] * 3, *["sft"] * 3, "grpo", "dpo"]
    demand_schema(whole)
    path.write_text(json.dumps(whole | {"one_model": whole["one_model"][:-1]}))
    said.clear()
    measure_one_model(Record(CPU, path, say=said.append), Budget(300), CPU, toy=True)
    again = json.loads(path.read_text("utf-8"))
    assert [line.split()[0] for line in said[1:]] == ["dpo"]
    assert again["one_model"][:-1] == whole["one_model"][:-1]


@pytest.mark.parametrize("template", ["<s>{{ messages[0].content }}</s>", None])
def test_any_local_model_can_be_tuned(tmp_path: Path, template: str | None):
    """A folder as Hugging Face's tools write it: a small Qwen2 that reads bytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    sizes = Config(258, 16, 1, 2, 1, 8, 24, biases=False, biased=("q", "k", "v"))
    state = Decoder(sizes, torch.Generator().manual_seed(0)).state_dict()
    del state["head.weight"]
    save_weights({hub_name(name): value for name, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "qwen2", "vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 24, "tie_word_embeddings": True,
    }))  # fmt: skip
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    record = Record(CPU, None, say=lambda text: None)
    measure_one_model(record, Budget(300), CPU, toy=True, folder=folder)
    assert [run["stage"] for run in record.data["one_model"]] == ["base", *["trial"] * 3, *["sft"] * 3, "grpo", "dpo"]
    assert record.data["one_model"][0]["model"] == "small"


def test_a_folder_that_holds_no_model_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert lab.main(["--model", str(tmp_path), "--only", "one_model"]) == 2
    assert "is no folder of a model: it holds no config.json" in capsys.readouterr().err


def test_a_share_of_a_budget_ends_with_the_budget():
    now = [0.0]
    budget = Budget(10, clock=lambda: now[0])
    assert budget.share(100).left == 10
    now[0] = 8.0
    assert budget.share(1).left == 1
    assert budget.share(5).left == 2


def test_records_of_two_runs_are_joined_and_of_two_cards_refused(tmp_path: Path):
    one = {"card": "NVIDIA X", "memory": [1], "skipped": ["a"]}
    two = {"card": "NVIDIA X", "one_model": [2], "skipped": ["b"]}
    assert combined(one, two) == {"card": "NVIDIA X", "memory": [1], "one_model": [2], "skipped": ["a", "b"]}
    with pytest.raises(ValueError, match="one card"):
        combined(one, two | {"card": "other"})
    for name, record in (("1", one), ("2", two)):
        (tmp_path / name).write_text(json.dumps(record))
    assert lab.main(["--join", str(tmp_path / "1"), str(tmp_path / "2"), "--folder", str(tmp_path / "cards")]) == 0
    assert recorded_cards(tmp_path / "cards")["NVIDIA X"]["one_model"] == [2]


def test_the_command_records_the_quick_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--record", "--folder", str(tmp_path), "--only", "ceilings,timeline,fits", "--toy"]
    assert lab.main(words) == 0
    record = recorded_cards(tmp_path)["cpu"]
    demand_schema(record)
    assert record["timeline"][0]["name"] == "small full sft 2x128"
    assert "written:" in capsys.readouterr().out
    assert lab.main(["--only", "nothing"]) == 2


def demand_schema(record: dict[str, Any]) -> None:
    """Assert what every notebook relies on."""
    assert record["schema"] == SCHEMA
    assert {"card", "torch", "python", "libraries", "skipped", "dense_bf16_flops"} <= record.keys()
    assert record.keys() & set(SECTIONS)
    for found in record.get("memory", []):
        assert {"name", "setup", "predicted", "moment", "terms", "measured", "note"} <= found.keys()
        assert Setup(**found["setup"]).name == found["name"]
    for found in record.get("speed", []):
        assert {"shape", "rung", "predicted", "seconds", "tokens_per_second", "share", "real_tokens"} <= found.keys()
    for found in record.get("timeline", []):
        assert len(found["bytes"]) <= 400
        assert list(found["marks"]) or found["marks"] == {}
    for found in record.get("one_model", []):
        assert found["stage"] in ("base", "trial", "sft", "grpo", "dpo")


@pytest.mark.parametrize("record", recorded_cards().values(), ids=lambda record: slug(record["card"]))
def test_a_committed_record_is_of_a_card_and_keeps_the_promise(record: dict[str, Any]):
    """The recorded predictions are within five per cent with the workspace, and without it wherever it's small."""
    demand_schema(record)
    assert record["card"] != "cpu"
    rows = measured_rows(record)
    assert len(rows) >= 20
    assert max(abs(row["error_with"]) for row in rows) < 0.05
    assert max(abs(row["error"]) for row in rows if row["measured"]["allocated"] > 2 * GIB) < 0.05
    assert max(row["workspace"] for row in rows) < 100 * 2**20


@pytest.mark.parametrize("record", recorded_cards().values(), ids=lambda record: slug(record["card"]))
def test_todays_form_is_what_a_card_was_asked_for(record: dict[str, Any]):
    """A regression: the form as it's now, which has seen the record, against the bytes that were requested."""
    for row in measured_rows(record):
        form = predicted(Setup(**row["setup"]), copied=row.get("copied", True)).total
        assert form + row["workspace"] == pytest.approx(row["measured"]["requested"], rel=0.01), row["name"]


@pytest.mark.parametrize("record", recorded_cards().values(), ids=lambda record: slug(record["card"]))
def test_the_predicted_seconds_are_a_floor(record: dict[str, Any]):
    assert all(found["seconds"] > found["predicted"]["total"] for found in record["speed"])


def test_the_readme_has_a_row_for_every_committed_record():
    """And says that none is there where none is."""
    rows = [table_row(record) for record in recorded_cards().values()] or ["| none yet | not recorded |"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(row in readme for row in rows), rows


# ------------------------------------------------------------------------------------------------------------ replay


def test_without_a_record_nothing_is_replayed(tmp_path: Path):
    assert chosen_record(tmp_path) is None
    assert whose(None) == NOT_RECORDED
    assert section(None, "speed") == measured_rows(None) == stage(None, "sft") == []


def test_a_card_is_replayed_and_the_cpu_is_not(tmp_path: Path):
    seen = {"requested": 90, "allocated": 100, "reserved": 120, "before": 5}
    memory = [finding(SMALL, seen), finding(SMALL, None, "out of memory")]
    for card, rows in (("cpu", []), ("NVIDIA X", memory)):
        record = {"card": card, "torch": "2", "cuda": "13", "memory": rows, "skipped": []}
        (tmp_path / f"{slug(card)}.json").write_text(json.dumps(record))
    record = chosen_record(tmp_path)
    assert record is not None
    assert whose(record).startswith("Recorded on an NVIDIA X")
    (row,) = measured_rows(record)
    assert (row["rounding"], row["fragments"]) == (10, 20)


def test_a_thinned_course_keeps_its_peak():
    course = [1] * 1000 + [9] + [2] * 500
    found = thinned(course, {"backward": 1000}, points=50)
    assert max(found["bytes"]) == 9
    assert len(found["bytes"]) <= 50
    assert found["bytes"][found["marks"]["backward"]] == 9


# ------------------------------------------------------------------------------------------------------------- speed


def test_every_rung_changes_something_and_is_predicted_no_slower_than_the_book():
    top = {"fp32": 50e12, "tf32": 400e12, "bf16": 800e12, "copy": 3e12, "launch": 5e-6}
    ladder = rungs()
    assert len(set(ladder)) == len(ladder)
    times = [predicted_seconds(rung, SHAPES["1.5B"], 3, 1024, top)["total"] for rung in ladder]
    assert max(times) == times[0]


class Operations(TorchDispatchMode):
    """Count operations that start a kernel: those whose result isn't a view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and func.namespace == "aten"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.bfloat16, False), (torch.float32, False), (torch.float32, True)]
)
def test_a_block_starts_as_many_kernels_as_the_floor_says(dtype: torch.dtype, autocast: bool):
    found: list[int] = []
    for layers in (1, 2):
        with shapes_only(dtype):
            model = build(replace(SHAPES["toy"], layers=layers), "full")
            ids = torch.zeros(1, 8, dtype=torch.long)
            with Operations() as operations:
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = plain_loss(model, ids)
                loss.backward()
        found.append(operations.count)
    assert found[1] - found[0] == pytest.approx(LAUNCHES[False] + CASTS * autocast, rel=0.1)


def test_packed_rows_hold_only_real_tokens():
    _, targets, real = drawn_rows(100, 4, 64, packed=True, device=CPU)
    assert real == 256
    assert int((targets >= 0).sum()) == 4 * 63
    _, targets, real = drawn_rows(100, 4, 64, packed=False, device=CPU)
    assert int((targets >= 0).sum()) == real - 4 < 4 * 63


# --------------------------------------------------------------------------------------------------------- one model


@pytest.fixture(scope="module")
def desk():
    sizes = Sizes(48, 12, 3, 32, 2, 4, 1, 2, 2, 1, 8, (1,), 1)
    return desk_for(small_subject(CPU), sizes)


def test_lessons_and_tests_share_no_question():
    lessons = drawn(400, seed=11)
    trial = drawn(60, seed=12, unlike=lessons)
    test = drawn(60, seed=13, unlike=[*lessons, *trial])
    questions = [{question for question, _ in pairs} for pairs in (lessons, trial, test)]
    assert not questions[0] & questions[1]
    assert not questions[2] & (questions[0] | questions[1])
    assert len({pair[1] == "unknown" for pair in test[5::6]}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_can_be_worked_out_from_its_question(family: str):
    for question, answer in drawn(20, seed=3, families=(family,)):
        found = [int(number) for number in re.findall(r"\d+", question)]
        wanted = {
            "sum": str(sum(found)), "difference": str(found[0] - found[-1]) if found else "",
            "order": ", ".join(map(str, sorted(found))), "story": str(sum(found)),
            "list": json.dumps(re.findall(r"(\w+)(?=, | and | as a)", question)), "unknown": "unknown",
        }  # fmt: skip
        assert answer == wanted[family]


def test_an_untouched_model_changed_nothing(desk: Any):
    """The null: a model against itself has no change, whatever its level is."""
    found = compared(desk.test, desk.before, desk.before)
    assert found["exact_change"][0] == found["old_change"][0] == found["text_change"][0] == 0
    assert read_verdict(found["exact_change"]) == "nothing shown"


@pytest.mark.parametrize("method", ["full", "LoRA", "QLoRA"])
def test_a_supervised_run_moves_a_copy_and_never_the_base(desk: Any, method: str):
    before = {name: value.clone() for name, value in desk.subject.model.state_dict().items()}
    model, found = supervised(desk, method, 1e-3, 1, trial=True)
    assert found["kl"] > 0
    assert found["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(torch.equal(value, before[name]) for name, value in desk.subject.model.state_dict().items())


def test_the_policys_and_the_preferences_stages_leave_their_findings(desk: Any):
    policy = policy_stage(desk, desk.subject.fresh(), 1)
    assert len(policy["steps"]) == 1
    assert policy["steps"][0]["kl"] == pytest.approx(0, abs=1e-4)  # fresh adapters change nothing
    found = preference_stage(desk, 1e-4, 1)
    assert found["steps"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    json.dumps([policy, found])


def test_answers_end_at_the_end_token(desk: Any):
    subject = desk.subject
    (tokens,) = answers(subject, subject.model, ["copy abc"])
    assert subject.read(tokens) == "abc"
    assert tokens[-1] == subject.end


def test_a_number_inside_another_is_not_right():
    assert not contains("The answer is 142.", "42")
    assert contains("The answer is 42.", "42")


def test_the_best_rate_answers_most_and_then_drifts_least():
    trials = [
        {"method": "full", "rate": 1e-5, "exact": 0.5, "text_loss": 3.0},
        {"method": "full", "rate": 1e-4, "exact": 0.5, "text_loss": 2.0},
        {"method": "LoRA", "rate": 1.0, "exact": 0.9, "text_loss": 2.0},
    ]
    assert best_rate(trials, "full") == 1e-4
    assert calibration_error([1.0, 0.0], [1, 0]) == 0


# ---------------------------------------------------------------------------------------------- the notebooks' device


MASTERS = sorted((ROOT / "course" / "text").rglob("*.py"))


@pytest.mark.parametrize("master", MASTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_cell_pins_the_processor_or_leaves_the_real_model_on_it(master: Path):
    text = master.read_text("utf-8")
    assert 'torch.device("cpu")' not in text
    assert not re.search(r"\.cuda\(|device=.cuda", text)
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign)):
        if "smollm2(" in ast.unparse(call.value):
            name = ast.unparse(call.targets[0]).strip("()").partition(",")[0]
            assert re.search(rf"^\s+{name}\.to\(device\)$", text, re.MULTILINE), f"{name} isn't moved to the device"


TRAINS = re.compile(r"\b(train|fit_preferences|fit_reward_model|improve_policy|measured)\(")


@pytest.mark.parametrize("master", MASTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_cell_that_trains_the_base_model_moves_it(master: Path):
    for cell in re.split(r"^# %%.*$", master.read_text("utf-8"), flags=re.MULTILINE):
        if TRAINS.search(cell) and "base_model()" in cell:
            assert "device" in cell, cell[:300]
