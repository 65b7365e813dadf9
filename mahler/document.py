"""A document as a list of blocks, and its two forms: Markdown with figures beside it, and one HTML file with all in it.

Everything in a block is plain text: what a user wrote (the name of a run) cannot become markup in either form.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mahler.figures import INK, LOSS

STYLE = """
body { font: 14px/1.5 Helvetica, Arial, sans-serif; color: #1b2a3a; max-width: 1180px;
       margin: 16px auto 64px; padding: 0 16px }
h1 { font-size: 24px } h2 { font-size: 19px; margin: 36px 0 8px; border-bottom: 1px solid #c9d1d9 }
h3 { font-size: 15px; margin: 24px 0 6px } p, ul { max-width: 900px; margin: 8px 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; margin: 8px 0 } thead { color: #66727f } img { max-width: 100% }
td, th { padding: 3px 0 3px 16px; border-bottom: 1px solid #e3e7ec; text-align: right; font-weight: normal;
         vertical-align: top }
td { font-variant-numeric: tabular-nums; white-space: nowrap } th:first-child { text-align: left; padding-left: 0 }
.words { text-align: left; white-space: normal } .strong { font-weight: bold } tbody .strong { background: #f3f6f9 }
figure { margin: 16px 0 } figcaption { color: #66727f; max-width: 900px } pre { background: #f3f6f9; padding: 8px 12px }
"""


@dataclass(frozen=True)
class Heading:
    """`level` 1 is the document's title, in red where it is `loud`."""

    level: int
    text: str
    loud: bool = False


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """A table: the first column and those in `words` are text, the others numbers; rows in `strong` are bold."""

    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()
    words: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """An SVG, the name of its file, and what there is to see in it."""

    file: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines to type."""

    lines: tuple[str, ...]


Block = Heading | Words | Bullets | Rows | Picture | Code


def pictures(blocks: Sequence[Block]) -> dict[str, str]:
    """The SVGs of a document by the name of their file."""
    return {block.file: block.svg for block in blocks if isinstance(block, Picture)}


# ---- Markdown --------------------------------------------------------------------------------------------------------

def markdown(blocks: Sequence[Block]) -> str:
    """The document as GitHub shows it, with its figures as files in the same folder."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_plain(block.text)}"
        case Words():
            return f"**{_plain(block.text)}**" if block.strong else _plain(block.text)
        case Bullets():
            return "\n".join(f"- {_plain(item)}" for item in block.items)
        case Rows():
            left = [column == 0 or column in block.words for column in range(len(block.head))]
            lines = [_pipes([_plain(cell) for cell in block.head]), _pipes([":--" if side else "--:" for side in left])]
            for row, cells in enumerate(block.body):
                plain = [_plain(cell) for cell in cells]
                bold = row in block.strong
                lines.append(_pipes([f"**{cell}**" if bold and cell else cell for cell in plain]))
            return "\n".join(lines)
        case Picture():
            return f"![{_plain(block.file.removesuffix('.svg'))}]({block.file})\n\n{_plain(block.caption)}"
        case Code():
            return "\n".join(["```sh", *(line.replace("```", "'''") for line in block.lines), "```"])


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is; an underscore within a word needs nothing."""
    one_line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|^[#+-](?=\s)", lambda found: "\\" + found[0], one_line)


# ---- HTML ------------------------------------------------------------------------------------------------------------

def page(blocks: Sequence[Block], title: str) -> str:
    """One HTML file that needs no other."""
    body = "\n".join(_html(block) for block in blocks)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n")


def _html(block: Block) -> str:
    match block:
        case Heading():
            colour = f' style="color:{LOSS if block.loud else INK}"' if block.level == 1 else ""
            return f"<h{block.level}{colour}>{html.escape(block.text)}</h{block.level}>"
        case Words():
            return f"<p{' class=strong' if block.strong else ''}>{html.escape(block.text)}</p>"
        case Bullets():
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
        case Rows():
            return _table(block)
        case Picture():
            # As an image: each SVG keeps its identifiers to itself.
            data = base64.b64encode(block.svg.encode("utf-8")).decode("ascii")
            caption = html.escape(block.caption)
            return (f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
                    f"<figcaption>{caption}</figcaption></figure>")
        case Code():
            return "<pre>" + html.escape("\n".join(block.lines)) + "</pre>"


def _table(block: Rows) -> str:
    def cell(tag: str, column: int, text: str) -> str:
        return f"<{tag}{' class=words' if column in block.words else ''}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", column, text) for column, text in enumerate(block.head))
    body = "".join(
        f"<tr{' class=strong' if row in block.strong else ''}>"
        + "".join(cell("td" if column else "th", column, text) for column, text in enumerate(cells)) + "</tr>"
        for row, cells in enumerate(block.body))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
