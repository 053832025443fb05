"""Tables of whole trainings: their order, that they go on, and the page they leave."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from benchmarks import experiments
from benchmarks.experiments import _cautions, _table, main, with_table, write_page
from benchmarks.jobs import check_settings, jobs_of, settings_of
from benchmarks.trainings import TABLES, Experiment
from resnet_cifar100.analysis.compare import cautions
from resnet_cifar100.analysis.groups import Group, Run
from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.engine.record import load_record
from tests.conftest import REPOSITORY

TINY = "--recipe smoke --image-size 8 --epochs 1 --train-size 200 --val-size 100 --batch-size 50"
TEACHER, PUPIL = Experiment("teacher", TINY, seeds=1), Experiment("pupil", TINY, 2, "teacher")


@pytest.fixture
def table(monkeypatch, tiny_data_dir, tmp_path):
    """Stand for all tables; return the words of a call."""
    monkeypatch.setattr(experiments, "TABLES", {"ablation": (TEACHER, PUPIL)})
    monkeypatch.setattr(experiments.signal, "signal", lambda *_: None)  # of this very process
    words = ["ablation", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    return [*words, "--dataset", "synthetic", "--data-dir", str(tiny_data_dir)]


@pytest.mark.parametrize("name", TABLES)
def test_the_flags_of_every_experiment_are_settings(name):
    for experiment in TABLES[name]:
        training_settings(experiment.flags.split())


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        pytest.param(name, folder, id=folder.name)
        for name in TABLES
        for folder in sorted((REPOSITORY / "records").glob(f"????-??-??_{name}"))
    ],
)
def test_every_record_has_the_settings_of_its_row(name, folder):
    jobs = list(jobs_of(TABLES[name], Path("checkpoints", name), folder))
    assert any(job.result for job in jobs)
    check_settings(jobs)


@pytest.mark.parametrize("name", TABLES)
def test_the_flags_of_a_row_are_words_of_its_experiment(name):
    folder = REPOSITORY / Path("records/2026-11-23_fast-seed0")
    run = Run(folder, load_record(folder))
    groups = [Group("A", experiment.name, (run,)) for experiment in TABLES[name]]
    for experiment, row in zip(
        TABLES[name], _table(TABLES[name], groups).splitlines()[2:], strict=True
    ):
        shown = row.split(" | ")[1].strip("`").split()
        assert shown == experiment.flags.split()[-len(shown) :]
        assert "--device" not in shown


@pytest.mark.parametrize("name", TABLES)
def test_names_are_unique_and_teachers_come_before_their_pupils(name):
    names = [experiment.name for experiment in TABLES[name]]
    assert len(set(names)) == len(names)
    for index, experiment in enumerate(TABLES[name]):
        assert not experiment.teacher or experiment.teacher in names[:index]


def test_the_first_seed_of_all_comes_before_the_second_of_any(tmp_path):
    order = [
        (job.experiment.name, job.seed) for job in jobs_of([TEACHER, PUPIL], tmp_path, tmp_path)
    ]
    assert order == [("teacher", 0), ("pupil", 0), ("pupil", 1)]


def test_a_table_is_trained_and_written_and_not_trained_again(table, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    assert main(table) == 0
    pupil = load_record(out / "pupil" / "seed1")
    assert pupil.status == "finished"
    assert pupil.config.teacher == Path("best_model.pth")  # of which folder is not told
    page = (out / "README.md").read_text()
    assert page.index("SYNTHETIC") < page.index("| teacher |") < page.index("| pupil |")
    assert (out / "report.html").exists()
    for folder in (runs / "teacher", runs / "pupil" / "seed0", out / "pupil" / "seed1"):
        shutil.rmtree(folder)
    before = (runs / "pupil" / "seed1" / "run.json").stat().st_mtime_ns
    assert main(table) == 0  # at once: each pupil has a run or a record
    assert [file.parent for file in runs.glob("*/*/run.json")] == [runs / "pupil" / "seed1"]
    assert (runs / "pupil" / "seed1" / "run.json").stat().st_mtime_ns == before
    assert (out / "README.md").read_text() == page
    assert load_record(out / "pupil" / "seed1").result == pupil.result


def test_a_table_goes_on_with_what_has_no_record_and_with_the_teacher_of_that(
    table, tmp_path, monkeypatch
):
    trained, pages = [], []
    monkeypatch.setattr(experiments, "train", lambda job, _: trained.append(job))
    monkeypatch.setattr(experiments, "write_page", lambda *page: pages.append(page))
    record = load_record(REPOSITORY / "records/2026-11-23_fast-seed0")
    teacher, first, second = jobs = list(
        jobs_of([TEACHER, PUPIL], tmp_path / "runs", tmp_path / "out", table[5:])
    )
    for done, left in [(teacher, jobs), (first, [teacher, second]), (second, [])]:
        dataclasses.replace(record, config=done.config.without_folders()).save(done.record)
        trained.clear()
        pages.clear()
        assert main(table) == 0
        assert trained == left  # a record cannot teach
        assert len(pages) == max(1, len(left))
        trained.clear()
        assert main([*table, "--only", "pupil"]) == 0
        assert trained == [job for job in left if job != teacher]


def test_nothing_is_started_after_the_deadline(table, tmp_path):
    assert main([*table, "--minutes", "0"]) == 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["gpu", "gpu-ablation", "zoo"])
def test_a_table_for_a_gpu_is_not_trained_on_a_cpu(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(experiments.signal, "signal", lambda *_: None)
    words = [name, "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert main(words) == 3
    assert "--device must be one that this machine has, got cuda" in capsys.readouterr().err
    assert main([*words, "--minutes", "0"]) == 0  # to render what others trained
    assert not list(tmp_path.iterdir())


def test_a_training_that_fails_is_counted_and_the_others_go_on(table, tmp_path, monkeypatch):
    broken = Experiment("broken", f"{TINY} --augment nothing", seeds=1)
    pupil = Experiment("pupil of none", TINY, 1, "broken")
    monkeypatch.setattr(experiments, "TABLES", {"ablation": (broken, pupil, TEACHER)})
    assert main(table) == 1
    assert load_record(tmp_path / "runs" / "teacher" / "seed0").status == "finished"
    assert not (tmp_path / "runs" / "pupil-of-none" / "seed0" / "run.json").exists()
    page = (tmp_path / "out" / "README.md").read_text()
    assert "Against" not in page  # the one that all are compared with has no result
    assert "All with `--dataset synthetic` besides." in page  # and --data-dir changes nothing


@pytest.mark.parametrize("place", ["runs", "out"])
def test_a_run_or_record_of_other_settings_stops_a_table_at_once(table, tmp_path, capsys, place):
    folder = tmp_path / place / "pupil" / "seed1"
    words = f"{TINY} --dataset synthetic --seed 1 --teacher moved/best_model.pth"
    flags = words.split()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(settings_of([*flags, "--num-threads", "3"]).to_json())
    assert main([*table, "--minutes", "0"]) == 0  # neither housekeeping nor a teacher's place count
    auto = [word.replace("synthetic", "auto") for word in table]
    assert main([*auto, "--minutes", "0"]) == 0  # which this may be
    (folder / "config.json").write_text(settings_of([*flags, "--lr", "0.2"]).to_json())
    assert main(table) == 3
    fault = capsys.readouterr().err
    assert f"{folder} holds a run of other settings than are asked for (lr 0.2, not 0.1):" in fault
    assert "--runs and --out" in fault
    assert not (tmp_path / "runs" / "teacher").exists()
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--seed", "--seed"),
        ("--run_dir", "--run-dir"),
        ("--resume", "--resume"),
        ("--teacher=a.pth", "--teacher"),
        ("--no-flip", "--flip"),
        ("--augment", "--augment"),
    ],
)
def test_flags_that_a_training_or_a_row_has_itself_are_refused(
    table, tmp_path, monkeypatch, capsys, flag, named
):
    cutout = Experiment("Cutout", f"{TINY} --augment cutout --flip")
    monkeypatch.setattr(experiments, "TABLES", {"ablation": (TEACHER, cutout)})
    assert main([*table, "--lr", "0.2", flag]) == 3
    assert capsys.readouterr().err.startswith(f"{named} cannot be added: ")
    assert not (tmp_path / "runs").exists()


def test_flags_of_rows_that_are_not_chosen_may_be_added(table, monkeypatch):
    cutout = Experiment("Cutout", f"{TINY} --augment cutout")
    monkeypatch.setattr(experiments, "TABLES", {"ablation": (TEACHER, cutout)})
    words = [*table, "--minutes", "0", "--augment", "mixup"]
    assert main(words) == 3
    assert main([*words, "--only", "teacher"]) == 0


def test_housekeeping_leaves_a_table_its_records(table, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(experiments, "write_page", lambda _name, _jobs, out, _: places.append(out))
    words = [table[0], "--minutes", "0", "--runs", str(tmp_path)]
    assert main([*words, "--data_dir", "elsewhere", "--num-threads=3", "--device", "cpu"]) == 0
    assert main([*words, "--lr", "0.1", "--tensorboard"]) == 0  # the rate of every row
    assert {place.parent for place in places} == {Path("records")}
    assert main([*words, "--no-nesterov", "--lr", "0.2"]) == 0
    assert places[-1] == tmp_path / "record"


def test_a_published_table_begins_with_the_reference_and_ends_with_where_it_is_from(
    tmp_path, monkeypatch
):
    results = tmp_path / "docs" / "results.md"
    results.parent.mkdir()
    results.write_text("<!-- table: gpu -->\n<!-- end of table -->\n")
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    monkeypatch.setattr(experiments, "RESULTS", results)
    out = tmp_path / "records" / "2026-01-01_gpu"
    jobs = list(jobs_of(TABLES["gpu"], tmp_path / "runs", out))
    assert [job.experiment.name for job in jobs[:2]] == ["strong", "reference"]
    for seed, job in enumerate(jobs[:2]):
        record = load_record(REPOSITORY / f"records/2026-11-23_fast-seed{seed}")
        record.environments = [{"commit": f"{seed}abcdefghijk", "cpu": "a"}, {"gpu": f"b{seed}"}]
        record.save(job.record)
    write_page("gpu", jobs, out, ["--lr", "0.2"])
    assert "|" not in results.read_text()
    write_page("gpu", jobs, out, [])
    page = results.read_text()
    assert "| Against reference |" in page
    assert page.index("| reference |") < page.index("| strong |")
    assert page.endswith(
        "|\n\nRecord: [2026-01-01_gpu](../records/2026-01-01_gpu/README.md). "
        "Hardware: a, b1, b0. Commits: `1abcdefghi`, `?`, `0abcdefghi`.\n\n<!-- end of table -->\n"
    )


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_place_among_the_results(name):
    assert with_table(experiments.RESULTS.read_text(), name, "new\n").count("\nnew\n") == 1


def test_a_row_whose_runs_had_two_teachers_says_so():
    folder = REPOSITORY / "records/2026-11-28_resnet44v2-teacher-seed0"
    runs = [Run(folder, load_record(folder)) for _ in range(2)]
    groups = [Group("A", "plain", tuple(runs[:1])), Group("B", "pupil", tuple(runs))]
    assert not _cautions(groups)
    runs[1].record.environments[-1]["teacher"] = "another, SHA-256 0123456789ab"
    assert _cautions(groups) == "\nThe runs of pupil are not all of the same teacher.\n"
    assert "B: its runs are not all of the same teacher." in cautions(groups)


def test_an_unknown_experiment_is_refused_with_the_known_ones(table, capsys):
    assert main([*table, "--only", "teachers"]) == 3
    assert "teacher, pupil" in capsys.readouterr().err


def test_a_table_replaces_the_one_between_its_marks_alone():
    page = "a\n<!-- table: gpu -->\nold\n<!-- end of table -->\nb\n"
    page = f"<!-- table: zoo -->\nzoo\n<!-- end of table -->\n{page}"
    assert with_table(with_table(page, "gpu", "new\n"), "gpu", "newer\n") == page.replace(
        "old\n", "\nnewer\n\n"
    )
    with pytest.raises(ValueError, match="substring"):
        with_table(page, "ablation", "new")
