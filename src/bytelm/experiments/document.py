"""A report before it has a form: sections of paragraphs, tables and figures, and its three forms.

A study says once what is to be read; `as_text`, `as_markdown` and `as_html` write the same words
and figures. The page is that of `apps.report`.
"""

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bytelm.apps import report
from bytelm.experiments.plots import Figure

_TEXT_WIDTH = 96


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Running text."""

    text: str
    """Plain."""

    is_warning: bool = False
    """What a reader must see before the figures around it."""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]
    """Plain texts."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header; the first column is text, the others are numbers or short words.

    A table without headings is a list of names and what they are: all of it is text.
    """

    header: tuple[str, ...]
    """One heading a column, with the unit; or as many empty ones."""

    rows: tuple[tuple[str, ...], ...]
    """As many cells each as the header has."""

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"expected {len(self.header)} cells, got {wrong[0]}")

    @property
    def has_headings(self) -> bool:
        """Whether there is anything to read above the rows."""
        return any(self.header)


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Command lines, without the prompt."""

    lines: tuple[str, ...]
    """In order."""


Block = Paragraph | Bullets | Table | Commands | Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is below it."""

    title: str
    """Plain text."""

    blocks: tuple[Block, ...]
    """In reading order."""

    varies: bool = False
    """It tells of this run and machine: another run of the same study says something else here."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    """Plain text."""

    lead: str
    """One or two sentences below the title."""

    sections: tuple[Section, ...]
    """In reading order."""

    def figures(self) -> list[Figure]:
        """All figures, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [block for block in blocks if isinstance(block, Figure)]


def as_text(document: Document) -> str:
    """Return the report for a terminal or a mail; figures are named."""
    parts = [f"{document.title}\n{'=' * len(document.title)}", _wrapped(document.lead)]
    for section in document.sections:
        parts.append(f"{section.title}\n{'-' * len(section.title)}")
        parts += [_text_block(block) for block in section.blocks]
    return "\n\n".join(filter(None, parts)) + "\n"


def _text_block(block: Block) -> str:
    match block:
        case Paragraph():
            return _wrapped(f"WARNING: {block.text}" if block.is_warning else block.text)
        case Bullets():
            return "\n".join(_wrapped(item, first="- ", next_lines="  ") for item in block.items)
        case Table():
            return _text_table(block)
        case Commands():
            return "\n".join(f"  $ {line}" for line in block.lines)
        case Figure():
            return _wrapped(f"[{block.name}.png, {block.name}.svg: {block.title}]")


def _wrapped(text: str, *, first: str = "", next_lines: str = "") -> str:
    return textwrap.fill(
        text,
        _TEXT_WIDTH,
        initial_indent=first,
        subsequent_indent=next_lines,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text_table(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]

    def row(cells: Sequence[str]) -> str:
        align = str.rjust if table.has_headings else str.ljust
        padded = [cells[0].ljust(widths[0])]
        padded += [align(cell, width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    head = [row(table.header), rule] if table.has_headings else []
    return "\n".join([*head, *(row(cells) for cells in table.rows)])


def as_markdown(document: Document) -> str:
    """Return the report for a repository or a paper's notes; figures are linked beside it."""
    parts = [f"# {_md(document.title)}", _md(document.lead)]
    for section in document.sections:
        parts.append(f"## {_md(section.title)}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"> **Warning:** {_md(block.text)}" if block.is_warning else _md(block.text)
        case Bullets():
            return "\n".join(f"- {_md(item)}" for item in block.items)
        case Table():
            rule = ["---"] + ["---:" if block.has_headings else "---"] * (len(block.header) - 1)
            cells = [[_md(cell) for cell in row] for row in (block.header, *block.rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]])
        case Commands():
            return "```console\n" + "\n".join(f"$ {line}" for line in block.lines) + "\n```"
        case Figure():
            return f"![{_md(block.title)}]({block.name}.svg)\n\n*{_md(block.caption)}*"


def _md(text: str) -> str:
    r"""Keep text that came from outside from being read as Markdown or HTML.

    >>> print(_md("a|b <i> *c* d_e"))
    a\|b &lt;i&gt; \*c\* d_e
    """
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return html.escape(" ".join(text.split()), quote=False)


def as_html(document: Document, drawings: Mapping[str, str]) -> str:
    """Return the report as one page that loads nothing.

    Args:
        document: What to write.
        drawings: SVG of each figure, by its name; a figure without one is left out.

    """
    sections = [
        report.Section(
            title=section.title,
            body="\n".join(_html_block(block, drawings) for block in section.blocks),
        )
        for section in document.sections
    ]
    return report.report_page(title=document.title, subtitle=document.lead, sections=sections)


def _html_block(block: Block, drawings: Mapping[str, str]) -> str:
    escape: Callable[[str], str] = html.escape
    match block:
        case Paragraph():
            kind = ' class="warning"' if block.is_warning else ""
            return f"<p{kind}>{escape(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"
        case Table():
            head = f"<thead>{_html_row('th', block.header)}</thead>" if block.has_headings else ""
            kind = "" if block.has_headings else ' class="settings"'
            rows = "".join(_html_row("td", row) for row in block.rows)
            return f'<div class="scroll"><table{kind}>{head}<tbody>{rows}</tbody></table></div>'
        case Commands():
            return f"<pre>{escape(chr(10).join(f'$ {line}' for line in block.lines))}</pre>"
        case Figure():
            drawing = drawings.get(block.name, "")
            caption = f"<figcaption>{escape(block.caption)}</figcaption>"
            return f"<figure>{drawing}{caption}</figure>" if drawing else ""


def _html_row(tag: str, cells: Sequence[str]) -> str:
    first, *others = map(html.escape, cells)
    numbers = "".join(f'<{tag} class="number">{cell}</{tag}>' for cell in others)
    return f"<tr><{tag}>{first}</{tag}>{numbers}</tr>"
