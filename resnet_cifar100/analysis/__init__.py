"""Understanding a run: figures from its record."""
