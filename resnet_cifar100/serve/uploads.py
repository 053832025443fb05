"""Pictures that visitors of the page have uploaded: a few, for a minute."""

import secrets
import time
from pathlib import Path

MOST = 200  # at 5 MB each, a gigabyte at worst
SECONDS = 60.0
GONE = "The picture is not there (any more): upload it again."
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Uploads:
    """A private folder. What lies in it when this is made stays; the rest is swept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._kept = set(self._files())

    def add(self, content: bytes, name: str) -> Path:
        """Keep a picture for a minute. Of the visitor's name for it only a known ending is used."""
        found = [path for path in self._files() if path not in self._kept]
        for path in sorted(found, key=_age)[MOST - 1 :]:
            self._remove(path)
        suffix = Path(name.lower()).suffix
        folder = self.folder / secrets.token_hex(16)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a system may clean up there
        folder.mkdir()
        path = folder / f"picture{suffix if suffix in _SUFFIXES else '.png'}"
        path.write_bytes(content)
        return path

    def find(self, name: object) -> Path | None:
        """Return the file of that path if it is one of these."""
        try:
            path = Path(name).resolve(strict=True)  # type: ignore[arg-type]
            return path if path.is_relative_to(self.folder) and path.is_file() else None
        except (OSError, ValueError, TypeError, RuntimeError):
            return None

    def sweep(self) -> None:
        """Remove what has been here for its time."""
        for path in self._files():
            if path not in self._kept and _age(path) > SECONDS:
                self._remove(path)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if path.parent != self.folder and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
