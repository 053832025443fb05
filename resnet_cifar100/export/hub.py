"""The Hugging Face Hub: a folder becomes a repository's next revision, all of it or nothing.

The token comes from $HF_TOKEN or from `hf auth login`, and goes nowhere but into the requests: what
the server answers is not repeated either, since it might hold it.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

# The plain upload over HTTP, which answers with a status, and which the tests exercise; the other
# is a program of its own. To be said before huggingface_hub is imported for the first time.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_session,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from resnet_cifar100.errors import ConfigError, ExportError
from resnet_cifar100.export.release import MANIFEST, check_folder, is_allowed

SECONDS = 60.0  # without a sign of life, after which a request is given up
_OF_THE_HUB = {".gitattributes", "README.md"}  # what a repository made on the website may hold
_KNOWN = (HfHubHTTPError, httpx2.HTTPError, OSError)
_REASONS = {
    401: "the Hub does not accept the token; run `hf auth login`, or set HF_TOKEN to a valid one",
    403: "the token may not write there; --repo must be below your own name or an organisation of "
    "yours, and the token needs the right to write",
    404: "there is no such place for this token; look at the name that --repo gives",
    409: "it was changed by somebody else meanwhile; push again",
    412: "it was changed by somebody else meanwhile; push again",
    429: "the Hub has had too many requests; wait a few minutes and push again",
}


def check_access(repo: str) -> str:
    """Return the token, which the Hub knows.

    Raises:
        ConfigError: for a name that no repository can have.
        ExportError: where there is no token, or the Hub cannot be reached or does not accept it.
    """
    check_name(repo)
    token = get_token()
    if token is None:
        raise ExportError("There is no token: run `hf auth login`, or set HF_TOKEN.")
    get_session().timeout = SECONDS
    with _one_sentence(repo):
        HfApi().whoami()
    return token


def check_name(repo: str) -> None:
    """Refuse with a ConfigError what is not USER/NAME."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        is_valid = False
    else:
        is_valid = repo.count("/") == 1
    if not is_valid:
        raise ConfigError(
            f"--repo must be USER/NAME, of letters, digits, '-', '_', '.': got {repo}"
        )


def push_folder(folder: Path, repo: str, kind: str, token: str, *, private: bool) -> str:
    """Make `folder` the next revision of a repository, made where there is none; return its URL.

    `kind` is model or space. Files of an earlier push that `folder` lacks go; foreign files stay.
    An interrupted push leaves the revision before it.

    Raises:
        ExportError: for a folder that is not as it was written, a repository that holds something
            else or is public against `private`, and whatever the Hub answers.
    """
    names = check_folder(folder, kind, token)
    api = HfApi()
    with _one_sentence(repo):
        api.create_repo(
            repo,
            repo_type=kind,
            private=private,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        found = api.repo_info(repo, repo_type=kind)
        theirs = set(api.list_repo_files(repo, repo_type=kind))
    if private and not found.private:
        raise ExportError(f"{repo} exists and is public; make it private on the Hub first")
    foreign = sorted(theirs & set(names) - _OF_THE_HUB)
    if foreign and MANIFEST not in theirs:
        raise ExportError(
            f"{repo} holds {foreign[0]}, which no push of this project wrote; name another --repo"
        )
    stale = [name for name in theirs - set(names) if is_allowed(name, kind)]
    with _one_sentence(repo):
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, folder / name) for name in names),
                *(CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=_message(folder),
            repo_type=kind,
            parent_commit=found.sha,
        )
    return str(commit.repo_url)


def _message(folder: Path) -> str:
    made_by = json.loads((folder / MANIFEST).read_text())["made_by"]
    return f"Publish with {made_by}"


@contextlib.contextmanager
def _one_sentence(repo: str) -> Iterator[None]:
    """Turn whatever the client raises into an ExportError of one sentence."""
    try:
        yield
    except (*_KNOWN, ValueError, RuntimeError) as error:
        raise ExportError(f"{repo} was not pushed: {_reason(error)}.") from None


def _reason(error: BaseException) -> str:
    """Return why a request failed, without a word of the server's."""
    while not isinstance(error, _KNOWN) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps some of its faults
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status >= 500:
            return f"the Hub has a fault (status {status}); push again later"
        return _REASONS.get(status, f"the Hub refuses the request (status {status})")
    if isinstance(error, httpx2.TimeoutException):
        return f"the Hub did not answer for {SECONDS:.0f} seconds; push again later"
    if isinstance(error, _KNOWN):
        return f"the Hub cannot be reached ({type(error).__name__}); push again when it can"
    return f"the Hub's client failed ({type(error).__name__})"
