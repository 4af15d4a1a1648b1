"""The axes of plots say numbers that a reader reads."""

import pytest
from matplotlib.figure import Figure

from utils.reporting.plots import _plot_dots


@pytest.mark.parametrize(("tuned", "base"), [(5.591, 8.414), (5.1, 5.2), (4.0, 31_000.0), (1.01, 1.02)])
def test_perplexities_have_plain_numbers_below_them(tuned, base):
    figure = Figure()
    axes = figure.subplots()
    _plot_dots(axes, {"test_perplexity": tuned, "base_test_perplexity": base}, "perplexity", None)
    figure.canvas.draw()
    low, high = axes.get_xlim()
    shown = [tick.get_text() for tick in axes.get_xticklabels() if low <= tick.get_position()[0] <= high]
    assert 2 <= len(shown) <= 16 and all(float(text) for text in shown)
    assert not any(tick.get_text() for tick in axes.get_xticklabels(minor=True))
