"""What the commands print through."""

from rich.console import Console

console = Console()


def say(text: object, style: str = "") -> None:
    """Print a sentence as it is: no colours guessed into it, wrapped by the terminal alone."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
