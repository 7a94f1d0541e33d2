"""What the panels of a picture share."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def legend(figure: Figure, *, ncols: int) -> None:
    """One legend below all panels; names are text, in which a dollar sign begins no formula."""
    labelled = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    found = figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=ncols, fontsize=8)
    for text in found.get_texts():
        text.set_parse_math(False)


def finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
