"""The command that publishes a network on the Hugging Face Hub."""

from pathlib import Path

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say


def push(
    repo: str,
    checkpoint_path: Path | None = None,
    record: Path | None = None,
    space: bool = False,
    private: bool = False,
    dry_run: bool = False,
    out: Path = Path("exports/hub"),
    data_dir: Path | None = None,
) -> None:
    """Publish a network on the Hugging Face Hub, with its card, ONNX files and report.

    The token is that of `hf auth login` or of HF_TOKEN.

    Args:
        repo: USER/NAME of the repository; made where there is none.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        record: Folder of the run that made the weights, where it is not beside them.
        space: Publish the web page too, as a Space of the same name.
        private: Make the new repositories private.
        dry_run: Write and check the folders, and push nothing.
        out: Where the folders are written: model/ and space/ below it.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
    """
    from resnet_cifar100.export.hub import check_access, check_name, push_folder
    from resnet_cifar100.export.release import (
        check_folder,
        write_model_folder,
        write_space_folder,
    )
    from resnet_cifar100.runtime import keep_freed_memory

    check_name(repo)
    token = None if dry_run else check_access(repo)
    keep_freed_memory()
    checkpoint_path = checkpoint_path or default_checkpoint()
    folders = {"model": out / "model"}
    write_model_folder(folders["model"], repo, checkpoint_path, record, data_dir, say)
    if space:
        folders["space"] = out / "space"
        write_space_folder(folders["space"], repo, folders["model"])
    for kind, folder in folders.items():
        names = check_folder(folder, kind, token)
        size = sum((folder / name).stat().st_size for name in names) / 1e6
        say(f"{folder}: {len(names)} files, {size:.1f} MB, checked.")
    if token is None:
        say("Nothing was pushed: this was a dry run.")
        return
    for kind, folder in folders.items():
        say(f"Pushing {folder} to {repo} ({kind}) ...")
        say(push_folder(folder, repo, kind, token, private=private))
