"""The command line: one function a command, its heavy imports inside, so that --help is quick."""

import inspect
import re
import sys
from collections.abc import Callable, Sequence

import tyro

from resnet_cifar100.cli.bench import bench
from resnet_cifar100.cli.export import export
from resnet_cifar100.cli.measure import calibrate, evaluate, predict
from resnet_cifar100.cli.publish import push
from resnet_cifar100.cli.report import analyze, compare
from resnet_cifar100.cli.screen import discard_output, say, show_fault
from resnet_cifar100.cli.serve import app
from resnet_cifar100.cli.show import info, log, record, samples
from resnet_cifar100.cli.train import train
from resnet_cifar100.errors import ConfigError, ProjectError

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "info": info,
    "samples": samples,
    "log": log,
    "record": record,
    "analyze": analyze,
    "compare": compare,
    "calibrate": calibrate,
    "export": export,
    "push": push,
    "bench": bench,
    "app": app,
}


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; docs/architecture.md lists the codes."""
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command not in COMMANDS:
        return _show_commands(command)
    try:
        if command == "train":
            train(rest)
        elif command == "push" and any(map(_is_token, rest)):
            raise ConfigError(  # before it is repeated in a message about unknown flags
                "push takes no token on the command line, where others can read it: "
                "run `hf auth login`, or set HF_TOKEN"
            )
        else:
            handler = COMMANDS[command]
            # tyro would keep the line breaks of the text about an argument.
            handler.__doc__ = re.sub(r"\n {8}(?=\S)", " ", inspect.getdoc(handler) or "")
            tyro.cli(handler, args=rest, prog=f"python -m resnet_cifar100 {command}")
        sys.stdout.flush()
    except ProjectError as error:
        show_fault(str(error))
        return error.exit_code
    except SystemExit as stop:  # tyro has shown the help (0) or what is wrong with the flags
        return ConfigError.exit_code if stop.code else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        discard_output()
        return 0
    return 0


def _is_token(word: str) -> bool:
    return word.startswith("--token") or re.search(r"\bhf_[A-Za-z0-9]{20}", word) is not None


def _show_commands(asked: str) -> int:
    say("Usage: python -m resnet_cifar100 COMMAND [--help]\n")
    for name, handler in COMMANDS.items():
        say(f"  {name:<10} {(handler.__doc__ or '').splitlines()[0]}")
    if asked in ("-h", "--help", "help"):
        return 0
    show_fault(f"\nThere is no command {asked}.")
    return ConfigError.exit_code
