"""Paint a mask over tokens and see what the loss becomes."""

import html
from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from ftmath.widgets.explorer import FOLDER


class MaskPainter(anywidget.AnyWidget):
    """A line of tokens with their negative log-likelihoods, in nats; a click makes one a target or not.

    The first token is no target: nothing comes before it.

    Errors: ValueError for sides of unequal length.
    """

    _esm = FOLDER / "painter.js"
    _css = FOLDER / "explorer.css"
    line = traitlets.Dict().tag(sync=True)
    mask = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, title: str, tokens: Sequence[str], nll: Sequence[float], mask: Sequence[int]) -> None:
        if not len(tokens) == len(nll) == len(mask):
            raise ValueError(f"tokens, nll and mask must be equally long, got {len(tokens)}, {len(nll)}, {len(mask)}")
        line = {"title": title, "tokens": list(tokens), "nll": [float(value) for value in nll]}
        super().__init__(line=line, mask=[0, *(int(value) for value in mask[1:])])

    @property
    def loss(self) -> float:
        """Return the mean over the painted tokens, in nats; NaN without one."""
        chosen = [value for value, on in zip(self.line["nll"], self.mask, strict=True) if on]
        return sum(chosen) / len(chosen) if chosen else float("nan")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        rows = "".join(
            f"<tr><td>{html.escape(token)}</td><td>{value:.2f}</td><td>{'learned' if on else 'not learned'}</td></tr>"
            for token, value, on in zip(self.line["tokens"], self.line["nll"], self.mask, strict=True)
        )
        twin = (
            f"<div><b>{html.escape(self.line['title'])}</b><table><thead><tr><th>token</th><th>nats</th><th>target</th></tr>"
            f"</thead><tbody>{rows}</tbody></table><p>Loss {self.loss:.4f} nats per target.</p></div>"
        )
        return {**data, "text/html": twin, "text/plain": f"{self.line['title']}: loss {self.loss:.4f} nats"}, metadata


__all__ = ["MaskPainter"]
