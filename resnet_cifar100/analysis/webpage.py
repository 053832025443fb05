"""A Markdown report as one self-contained HTML file, for a light or a dark screen or paper."""

import base64
import re
from pathlib import Path

from markdown_it import MarkdownIt

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2733; --faint: #5f6b78;
  --line: #d5dae0; --card: #f5f7f9; --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --ink: #dfe5ec; --faint: #97a3b0;
  --line: #39424e; --card: #1b2129; --mark: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1.5rem 0 .25rem; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); scroll-margin-top: 3rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
a { color: var(--mark); }
nav { position: sticky; top: 0; background: var(--page); border-bottom: 1px solid var(--line);
  overflow-x: auto; white-space: nowrap; z-index: 1; }
nav div { max-width: 1080px; margin: 0 auto; padding: .6rem 1.25rem; }
nav a { margin-right: 1.1rem; text-decoration: none; font-size: .9rem; }
img { max-width: 100%; height: auto; display: block; margin: .75rem auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--faint); font-weight: 600; }
code { font-size: .88em; background: var(--card); padding: .1em .3em; border-radius: .25em;
  overflow-wrap: anywhere; }
blockquote { margin: 1rem 0; padding: .6rem 1rem; border-left: 4px solid #d55e00;
  background: var(--card); }
blockquote p { margin: 0; }
summary { cursor: pointer; color: var(--mark); margin: .75rem 0; }
#at-a-glance { border: 0; margin: 0; padding: 0; height: 0; overflow: hidden; }
#at-a-glance + .scroll table, #at-a-glance + .scroll thead, #at-a-glance + .scroll tbody {
  display: block; }
#at-a-glance + .scroll thead { display: none; }
#at-a-glance + .scroll tbody { display: grid; gap: .75rem;
  grid-template-columns: repeat(4, 1fr); }
#at-a-glance + .scroll tr { display: flex; flex-direction: column-reverse; border-radius: .6rem;
  justify-content: flex-end; background: var(--card); padding: .8rem 1rem; }
#at-a-glance + .scroll td { border: 0; padding: 0; }
#at-a-glance + .scroll td:first-child { color: var(--faint); font-size: .82rem; }
#at-a-glance + .scroll td:last-child { font-size: 1.5rem; font-weight: 650; line-height: 1.3; }
@media (max-width: 640px) {  /* a wide figure is moved sideways: its letters stay legible */
  picture { display: block; overflow-x: auto; }
  img { max-width: none; width: 760px; }
  #at-a-glance + .scroll tbody { grid-template-columns: repeat(2, 1fr); }
}
@media print {
  nav { display: none; }
  h2, h3, summary { break-after: avoid; }
  details::details-content { content-visibility: visible; }  /* what is folded is printed too */
}
"""

_PICTURE = re.compile(r'(src|srcset)="(figures/[\w-]+\.png)"')
_TITLE, _HEADING = re.compile(r"<h1>(.*?)</h1>"), re.compile(r"<h2>(.*?)</h2>")
_TAG = re.compile(r"<[^>]*>")


def render_page(markdown: str, folder: Path) -> str:
    """Return Markdown as a page of HTML that needs no other file, pictures of `folder` included."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    title = _TAG.sub("", _TITLE.findall(body)[0])
    headings = _HEADING.findall(body)
    body = _HEADING.sub(lambda match: f'<h2 id="{_anchor(match[1])}">{match[1]}</h2>', body)
    body = body.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )
    body = _PICTURE.sub(lambda match: f'{match[1]}="{_inline(folder / match[2])}"', body)
    links = "".join(f'<a href="#{_anchor(heading)}">{heading}</a>' for heading in headings)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<nav><div>{links}</div></nav>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _anchor(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
