"""Draw the picture of the pipeline at the top of README.md, for light and dark pages.

    python -m benchmarks.picture

writes `docs/pipeline-light.svg` and `docs/pipeline-dark.svg`.
"""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT, BOX, GAP, TOP = 980, 250, 164, 32, 46  # pixels
STEPS = (
    ("Your data", ("csv, jsonl, parquet,", "Hub data set")),
    ("Clean splits", ("no twin, no patient", "in two splits")),
    ("Base model", ("bf16 or 4 bits,", "with a LoRA adapter")),
    ("Train", ("resumes after a crash", "to the same weights")),
    ("Evaluate", ("with intervals, against", "base and baselines")),
)
RESULTS = ("report and model card", "adapter", "predict.py", "app.py: page and API", "the Hub, in private")
# text, lines, boxes, the mark on the results (Okabe-Ito blue, lighter on dark pages)
COLORS = {
    "light": ("#1f2328", "#59636e", "#f6f8fa", "#0072B2"),
    "dark": ("#f0f6fc", "#9198a1", "#151b23", "#56B4E9"),
}


def draw(theme: str) -> str:
    """Return the picture as SVG, in the colors of a theme of `COLORS`."""
    text, line, box, mark = COLORS[theme]
    parts = []
    for i, (name, about) in enumerate(STEPS):
        x = 16 + i * (BOX + GAP)
        parts.append(f'<rect x="{x}" y="{TOP}" width="{BOX}" height="92" rx="8" fill="{box}" stroke="{line}"/>')
        parts.append(words_at(x + BOX / 2, TOP + 30, name, text, 17, bold=True))
        parts += [words_at(x + BOX / 2, TOP + 56 + 20 * j, words, line, 13.5) for j, words in enumerate(about)]
        if i:
            parts.append(_arrow(x - GAP + 3, TOP + 46, x - 4, TOP + 46, line))
    last = 16 + 4 * (BOX + GAP) + BOX / 2
    parts.append(f'<path d="M{last} {TOP + 92} V186 H98" fill="none" stroke="{line}" stroke-width="1.5"/>')
    for i, name in enumerate(RESULTS):
        x = 16 + i * (BOX + GAP) + BOX / 2
        parts.append(_arrow(x, 186, x, 205, mark, down=True))
        parts.append(words_at(x, 226, name, text, 14))
    parts.append(words_at(WIDTH / 2, 26, "One recipe, one script of 300 lines, one command", line, 14))
    title = (
        "Data is cleaned and split, a base model gets an adapter, is trained and evaluated; report and model come out"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif"><title>{title}</title>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def words_at(
    x: float, y: float, words: str, color: str, size: float, bold: bool = False, anchor: str = "middle"
) -> str:
    """Return a text as SVG, whose start, middle or end is at `x`."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size:g}" text-anchor="{anchor}"{weight}>'
        f"{escape(words)}</text>"
    )


def _arrow(x: float, y: float, to_x: float, to_y: float, color: str, down: bool = False) -> str:
    head = (
        f"{to_x - 5:g},{to_y - 6:g} {to_x + 5:g},{to_y - 6:g}"
        if down
        else f"{to_x - 6:g},{to_y - 5:g} {to_x - 6:g},{to_y + 5:g}"
    )
    return (
        f'<path d="M{x:g} {y:g} L{to_x:g} {to_y:g}" stroke="{color}" stroke-width="1.5"/>'
        f'<polygon points="{to_x:g},{to_y:g} {head}" fill="{color}"/>'
    )


def main() -> None:
    """Write both pictures."""
    for theme in COLORS:
        (FOLDER / f"pipeline-{theme}.svg").write_text(draw(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
