"""The report's pictures."""

from pathlib import Path

from stages.lib.files.writing import new_file
from stages.lib.reporting import cost_plot, frontier_plot, sensitivity_plot
from stages.lib.reporting.study import Results


def draw(results: Results, alone: float, folder: Path) -> dict[str, Path]:
    """Draw the three pictures into a folder; their paths, by name.

    `alone` is the sparsity at which sensitivity prunes each part alone.
    """
    pictures = {name: folder / f"{name}.svg" for name in ("cost", "frontier", "sensitivity")}
    with new_file(pictures["cost"]) as temporary:
        cost_plot.draw(results.comparisons, results.vocabulary, temporary)
    with new_file(pictures["frontier"]) as temporary:
        frontier_plot.draw(results.frontier, results.by_key["perplexity"], results.sizes, temporary)
    with new_file(pictures["sensitivity"]) as temporary:
        sensitivity_plot.draw(results.sensitivity, alone, temporary)
    return pictures
