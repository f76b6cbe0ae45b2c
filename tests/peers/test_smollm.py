"""SmolLM2 as we read it against transformers' own reading of the same file, where it was fetched."""

import pytest
import torch
from ftmath.smollm import GGUF, Reader, Tokenizer, cache_folder, smollm2

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("gguf")
FOLDER, FILE = cache_folder(), GGUF.rpartition("/")[2]
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not (FOLDER / FILE).is_file(), reason="SmolLM2 wasn't fetched: python3 start.py model smollm2"),
]
TEXTS = [
    "The capital of France is Paris.", "  two  spaces\n\n\tand a tab ", "It's 2026: 3.14159, x_1 = (a+b)/2; don't!",
    "naïve café — 北京 ½ Ⅷ ² 🙂 मराठी", "<|im_start|>user\nHi<|im_end|>\n", "CamelCase snake_case __init__ 12abc34", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours():
    return smollm2()


def test_token_ids_are_the_tokenizers_librarys(ours: tuple[torch.nn.Module, Tokenizer]):
    """Its pre-tokenizer is put together here: transformers reads none from the file, and lets ` ½` be one word."""
    metadata = Reader(FOLDER / FILE).metadata
    vocabulary = {token: place for place, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    split = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = split.Sequence([split.Digits(individual_digits=True), split.ByteLevel(False)])
    theirs.add_special_tokens([ours[1].tokens[place] for place in sorted(ours[1].control)])
    for text in TEXTS:
        assert ours[1].encode(text) == theirs.encode(text).ids, text
        assert ours[1].decode(ours[1].encode(text)) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")


def test_a_question_is_put_as_the_files_own_template_puts_it(ours: tuple[torch.nn.Module, Tokenizer]):
    theirs = transformers.AutoTokenizer.from_pretrained(FOLDER, gguf_file=FILE)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ours[1].chat("What is the capital of France?") == ours[1].encode(wanted)


def test_logits_are_transformers_to_float32s_rounding(ours: tuple[torch.nn.Module, Tokenizer]):
    """30 layers deep, sums in another order: 1e-3 on logits as large as 30."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE, dtype=torch.float32).eval()
    state = theirs.state_dict()
    assert torch.equal(state["model.layers.7.self_attn.q_proj.weight"], ours[0].blocks[7].attn.q.weight)
    assert torch.equal(state["model.embed_tokens.weight"], ours[0].embed.weight)
    ids = torch.tensor([ours[1].encode("The quick brown fox jumps over the lazy dog, and then it sleeps.")])
    with torch.no_grad():
        wanted, found = theirs(input_ids=ids).logits, ours[0](ids)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
