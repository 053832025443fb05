"""What can go wrong for a user, each with one sentence and its own exit code.

The command line prints the sentence and exits with the code; anything else that escapes is a bug
and shows a traceback.
"""


class ProjectError(Exception):
    """A fault that the user can act on; the message is a sentence, or a list of what to do."""

    exit_code = 1


class DataError(ProjectError):
    """The data set cannot be had, or its files are not what they should be."""

    exit_code = 2


class ConfigError(ProjectError, ValueError):
    """A setting is outside its range; the message names the field, the value and the range."""

    exit_code = 3


class CheckpointError(ProjectError):
    """A checkpoint is missing, damaged, of another run, or cannot be written."""

    exit_code = 4


class NonFiniteError(ProjectError):
    """The loss or the weights stopped being finite numbers; the message names the step."""

    exit_code = 5


class ImageError(ProjectError):
    """A picture is refused; the message says why."""

    exit_code = 6


class ExportError(ProjectError):
    """A network cannot be published, or a tool that an export needs is missing."""

    exit_code = 7


class LostProcessError(ProjectError):
    """Another process of the run has ended, so that this one cannot go on."""

    exit_code = 9


class InterruptedRunError(ProjectError):
    """A run ended early, with 8 where its time was up, or 128 plus the number of a signal.

    Under torchrun the code is 0 where time was up: it would start the run again after any other.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
