"""`push` with the Hub's real client, over HTTP, against tests/export/hub_server.py."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.cli import main
from resnet_cifar100.errors import ConfigError, ExportError
from resnet_cifar100.export import hub as hub_module
from resnet_cifar100.export.hub import check_access, check_name
from resnet_cifar100.export.release import _write_manifest
from tests.export.hub_server import TOKEN, Handler
from tests.export.hub_store import Fault, Repo, environment
from tests.export.pushing import pushing
from tests.processes import run

PUSH = ("-m", "resnet_cifar100", "push")
NET = ("model", "tester/net")
REPORTED = re.compile(r"tester/net (\(model\) )?was not pushed: ")


@pytest.fixture(scope="module")
def push(_running_hub, tmp_path_factory):
    with pushing(_running_hub, tmp_path_factory.mktemp("pushing")) as push_folder:
        yield push_folder


def content_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_command_pushes_what_it_wrote_and_strangers_can_use_it(hub, released, tmp_path):
    hub.repos |= released.repos
    assert f"{hub.url}/tester/net" in released.output
    for kind, written in (("model", released.model), ("space", released.space)):
        repo = hub.repos[kind, "tester/net"]
        assert repo.private
        assert len(repo.revisions) == 2  # one commit
        ours = content_of(written)
        assert repo.at("main").files == ours | {
            ".gitattributes": repo.at("main").files[".gitattributes"]
        }
        assert not any(TOKEN.encode() in content for content in ours.values())
    assert TOKEN not in released.output
    _use_as_the_card_says(hub, tmp_path, released)


def test_a_dry_run_writes_and_checks_the_folders_and_asks_the_hub_nothing(
    released, tmp_path, monkeypatch, capsys
):
    def write(folder, *_given):
        shutil.copytree(released.model, folder)

    monkeypatch.setattr("resnet_cifar100.export.release.write_model_folder", write)
    monkeypatch.setattr(hub_module, "check_access", None)
    monkeypatch.setattr(hub_module, "push_folder", None)
    words = ["push", "--repo", "tester/net", "--space", "--dry-run", "--out", str(tmp_path / "hub")]
    assert main([*words, "--checkpoint-path", str(released.checkpoint)]) == 0
    said = capsys.readouterr().out
    assert said.count("checked.") == 2
    assert "Nothing was pushed: this was a dry run." in said
    assert (tmp_path / "hub/space/app.py").is_file()


def _use_as_the_card_says(hub, folder, released):
    card = hub.repos[NET].at("main").files["README.md"].decode()
    without_torch, with_torch = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), np.uint8)
    np.save(folder / "images.npy", images)
    Image.fromarray(images[0].transpose(1, 2, 0)).save(folder / "picture.jpg")
    script = "import numpy, torch; images = torch.from_numpy(numpy.load('images.npy'))\n"
    script += with_torch + "numpy.save('logits.npy', logits.detach().numpy())\n" + without_torch
    home = environment(hub, folder / "home")
    done = run("-c", script, cwd=folder, **home, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(released.checkpoint)
    with torch.inference_mode():
        expected = bundle.logits(torch.from_numpy(images)).numpy()
    assert np.array_equal(np.load(folder / "logits.npy"), expected)
    assert done.stdout.split()[0] in bundle.fine_names


REFUSALS = [
    (401, "the Hub does not accept the token"),
    (403, "the token may not write there"),
    (404, "there is no such place"),
    (412, "changed by somebody else"),
    (429, "too many requests"),
    (418, "refuses the request (status 418)"),
    (500, "the Hub has a fault (status 500)"),
    (503, "the Hub has a fault (status 503)"),
    ("reset", "the Hub cannot be reached"),
]


def test_each_refusal_is_one_sentence_and_changes_nothing(hub, push, released):
    hub.repos[NET] = Repo()
    before = hub.repos[NET].at("main").sha
    body = json.dumps({"error": f"you sent {TOKEN}"}).encode()  # a server that repeats it
    headers = {"X-Error-Message": f"you sent {TOKEN}", "Content-Type": "application/json"}
    calls = [("GET", "whoami"), ("POST", "/commit/")]  # which the client does not try again
    for status, _ in REFUSALS:
        hub.faults += [Fault(method, path, status, headers, body) for method, path in calls]
    said = push(released.model, len(REFUSALS) * len(calls))
    for place in range(len(calls)):
        sentences = said[place * len(REFUSALS) :][: len(REFUSALS)]
        for (_, reason), sentence in zip(REFUSALS, sentences, strict=True):
            assert REPORTED.match(sentence)
            assert reason in sentence
            assert sentence.endswith(".")
            assert "\n" not in sentence
    assert hub.repos[NET].at("main").sha == before
    assert push(released.model) == [f"{hub.url}/tester/net"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/tester/net$"),
        ("POST", "validate-yaml"),
        ("POST", "/preupload/"),
        ("POST", "/objects/batch"),
        ("PUT", "/lfs/"),
        ("POST", "/commit/"),
    ],
)
def test_a_push_that_breaks_off_anywhere_leaves_the_revision_before_it(
    hub, push, released, method, path
):
    hub.repos[NET] = Repo()
    before = hub.repos[NET].at("main").sha
    hub.faults = [Fault(method, path, 403, times=1)]
    (sentence,) = push(released.model)
    reason = "the token may not write there"
    if path == "validate-yaml":  # whose status the client does not look at
        reason = "the Hub's answer was not understood (JSONDecodeError)"
    assert REPORTED.sub("", sentence).startswith(reason)
    assert hub.repos[NET].at("main").sha == before


def test_a_second_push_takes_away_what_the_first_had_and_leaves_strangers_files(
    hub, push, released, tmp_path
):
    first = Path(shutil.copytree(released.model, tmp_path / "first"))
    (first / "report/per_class.csv").rename(first / "report/per_kind.csv")
    _write_manifest(first, "model")
    assert push(first) == [f"{hub.url}/tester/net"]
    repo = hub.repos[NET]
    theirs = {"notes.txt": b"mine", "report/old.csv": b"1"}
    repo.add("by hand", repo.at("main").files | theirs)
    push(released.model)
    ours = content_of(released.model)
    assert set(repo.at("main").files) == {*ours, *theirs, ".gitattributes"}
    push(released.model)
    assert len(repo.revisions) == 4  # nothing has changed


def test_what_somebody_else_made_is_not_written_over(hub, push, released):
    hub.repos[NET] = Repo()
    for name in ("model.safetensors", "README.md"):
        hub.repos[NET].add("other", {name: b"theirs", "notes.txt": b"hello"})
        (sentence,) = push(released.model)
        assert f"tester/net holds {name}, which no push of this project wrote" in sentence
        assert hub.repos[NET].at("main").files[name] == b"theirs"
    hub.repos[NET].add("new", {"README.md": b"made on the website"})
    assert push(released.model) == [f"{hub.url}/tester/net"]


def test_a_commit_in_between_stops_the_push(hub, push, released, monkeypatch):
    hub.repos[NET], answer = Repo(), Handler.preupload

    def overtaken(self, kind, name, revision):
        answered, repo = answer(self, kind, name, revision), self.hub.repos[NET]
        repo.add("in between", repo.at("main").files | {"notes.txt": b"theirs"})
        return answered

    monkeypatch.setattr(Handler, "preupload", overtaken)
    (sentence,) = push(released.model)
    assert "changed by somebody else" in sentence
    assert "model.safetensors" not in hub.repos[NET].at("main").files


@pytest.mark.parametrize("manifest", [b"{}", b"[]", b"not JSON", b'{"made_by": "a", "files": {}}'])
def test_a_manifest_of_something_else_is_no_leave_to_write(hub, push, released, manifest):
    hub.repos[NET] = Repo()
    hub.repos[NET].add("other", {"model.safetensors": b"theirs", "manifest.json": manifest})
    (sentence,) = push(released.model)
    assert "which no push of this project wrote" in sentence
    assert hub.repos[NET].at("main").files["model.safetensors"] == b"theirs"


def test_what_the_server_says_beside_its_answers_is_not_shown(hub, push, released):
    said = json.dumps({"errors": [], "warnings": [{"message": TOKEN}]}).encode()
    hub.faults = [Fault("POST", "validate-yaml", 200, {"X-HF-Warning": f"t;{TOKEN}"}, said)]
    push(released.model)  # looks for the token in all that is shown
    assert hub.faults[0].times == 0


def test_answers_that_make_no_sense_are_one_sentence(hub, push, released):
    hub.repos[NET] = Repo()
    calls = [("POST", "repos/create"), ("GET", "/api/models/tester/net$"), ("POST", "/preupload/")]
    bodies = [b"{}", b"[]", b"<html>", b"null"]
    headers = {"Content-Type": "application/json"}
    for method, path in calls:
        hub.faults += [Fault(method, path, 200, headers, body) for body in bodies]
    said = push(released.model, len(calls) * len(bodies))
    assert not any("\n" in sentence for sentence in said)
    assert sum(sentence.startswith("tester/net") for sentence in said) >= 8


def test_private_is_kept_private(hub, push, released):
    hub.repos[NET] = Repo(private=False)
    (sentence,) = push(released.model, private=True)
    assert "exists and is public" in sentence
    assert len(hub.repos[NET].revisions) == 1


def test_planted_files_do_not_leave(hub, push, released, tmp_path):
    model = shutil.copytree(released.model, tmp_path / "model")
    (model / ".env").write_text(f"HF_TOKEN={TOKEN}")
    (sentence,) = push(model)
    assert ".env is not among the files that may leave" in sentence
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"HF_TOKEN": ""}, "There is no token: run `hf auth login`"),
        ({"HF_TOKEN": "hf_wrong"}, "the Hub does not accept the token"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids it"),
        ({"HF_TOKEN": "", "HF_TOKEN_PATH": "/"}, "the Hub cannot be reached (IsADirectoryError)"),
    ],
)
def test_the_command_fails_before_it_has_worked_for_long(
    hub, checkpoint, tmp_path, changes, reason
):
    words = [*PUSH, "--repo", "tester/net", "--checkpoint-path", checkpoint]
    done = run(*words, cwd=tmp_path, **environment(hub, tmp_path / "home") | changes)
    assert done.returncode == 7
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "exports").exists()
    assert TOKEN not in done.stdout + done.stderr


def test_a_token_on_the_command_line_is_refused_and_not_repeated(capsys):
    for words in (["--token", TOKEN], [f"--token={TOKEN}"], [f"--hf-token={TOKEN}"], [TOKEN]):
        assert main(["push", "--repo", "tester/net", *words]) == 3
        output, errors = capsys.readouterr()
        assert "push takes no token on the command line" in errors
        assert TOKEN not in output + errors


@pytest.mark.parametrize("name", ["net", "a/b/c", "a b/c", "../x", "user/", "user/net.git", ""])
def test_names_that_no_repository_can_have_are_refused(name):
    with pytest.raises(ConfigError, match="--repo must be USER/NAME"):
        check_name(name)


def test_the_reason_of_a_fault_that_the_client_wraps_is_found():
    assert "was not understood (ValueError)" in hub_module._reason(ValueError("anything"))
    error = RuntimeError("wrapped")
    error.__cause__ = ConnectionResetError()
    assert "cannot be reached (ConnectionResetError)" in hub_module._reason(error)
    with pytest.raises(ExportError, match="cannot be reached"), hub_module._one_sentence("a/b"):
        raise TimeoutError


def test_a_hub_that_says_nothing_is_given_up(monkeypatch):
    session = hub_module.get_session()
    monkeypatch.setattr(session, "timeout", session.timeout)  # which is brought back
    monkeypatch.setattr(hub_module, "SECONDS", 1.0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        with pytest.raises(ExportError, match="the Hub did not answer for 1 seconds"):
            check_access("tester/net")
