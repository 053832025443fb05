"""The Hugging Face Hub: a folder becomes a repository's next revision, all of it or nothing.

The token comes from $HF_TOKEN or from `hf auth login`, and goes nowhere but into the requests: what
the server answers is not repeated either, by this project or by the client, since it might hold it.
"""

import contextlib
import os
import tempfile
import warnings
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
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import logging, validate_repo_id  # type: ignore[attr-defined]

from resnet_cifar100 import __version__
from resnet_cifar100.errors import ConfigError, ExportError
from resnet_cifar100.export.release import MANIFEST, check_folder, read_manifest

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # else it shows what a server warns of
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
        ExportError: where there is no token, or the Hub cannot be reached or does not accept it.
    """
    with _one_sentence(repo):
        token = get_token()
    if token is None:
        raise ExportError("There is no token: run `hf auth login`, or set HF_TOKEN.")
    get_session().timeout = SECONDS
    with _one_sentence(repo):
        HfApi(token=token).whoami()
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

    `kind` is model or space. Files of the push before that `folder` lacks go; foreign files stay.
    An interrupted push leaves the revision before it.

    Raises:
        ExportError: for a folder that is not as it was written, a repository that holds something
            else or is public against `private`, and whatever the Hub answers.
    """
    names = check_folder(folder, kind, token)
    api = HfApi(token=token)
    with _one_sentence(f"{repo} ({kind})"):
        api.create_repo(
            repo,
            repo_type=kind,
            private=private or None,  # None leaves it to an organisation's own rule
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        found = api.repo_info(repo, repo_type=kind, timeout=SECONDS)
        theirs = {file.rfilename for file in getattr(found, "siblings", None) or []}
        ours = _pushed_before(repo, kind, found.sha, token) if MANIFEST in theirs else set()
    if private and not found.private:
        raise ExportError(f"{repo} exists and is public; make it private on the Hub first")
    is_fresh = theirs <= _OF_THE_HUB
    if not is_fresh and (foreign := sorted(theirs & set(names) - ours)):
        raise ExportError(
            f"{repo} holds {foreign[0]}, which no push of this project wrote; name another --repo"
        )
    with _one_sentence(f"{repo} ({kind})"):
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, folder / name) for name in names),
                *(CommitOperationDelete(name) for name in sorted(theirs & ours - set(names))),
            ],
            commit_message=f"Publish with resnet_cifar100 {__version__}",
            repo_type=kind,
            parent_commit=found.sha,
        )
    return str(commit.repo_url)


def _pushed_before(repo: str, kind: str, revision: str | None, token: str) -> set[str]:
    """Return the files that the last push of this project wrote; none where there was none."""
    with tempfile.TemporaryDirectory() as cache:
        path = hf_hub_download(
            repo, MANIFEST, repo_type=kind, revision=revision, token=token, cache_dir=cache
        )
        return {MANIFEST, *files} if (files := read_manifest(Path(path).parent)) else set()


@contextlib.contextmanager
def _one_sentence(repo: str) -> Iterator[None]:
    """Turn whatever the client raises into an ExportError of one sentence; show no warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the server's own words among them
            yield
    except Exception as error:  # the client does not expect every answer that there is
        raise ExportError(f"{repo} was not pushed: {_reason(error)}.") from None


def _reason(error: BaseException) -> str:
    """Return why a request failed, without a word of the server's."""
    while not isinstance(error, _KNOWN) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps some of its faults
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status >= 500:
            return f"the Hub has a fault (status {status}); push again later"
        other = f"the Hub refuses the request (status {status}); look at status.huggingface.co"
        return _REASONS.get(status, other)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids it; unset it and push again"
    if isinstance(error, httpx2.TimeoutException):
        return f"the Hub did not answer for {SECONDS:.0f} seconds; push again later"
    if isinstance(error, _KNOWN):
        return f"the Hub cannot be reached ({type(error).__name__}); push again when it can"
    return f"the Hub's answer was not understood ({type(error).__name__}); push again later"
