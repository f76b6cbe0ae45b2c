"""Text and tokens of a real model: the `tokenizers` library, and the template in which the model was taught to chat.

Needs the libraries of the extra `model`: `python3 start.py model smollm2` installs them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ftmath.starter import PACKED, STARTER

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def demand_libraries(*names: str) -> None:
    """Raise ModuleNotFoundError, with the mend, for a library of the extra `model` that isn't installed.

    >>> demand_libraries("tokenizers", "jinja2")
    """
    for name in names:
        if not installed(name):
            other = "" if PACKED.is_dir() else f"run `{STARTER} model smollm2` once, or "
            raise ModuleNotFoundError(f'{name} isn\'t installed: {other}install "fine-tuning-math[model]"')


def installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


Turn = Mapping[str, str]
"""One turn of a conversation: its `role` (system, user, assistant) and its `content`."""


class Text:
    """A tokenizer with its chat template. `special` names the tokens that a template may write, such as `eos_token`.

    >>> from tokenizers import Tokenizer, models
    >>> letters = Tokenizer(models.BPE({"h": 0, "i": 1, "<end>": 2}, []))
    >>> _ = letters.add_special_tokens(["<end>"])
    >>> each = "{% for one in messages %}{{ one.content }}{{ eos_token }}{% endfor %}"
    >>> text = Text(letters, each, {"eos_token": "<end>"})
    >>> text.chat("hi"), text.end, text.decode([0, 2])
    ([0, 1, 2], 2, 'h')
    """

    def __init__(self, tokenizer: "Tokenizer", template: str | None, special: Mapping[str, str]) -> None:
        self.tokenizer, self.template, self.special = tokenizer, template, dict(special)

    @property
    def end(self) -> int | None:
        """Return the id of the token that ends an answer, if the tokenizer has one."""
        return self.tokenizer.token_to_id(self.special.get("eos_token", ""))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; nothing is added in front or behind."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids, without special tokens; bytes that are no text become U+FFFD."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def chat(self, question: str | Sequence[Turn], system: str | None = None) -> list[int]:
        """Return a question, or a conversation, as the model was taught to be asked, ready for its answer."""
        turns = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
        if system is not None:
            turns = [{"role": "system", "content": system}, *turns]
        return self.encode(self.conversation(turns, answer=True))

    def conversation(self, turns: Sequence[Turn], *, answer: bool = False) -> str:
        """Return the text of a conversation; with `answer`, the words that begin the model's next turn follow.

        Errors: ValueError if the model has no template, or its template refuses the turns.
        """
        if self.template is None:
            raise ValueError("this model has no chat template: it was not taught to chat, so give it plain text")
        return render(self.template, messages=list(turns), add_generation_prompt=answer, **self.special)


def render(template: str, **words: Any) -> str:
    """Return what a chat template writes. It runs in Jinja's sandbox, since it came with the weights.

    >>> render("{{ word | upper }}", word="hi")
    'HI'

    Errors: ValueError with the template's own words if it refuses, or with Jinja's if it can't be read.
    """
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant said, for masks; here it only writes it."""

        tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(inside).set_lineno(line)

    room = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    offered: dict[str, Any] = {"raise_exception": refuse, "strftime_now": datetime.now(tz=UTC).strftime}
    room.globals.update(offered)
    room.filters["tojson"] = written_as_json
    try:
        return room.from_string(template).render(**words)
    except TemplateError as error:
        raise ValueError(f"the model's chat template could not be used: {error}") from None


def written_as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def refuse(words: str) -> None:
    raise ValueError(f"the model's chat template refuses these turns: {words}")


__all__ = ["Text", "Turn", "demand_libraries", "render"]
