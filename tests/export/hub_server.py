"""A loopback stand-in for the Hugging Face Hub that the real huggingface_hub client talks to."""

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.export.hub_store import Fault, HubError, Repo, entry_of, is_large

USER = "tester"
TOKEN = "hf_" + "fAkEtOkEn0123456789abcdefghijklmnop"[:34]

API = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
SITE = r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+?)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create"),
    ("GET", rf"{API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{SITE}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_store"),
    ("GET", rf"{SITE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


# What came, with the status it got or the kind of fault that met it.
Request = namedtuple("Request", "method path status headers")


class HubServer(ThreadingHTTPServer):
    """The Hub on a free loopback port; a context manager."""

    def __init__(self, token=TOKEN):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.token = token
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def take_fault(self, method, path):
        """The first fault that matches and has times left, with one time fewer, or None."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def page(self, kind, name):
        """The address of a repository."""
        return f"{self.url}/{name}" if kind == "model" else f"{self.url}/{kind}s/{name}"

    def has_object(self, oid, size):
        """Whether an LFS object came whole: its size and its sha256 are those announced."""
        content = self.objects.get(oid, b"")
        return len(content) == size and hashlib.sha256(content).hexdigest() == oid


class Handler(BaseHTTPRequestHandler):
    """One connection; a route's method returns bytes or what to send as JSON, or refuses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def handle(self):
        """Serve until either side closes; a client may go at any moment."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def answer(self):
        """Read a request whole, then answer it, unless a fault is due."""
        self.hub, self.status, self.fields = self.server, 200, {}
        self.token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        fault = self.hub.take_fault(self.command, self.path)
        kind = fault.status if fault else None
        length = int(self.headers["Content-Length"] or 0)
        self.body = self.rfile.read(length // 2 if kind == "reset" else length)
        if kind == "reset":
            self.note(kind)
            return self.reset()
        if len(self.body) < length:
            raise ConnectionError("the client hung up")
        if kind in (None, "hang up"):
            with self.hub.lock:
                content = self.content()
        else:
            self.status, self.fields, content = kind, fault.headers, fault.body
        self.note(kind or self.status)
        return self.send(content, kind == "hang up")

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def note(self, status):
        """Write the request down."""
        self.hub.requests.append(Request(self.command, self.path, status, self.headers))

    def reset(self):
        """Close the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def send(self, content, hang_up):
        """Send an answer, or its headers and half of its body."""
        self.send_response(self.status)
        for key, value in ({"Content-Length": str(len(content))} | self.fields).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if hang_up else content)
        self.close_connection |= hang_up

    def content(self):
        """Call the route; the body of its answer or of its refusal, in bytes."""
        path, method = urlsplit(self.path).path, self.command.replace("HEAD", "GET")
        try:
            if self.token not in ("", self.hub.token):
                raise HubError(401, "Invalid credentials in Authorization header")
            body = self.route(method, path)
        except (ValueError, KeyError, TypeError) as error:
            self.status, body = 400, {"error": f"Bad request: {error!r}"}
        except HubError as refusal:
            self.status, body = refusal.status, refusal.body
            self.fields |= refusal.headers
        if isinstance(body, bytes):
            return body
        self.fields["Content-Type"] = "application/json"
        return json.dumps(body).encode()

    def route(self, method, path):
        """Call the method of the route with the named parts of the path."""
        for verb, pattern, name in ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value}
                return getattr(self, name)(**parts)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def writer(self, namespace=USER):
        """Refuse a writer without a token or under another user's name."""
        if not self.token:
            raise HubError(401, "Invalid username or password.")
        if namespace != USER:
            raise HubError(403, f"You don't have the rights to write under {namespace}")

    def repo(self, kind, name, write=False):
        """The repository, which the token's owner alone sees where it is private."""
        if write:
            self.writer(name.split("/")[0])
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self.token):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repo

    def whoami(self):
        """Who the token belongs to."""
        self.writer()
        return {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}

    def validate_yaml(self):
        """Find no fault with any README; a Fault with a body of errors can."""
        return {"errors": [], "warnings": []}

    def create(self):
        """Create a repository; a Space has to name its SDK."""
        wanted = json.loads(self.body)
        kind, namespace = wanted.get("type") or "model", wanted.get("organization") or USER
        self.writer(namespace)
        name = f"{namespace}/{wanted['name']}"
        about = {"name": name, "url": self.hub.page(kind, name)}
        if (kind, name) in self.hub.repos:
            raise HubError(409, f"You already created this {kind} repo", **about)
        if kind == "space" and not wanted.get("sdk"):
            raise HubError(400, '"sdk" is required')
        self.hub.repos[kind, name] = Repo(wanted.get("visibility") == "private", wanted.get("sdk"))
        return about

    def info(self, kind, name, revision="main"):
        """What repo_info asks for, with the names of the files alone."""
        repo = self.repo(kind, name)
        found = repo.at(revision)
        files = [{"rfilename": path} for path in sorted(found.files)]
        about = {"id": name, "sha": found.sha, "private": repo.private, "siblings": files}
        return about | ({"sdk": repo.sdk} if repo.sdk else {})

    def tree(self, kind, name, revision):
        """Every file of a revision."""
        files = self.repo(kind, name).at(revision).files
        return [entry_of(path, files[path]) for path in sorted(files)]

    def preupload(self, kind, name, revision):
        """Say of each file how it is to be sent, and what is already at its path."""
        files, answers = self.repo(kind, name, write=True).at(revision).files, []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            mode = "lfs" if is_large(path, wanted["size"]) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
            if path in files:
                entry = entry_of(path, files[path])
                answers[-1]["oid"] = entry.get("lfs", entry)["oid"]
        return {"files": answers}

    def lfs_batch(self, name, kind="model"):
        """Say where each large file goes; the transfer is always basic."""
        self.repo(kind, name, write=True)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answers.append({"oid": wanted["oid"], "size": wanted["size"]})
            if not self.hub.has_object(**answers[-1]):
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                answers[-1]["actions"] = {"upload": {"href": href}}
        return {"transfer": "basic", "objects": answers}

    def lfs_store(self, oid):
        """Keep what came under the oid announced; the commit checks what it is."""
        self.hub.objects[oid] = self.body
        return b""

    def commit(self, kind, name, revision):
        """Add the whole commit as a new revision, or nothing."""
        repo = self.repo(kind, name, write=True)
        head = repo.at(revision)
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        if revision != "main" or header["key"] != "header" or not header["value"]["summary"]:
            raise HubError(400, "A commit goes to main and starts with a header with a summary")
        if header["value"].get("parentCommit", head.sha) != head.sha:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            self.apply(files, operation["key"], **operation["value"])
        sha = repo.add(header["value"]["summary"], files).sha
        address = f"{self.hub.page(kind, name)}/commit/{sha}"
        return {"success": True, "commitOid": sha, "commitUrl": address}

    def apply(self, files, key, path, content="", oid="", size=None, **_):
        """Apply one operation of a commit to the files."""
        if key == "file":
            files[path] = base64.b64decode(content, validate=True)
        elif key == "lfsFile":
            if not self.hub.has_object(oid, size):
                raise HubError(400, f"LFS object {oid} is missing or is not what it says")
            files[path] = self.hub.objects[oid]
        elif key in ("deletedFile", "deletedFolder"):
            folder = path.rstrip("/") + "/"
            gone = [each for each in files if each == path or each.startswith(folder)]
            if not gone:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            for each in gone:
                del files[each]
        else:
            raise HubError(400, f"Unknown operation {key}")

    def resolve(self, name, revision, path, kind="model"):
        """A file's bytes or the range asked for; large files are served here too."""
        found = self.repo(kind, name).at(revision)
        self.fields |= {"X-Repo-Commit": found.sha, "Accept-Ranges": "bytes"}
        if path not in found.files:
            raise HubError(404, "Entry not found", "EntryNotFound")
        content = found.files[path]
        entry = entry_of(path, content)
        self.fields["ETag"] = f'"{entry["oid"]}"'
        if "lfs" in entry:
            self.fields["X-Linked-Etag"] = f'"{entry["lfs"]["oid"]}"'
            self.fields["X-Linked-Size"] = str(entry["size"])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if not wanted:
            return content
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        self.status = 206 if first <= last else 416
        span = f"{first}-{last}" if first <= last else "*"
        self.fields["Content-Range"] = f"bytes {span}/{len(content)}"
        return content[first : last + 1]
