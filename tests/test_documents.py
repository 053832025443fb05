"""What README and docs say, as far as a program can tell: figures, links, commands."""

import dataclasses
import re
import shlex
import statistics
from pathlib import Path

import pytest

from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.config import BEST_MODEL
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.recipes import create_recipe
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def runs_of(row: str) -> list[Path]:
    """The folders of the runs that a row of the results links to; a table has none."""
    folders = (REPOSITORY / name for name in re.findall(r"\]\((records/[^/)]+)", row))
    return [folder for folder in folders if (folder / "run.json").exists()]


ROWS = [row for row in README.splitlines() if row.startswith("| `") and runs_of(row)]
PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_the_readme_states_what_its_records_say(row):
    runs = list(map(load_record, runs_of(row)))
    top1 = [100 * run.result["test/top1"] for run in runs]
    stated, spread = re.search(r"(\d+\.\d\d)%(?:\*\*)?(?: ± (\d\.\d\d))?", row).groups()
    assert float(stated) == pytest.approx(statistics.mean(top1), abs=0.00501)
    if spread:
        assert float(spread) == pytest.approx(statistics.stdev(top1), abs=0.00501)
    for run in runs if "teacher" not in row else []:
        paths = {"checkpoint_path": BEST_MODEL, "log_file": Path("logs.md")}
        assert dataclasses.replace(run.config, seed=0, **paths) == create_recipe(row.split("`")[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_trains_has_flags_that_there_are(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("$seed", "0"), comments=True)
            if "train.py" in words and "--resume" not in words:
                training_settings(words[words.index("train.py") + 1 :])
