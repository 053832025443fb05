"""The project's own way to the Hub, in a process that knows one Hub alone."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.export.hub_server import HubServer
from tests.export.hub_store import environment
from tests.processes import surroundings

SCRIPT = """
import json, sys
from pathlib import Path
from resnet_cifar100.errors import ProjectError
from resnet_cifar100.export.hub import check_access, push_folder

for line in sys.stdin:
    folder, tries, private = json.loads(line)
    said = []
    for _ in range(tries):
        try:
            token = check_access("tester/net")
            said.append(push_folder(Path(folder), "tester/net", "model", token, private=private))
        except ProjectError as error:
            said.append(str(error))
    print(json.dumps(said), flush=True)
"""


@contextlib.contextmanager
def pushing(hub: HubServer, home: Path) -> Iterator[Callable[..., list[str]]]:
    """Give a function that pushes a folder some times and returns the URL or sentence of each.

    The token is looked for in all that the process says.
    """
    complaints = home / "stderr"
    with (
        complaints.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=surroundings(**environment(hub, home)),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):

        def push(folder: Path, tries: int = 1, *, private: bool = False) -> list[str]:
            print(json.dumps([str(folder), tries, private]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, complaints.read_text()
            assert hub.token not in answer + complaints.read_text()
            return json.loads(answer)

        yield push
        process.stdin.close()
        assert process.wait(20) == 0
        assert hub.token not in complaints.read_text()
