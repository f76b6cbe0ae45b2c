"""SmolLM2 as we read it against transformers' own reading of the same file, where it was fetched."""

import pytest
import torch
from ftmath.smollm import GGUF, cache_folder, smollm2
from ftmath.text import Text

transformers = pytest.importorskip("transformers")
FOLDER, FILE = cache_folder(), GGUF.rpartition("/")[2]
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not (FOLDER / FILE).is_file(), reason="SmolLM2 wasn't fetched: python3 start.py model smollm2"),
]
TEXTS = [
    "The capital of France is Paris.", "  two  spaces\n\n\tand a tab ", "It's 2026: 3.14159, x_1 = (a+b)/2; don't!",
    "naïve café — 北京 🙂 मराठी", "<|im_start|>user\nHi<|im_end|>\n", "CamelCase snake_case __init__ 12abc34", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours():
    return smollm2()


@pytest.fixture(scope="module")
def their_text():
    return transformers.AutoTokenizer.from_pretrained(FOLDER, gguf_file=FILE)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_split_as_transformers_splits_it_and_comes_back(
    ours: tuple[torch.nn.Module, Text], their_text: object, text: str
):
    """Digits apart: transformers reads no rule for them from the file, where SmolLM2's own lets each stand alone."""
    ids = ours[1].encode(text)
    if not any(letter.isdigit() for letter in text):
        assert ids == their_text(text)["input_ids"]
    assert ours[1].decode(ids) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_question_is_put_as_the_files_own_template_puts_it(
    ours: tuple[torch.nn.Module, Text], their_text: object, system: str | None
):
    turns = [{"role": "system", "content": system}] * (system is not None)
    turns.append({"role": "user", "content": "What is the capital of France?"})
    wanted = their_text.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert ours[1].conversation(turns, answer=True) == wanted
    assert ours[1].chat("What is the capital of France?", system) == ours[1].encode(wanted)


def test_logits_are_transformers_to_float32s_rounding(ours: tuple[torch.nn.Module, Text]):
    """30 layers deep, sums in another order: 1e-3 on logits as large as 30."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE, dtype=torch.float32).eval()
    state = theirs.state_dict()
    assert torch.equal(state["model.layers.7.self_attn.q_proj.weight"], ours[0].blocks[7].attn.q.weight)
    assert torch.equal(state["model.embed_tokens.weight"], ours[0].embed.weight)
    ids = torch.tensor([ours[1].encode("The quick brown fox jumps over the lazy dog, and then it sleeps.")])
    with torch.no_grad():
        wanted, found = theirs(input_ids=ids).logits, ours[0](ids)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
