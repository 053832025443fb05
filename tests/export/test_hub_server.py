import json

from tests.export.hub_store import Fault, Repo, environment
from tests.processes import run

PRELUDE = """
import json, sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd as Add, CommitOperationDelete as Delete
from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

api, name = HfApi(), "tester/net"

def failure(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except Exception as error:
        cause = error.__cause__ or error
        return [type(error).__name__, getattr(getattr(cause, "response", None), "status_code", 0)]
    return None

def commit(*operations, **keywords):
    return api.create_commit(name, operations, commit_message="more", **keywords)
"""
WEIGHTS = bytes(range(256)) * 4096
FILES = {"README.md": b"---\nlicense: mit\n---\n", "a b/c.json": b"{}", "w.safetensors": WEIGHTS}


def client(hub, folder, script):
    """Run a script in a process of its own; what it says as JSON in its last line."""
    done = run("-c", PRELUDE + script, cwd=folder, **environment(hub, folder / "home"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def write_files(folder):
    for path, content in FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)


def paths_of(hub):
    return [(each.method, each.path.split("?")[0], each.status) for each in hub.requests]


def test_commits_come_back_byte_for_byte_and_old_revisions_stay(hub, tmp_path):
    write_files(tmp_path)
    said = client(
        hub,
        tmp_path,
        """
files = ["README.md", "a b/c.json", "w.safetensors"]
api.create_repo(name)
api.create_repo(name, exist_ok=True)
first = commit(*[Add(path, path) for path in files], Add("x.png", b"png")).oid
snapshot = Path(snapshot_download(name))
again = commit(*[Add(path, path) for path in files]).oid
second = commit(Delete("x.png"), Delete("a b/"), Add("empty.onnx", b""), parent_commit=first).oid
old = hf_hub_download(name, "x.png", revision=first)
print(json.dumps({
    "commits": [first, again, second],
    "now": api.list_repo_files(name),
    "then": api.list_repo_files(name, revision=first),
    "head": api.model_info(name).sha,
    "same": [(snapshot / path).read_bytes() == Path(path).read_bytes() for path in files],
    "old": Path(old).read_bytes().decode(),
    "gone": failure(hf_hub_download, name, "x.png"),
}))
""",
    )
    first, again, second = said["commits"]
    assert (
        again == first != second == said["head"] == hub.repos["model", "tester/net"].at("main").sha
    )
    assert said["then"] == [".gitattributes", *FILES, "x.png"]
    assert said["now"] == [".gitattributes", "README.md", "empty.onnx", "w.safetensors"]
    assert said["same"] == [True] * 3
    assert said["old"] == "png"
    assert said["gone"] == ["RemoteEntryNotFoundError", 404]
    messages = [each.message for each in hub.repos["model", "tester/net"].revisions]
    assert messages == ["initial commit", "more", "more"]
    calls = [f"{method} {path.rsplit('/', 1)[0]}" for method, path, _ in paths_of(hub)[2:8]]
    assert calls[:3] == [
        "POST /api",
        "POST /api/models/tester/net/preupload",
        "POST /tester/net.git/info/lfs/objects",
    ]
    assert calls[3:] == ["PUT /lfs", "PUT /lfs", "POST /api/models/tester/net/commit"]


def test_the_model_mixin_loads_from_it(hub, tmp_path):
    said = client(
        hub,
        tmp_path,
        """
import torch
from huggingface_hub import PyTorchModelHubMixin

class Net(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, width: int = 1):
        super().__init__()
        self.layer = torch.nn.Linear(width, 2)

net = Net(width=3)
net.push_to_hub(name, private=True)
loaded = Net.from_pretrained(name)
print(json.dumps(torch.equal(loaded.layer.weight, net.layer.weight)))
""",
    )
    assert said is True
    assert hub.repos["model", "tester/net"].private


def test_what_is_not_allowed_is_refused(hub, tmp_path):
    hub.repos["model", "tester/net"] = Repo()
    hub.repos["model", "tester/secret"] = Repo(private=True)
    hub.repos["model", "other/net"] = Repo()
    said = client(
        hub,
        tmp_path,
        """
stranger = HfApi(token="hf_wrong")
print(json.dumps([
    failure(stranger.whoami),
    failure(stranger.create_repo, "tester/new"),
    failure(stranger.create_commit, name, [Add("a", b"a")], commit_message="more"),
    failure(api.create_repo, name, token=False),
    failure(api.create_repo, "other/new"),
    failure(api.create_commit, "other/net", [Add("a", b"a")], commit_message="more"),
    failure(api.model_info, "tester/secret", token=False),
    failure(hf_hub_download, "tester/secret", "a", token=False),
    failure(api.model_info, "tester/secret"),
    failure(api.create_repo, name),
    failure(api.model_info, name, revision="0" * 40),
    failure(commit, Add("a", b"a"), parent_commit="0" * 40),
    failure(commit, Delete("a")),
    failure(api.create_repo, "tester/demo", repo_type="space", space_sdk="gradio"),
    failure(api.space_info, "tester/demo"),
]))
""",
    )
    unknown = ["RepositoryNotFoundError", 404]
    assert said[:4] == [["HfHubHTTPError", 401]] * 4
    assert said[4:6] == [["HfHubHTTPError", 403]] * 2
    assert said[6:9] == [unknown, unknown, None]
    assert said[9:12] == [
        ["HfHubHTTPError", 409],
        ["RevisionNotFoundError", 404],
        ["HfHubHTTPError", 412],
    ]
    assert said[12:] == [["RemoteEntryNotFoundError", 404], None, None]
    assert all(len(repo.revisions) == 1 for repo in hub.repos.values())
    assert hub.repos["space", "tester/demo"].sdk == "gradio"


def test_a_commit_that_fails_on_the_way_leaves_the_previous_revision(hub, tmp_path):
    write_files(tmp_path)
    hub.repos["model", "tester/net"] = Repo()
    hub.faults = [
        Fault("POST", "/commit/", 500),
        Fault("PUT", "/lfs/", "reset"),
        Fault("PUT", "/lfs/", 403),
        Fault("PUT", "/lfs/", 200),
    ]
    said = client(
        hub,
        tmp_path,
        """
def upload():
    return failure(commit, Add("w.safetensors", "w.safetensors"), Add("a", b"a"))

broken = failure(commit, Add("a", b"a"))
print(json.dumps([broken, upload(), upload(), api.list_repo_files(name)]))
""",
    )
    # The reset upload is tried again after a second and forbidden; then one gets lost on the way.
    assert said[0] == ["HfHubHTTPError", 500]
    assert said[1] == ["RuntimeError", 403]
    assert said[2] == ["BadRequestError", 400]
    assert said[3] == [".gitattributes"]
    puts = [each.status for each in hub.requests if each.method == "PUT"]
    assert puts == ["reset", 403, 200]
    assert hub.objects == {}


def test_broken_connections_are_mended_by_the_client(hub, tmp_path):
    write_files(tmp_path)
    hub.repos["model", "tester/net"] = Repo()
    hub.faults = [Fault("PUT", "/lfs/", "reset"), Fault("GET", r"/resolve/.*\.saf", "hang up")]
    said = client(
        hub,
        tmp_path,
        """
from huggingface_hub.utils import get_session

commit(Add("w.safetensors", "w.safetensors"))
content = Path(hf_hub_download(name, "w.safetensors")).read_bytes()
address = f"{api.endpoint}/{name}/resolve/main/w.safetensors"
parts = [get_session().get(address, headers={"Range": f"bytes={span}"}) for span in ("9-10", "9-")]
print(json.dumps([content == Path("w.safetensors").read_bytes(), parts[0].content.hex(),
    parts[0].headers["Content-Range"], parts[1].content == content[9:]]))
""",
    )
    assert said == [True, "090a", f"bytes 9-10/{len(WEIGHTS)}", True]
    # The client resumes from the last whole 10 MB, so a smaller file is sent again from its start.
    gets = [each.status for each in hub.requests if each.method == "GET"]
    assert gets == ["hang up", 200, 206, 206]
    assert [each.status for each in hub.requests if each.method == "PUT"] == ["reset", 200]
