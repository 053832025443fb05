"""What the stand-in for the Hugging Face Hub keeps: repositories, revisions, files."""

import hashlib
from collections import namedtuple
from dataclasses import dataclass, field

LARGE_SUFFIXES = (".safetensors", ".onnx", ".png", ".npz", ".wasm")
LARGE_BYTES = 10_000_000
FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}

# One commit: everything the repository holds at it, as {path: bytes}.
Revision = namedtuple("Revision", "sha message files")


@dataclass
class Repo:
    """A repository with one branch, main; the last revision is its head."""

    private: bool = False
    sdk: str | None = None
    revisions: list[Revision] = field(default_factory=list)

    def __post_init__(self):
        if not self.revisions:
            self.add("initial commit", FIRST_FILES)

    def add(self, message, files):
        """Append a revision that holds exactly these files."""
        digest = hashlib.sha1(f"{len(self.revisions)} {message}".encode())
        for path in sorted(files):
            digest.update(path.encode() + hashlib.sha256(files[path]).digest())
        self.revisions.append(Revision(digest.hexdigest(), message, dict(files)))
        return self.revisions[-1]

    def at(self, name):
        """The revision of this name: main or a full commit sha."""
        named = {each.sha: each for each in self.revisions} | {"main": self.revisions[-1]}
        if name not in named:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return named[name]


@dataclass
class Fault:
    """What the next `times` requests get whose method is this and whose path has the pattern.

    The status is a number, or "reset", which resets the connection with the request half read, or
    "hang up", which does what is asked and closes the connection in mid-body of the true answer.
    """

    method: str
    pattern: str
    status: int | str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1


class HubError(Exception):
    """An error answer in the Hub's form."""

    def __init__(self, status, message, code=None, **fields):
        self.status, self.body = status, {"error": message, **fields}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


def is_large(path, size):
    """Whether the Hub keeps a file in LFS; the client sends empty files as regular ones."""
    return size > 0 and (path.endswith(LARGE_SUFFIXES) or size > LARGE_BYTES)


def entry_of(path, content):
    """A file as the tree route shows it; an LFS file's oid is that of its pointer."""
    entry = {"type": "file", "path": path, "size": len(content)}
    if is_large(path, len(content)):
        sha256, head = hashlib.sha256(content).hexdigest(), "https://git-lfs.github.com/spec/v1"
        content = f"version {head}\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        entry["lfs"] = {"oid": sha256, "size": entry["size"], "pointerSize": len(content)}
    return entry | {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


def environment(server, folder):
    """The variables of a client process that knows this Hub alone and keeps to this folder.

    The client uploads through xet wherever hf_xet is installed, whatever the server says.
    """
    ours = {"ENDPOINT": server.url, "HOME": str(folder), "TOKEN": server.token}
    switches = ["HUB_DISABLE_XET", "HUB_DISABLE_PROGRESS_BARS", "HUB_DISABLE_TELEMETRY"]
    ours |= dict.fromkeys(switches, "1")
    return {f"HF_{key}": value for key, value in ours.items()}
