"""Tables as values, written for a screen, in Markdown and in LaTeX."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

ESCAPED = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "²": r"\textsuperscript{2}",
    "·": r"\textperiodcentered{}",
}


class Sheet(NamedTuple):
    """A table: its cells are text."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: tuple[str, ...] = ()
    text_columns: int = 2
    """The first ones, which are aligned to the left."""


def screen(sheet: Sheet) -> Table:
    table = Table(title=Text(sheet.title), caption=Text("\n".join(sheet.notes)), caption_justify="left")
    for position, heading in enumerate(sheet.headings):
        table.add_column(heading, justify="left" if position < sheet.text_columns else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def markdown_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 2) -> str:
    """A table in Markdown; the columns after the first ``text_columns`` are aligned to the right."""
    ruler = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [headings, ruler, *rows]
    )


def markdown(sheet: Sheet) -> str:
    notes = "".join(f"\n- {note}" for note in sheet.notes)
    body = markdown_rows(sheet.headings, sheet.rows, sheet.text_columns)
    return f"### {sheet.title}\n\n{body}\n" + (f"{notes}\n" if notes else "")


def latex(sheet: Sheet) -> str:
    """A ``table`` with its title as caption and its notes below; needs no package."""
    columns = "l" * sheet.text_columns + "r" * (len(sheet.headings) - sheet.text_columns)
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in [sheet.headings, *sheet.rows]]
    body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    notes = "".join(f"\n\\par\\smallskip {escaped(note)}" for note in sheet.notes)
    caption = escaped(sheet.title)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{tabular}}\n\\footnotesize{notes}\n"
        "\\end{table}\n"
    )


def escaped(text: str) -> str:
    """Text in which no character means something to TeX."""
    return "".join(ESCAPED.get(character, character) for character in text)
