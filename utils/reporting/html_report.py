"""A report in Markdown as one HTML file that needs nothing else: plots inside, no script, no request to a network."""

import base64
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

# The policy holds even if a label of the data has Markdown for a picture from elsewhere
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --head: #8882; }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.2rem; border-bottom: 1px solid var(--line); }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }}
thead {{ background: var(--head); }}
img {{ max-width: 100%; background: #fff; border-radius: 4px; }}
code, pre {{ background: var(--head); border-radius: 3px; padding: 0.1rem 0.3rem; }}
pre {{ padding: 0.8rem; overflow-x: auto; }}
pre code {{ background: none; padding: 0; }}
@media print {{ body {{ max-width: none; font-size: 10pt; }} h2 {{ break-after: avoid; }}
  img, tr {{ break-inside: avoid; }} .table {{ overflow: visible; }} table {{ font-size: 7.5pt; }} }}
</style>
</head>
<body>
<main>
"""


def to_html(markdown: str, folder: Path) -> str:
    """Return a page with the text of a report and its pictures inside.

    HTML in the text is shown as letters. A picture that is not a PNG file in `folder` becomes its description.

    Args:
        markdown: the report; tables as on GitHub.
        folder: where the paths of its pictures begin.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                _embed(child, Path(folder))
    body = parser.renderer.render(tokens, parser.options, {})
    # a keyboard scrolls a wide table only where it can be focused
    body = body.replace("<table>", '<div class="table" tabindex="0" role="region" aria-label="table">\n<table>')
    body = body.replace("</table>", "</table>\n</div>")
    title = next((t.content for t in tokens if t.type == "inline"), "Report")
    return HEAD.format(title=title.replace("&", "&amp;").replace("<", "&lt;")) + body + "</main>\n</body>\n</html>\n"


def _embed(image: Token, folder: Path) -> None:
    """Put the bytes of a picture into its token."""
    path = folder / str(image.attrs.get("src", ""))
    inside = path.suffix == ".png" and path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    if inside:
        image.attrs["src"] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    else:
        image.type, image.tag, image.content = "text", "", image.content or "picture"
