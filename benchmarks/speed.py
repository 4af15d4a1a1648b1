"""One table and one picture of all speed benchmarks: `make benchmark` runs them, then this.

    python -m benchmarks.speed

draws `docs/speed-light.svg` and `docs/speed-dark.svg` from the files in `benchmarks/results/`. `make readme` writes
the same numbers into docs/results.md.
"""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.picture import COLORS, FOLDER, words_at
from utils.json_files import read_json

RESULTS = Path(__file__).parent / "results"
# file of results, key of the ratio, what is measured, what a user would run instead
RATIOS = (
    ("qa_speed", "ours_over_trl", "training on questions", "trl sft, its defaults"),
    ("qa_speed", "ours_over_trl_best", "training on questions", "trl sft, its fastest flags found"),
    ("classification_speed", "train_ours_over_official", "training a classifier", "transformers' example script"),
    ("classification_speed", "predict_ours_over_pipeline", "classifying", "transformers' pipeline"),
    ("summarization_speed", "train_rows_per_second_ours_over_official", "training a summarizer",
     "transformers' example script"),
    ("summarization_speed", "evaluation_rows_per_second_ours_over_official", "evaluating a summarizer",
     "transformers' example script"),
)  # fmt: skip
WIDTH, LEFT, ROW, BAR = 980, 470, 44, 18  # pixels


def ratios() -> list[tuple[str, str, float]]:
    """Return what is measured, what a user would run instead, and how many times as fast the scripts are."""
    found = {name: read_json(RESULTS / f"{name}.json") for name, *_ in RATIOS}
    return [(what, peer, found[name][key]) for name, key, what, peer in RATIOS if key in found[name]]


def equal_work() -> list[tuple[str, dict[str, Any]]]:
    """Return the ways of training on questions, with loss and gradient norm of the first step on the same rows."""
    return list(read_json(RESULTS / "qa_speed.json").get("ways", {}).items())


def draw(theme: str) -> str:
    """Return the ratios as bars, as SVG, in the colors of a theme of `benchmarks.picture`."""
    text, line, _, mark = COLORS[theme]
    words = partial(words_at, anchor="start")
    rows = ratios()
    height, longest = 40 + ROW * len(rows) + 24, max(ratio for _, _, ratio in rows)
    per_unit = (WIDTH - LEFT - 80) / longest
    parts = [words(16, 24, "Times as fast as what a user would run instead, on 2 CPU cores", line, 14)]
    for i, (what, peer, ratio) in enumerate(rows):
        y = 40 + ROW * i
        parts.append(words(16, y + 15, what, text, 15))
        parts.append(words(16, y + 32, f"against {peer}", line, 12.5))
        parts.append(f'<rect x="{LEFT}" y="{y + 4}" width="{ratio * per_unit:.0f}" height="{BAR}" fill="{mark}"/>')
        parts.append(words(LEFT + ratio * per_unit + 8, y + 18, f"{ratio:.1f}", text, 15))
    one = LEFT + per_unit
    parts.append(f'<path d="M{one:.0f} 36 V{height - 22}" stroke="{line}" stroke-dasharray="3 3"/>')
    parts.append(words_at(one, height - 6, "as fast", line, 12))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif"><title>How many times as fast the scripts are as what a user would run '
        "instead</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    """Write both pictures."""
    for theme in COLORS:
        (FOLDER / f"speed-{theme}.svg").write_text(draw(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
