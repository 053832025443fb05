"""Pieces of Markdown pages: tables, text and code in which nothing is markup, times."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

SYNTHETIC_WARNING = (
    "> **SYNTHETIC data: drawn shapes, not CIFAR-100.** "
    "No figure on this page says anything about CIFAR-100.\n"
)

_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def filled_columns(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table without columns of which nothing is to be said."""
    head = [name for name in rows[0] if any(row[name] for row in rows)]
    return head, [[row[name] for name in head] for row in rows]


def plain(value: object) -> str:
    """Return a value, a list as running text, so that nothing in it is Markdown, HTML or a line."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
    return _MARKS.sub(r"\\\g<0>", text)


def code(value: object) -> str:
    """Return a value as Markdown shows code, also in a table."""
    text = " ".join(str(value).split())
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def commit(stamp: Mapping[str, Any]) -> str:
    """Return the commit that an environment was recorded with, short; ? where none is known."""
    return code(str(stamp.get("commit") or "?")[:10])


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
