"""The page of a learning-rate range test: the loss by learning rate."""

from collections.abc import Sequence

from llm.reports import page, svg
from llm.sweeps import lr_curve


def html(title: str, rates: Sequence[float], losses: Sequence[float], found) -> str:
    """The page: the loss by learning rate, and what was found."""
    y = lr_curve.smoothed(losses)
    top = max(y[: max(1, len(y) // 4)]) * 1.3  # what follows may go through the roof
    shown = [(r, v) for r, v in zip(rates, losses, strict=False) if v <= top]
    curve = svg.both(
        [
            svg.Series("each step", *zip(*shown, strict=True), 1, "faint"),
            svg.Series("smoothed", rates[: len(y)], [min(v, top) for v in y]),
        ],
        title="training loss", x_label="learning rate", x_format="{:.2g}".format,
        log_x=True, log_y=False, height=320,
    )  # fmt: skip
    return page.render("lr_range.html.j2", title=title, curve=curve, found=found)
