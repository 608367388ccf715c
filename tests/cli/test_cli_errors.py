"""Bad input: one line on stderr, exit code 2, no traceback."""

import builtins
import shutil

import pytest
from evaluation_cases import make_dataset, make_scored

from alc_kernels.cli import main
from alc_kernels.trainer.data import load_dataset, save_dataset
from alc_kernels.trainer.evaluation import Group
from alc_kernels.trainer.evaluation.predictions import save_predictions
from alc_kernels.trainer.evaluation.results import save_results


def write_run(folder, scored):
    """A run folder as training leaves it, without a checkpoint."""
    folder.mkdir(parents=True)
    save_predictions(folder / "predictions.npz", scored.predictions, scored.fingerprint)
    save_results(
        folder / "metrics.json",
        Group(scored.name, [scored], replicates=10).figures(),
        scored,
    )
    return str(folder)


def fails(capsys, words, *needed, code=2):
    """Run ``words``; check the exit code and the one line, and return the line."""
    assert main([str(word) for word in words]) == code
    error = capsys.readouterr().err
    assert error.endswith("\n") and error.count("\n") == 1, error
    assert error.startswith("alc") and "Traceback" not in error
    for text in needed:
        assert str(text) in error, error
    return error


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ([], "alc --help"),
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["xyzzy"], "the commands are demo, train"),
        (["train", "--los", "base"], "alc train: unknown option --los; did you mean --loss?"),
        (["train", "--loss", "acl"], "did you mean alc?"),
        (["train", "--epochs", "many"], "'many' is not a whole number"),
        (["train", "--epochs", "0", "--print-config"], "epochs"),
        (["train", "--dropout", "1.5", "--print-config"], "dropout"),
        (["train", "--output", "x"], "--data is missing"),
        (["train", "--data", "x"], "--output is missing"),
        (["train", "--data", "x", "--output", "y", "--resume", "--overwrite"], "exclude"),
        (["train", "--data", "x", "--output", "y", "--resume"], "no run to resume"),
        (["evaluate"], "RUN"),
        (["evaluate", "x", "--precision", "2"], "'2' is not a number from 0.01 to 0.9999"),
        (["evaluate", "x", "--precision", "nan"], "'nan' is not a number"),
        (["predict"], "RUN"),
        (["predict", "x"], "FILE"),
        (["predict", "x", "y", "--precision", "0"], "'0' is not a number from 0.01"),
        (["data"], "what kind of data"),
        (["data", "generat"], "did you mean generate?"),
        (["data", "generate"], "--output"),
        (["data", "generate", "--labels", "3", "--output", "x"], "at least 20"),
        (["info", "extra"], "extra"),
    ],
)
def test_words_that_make_no_sense(capsys, words, needed):
    fails(capsys, words, needed)


def test_missing_and_malformed_files_are_named(capsys, tmp_path):
    output = ["--output", tmp_path / "run"]
    fails(capsys, ["train", "--data", tmp_path / "none", *output], tmp_path / "none")
    assert not (tmp_path / "run").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(capsys, ["train", "--data", empty, *output], empty)

    data = tmp_path / "data"
    save_dataset(make_dataset(), data)
    relation = data / "test_X_Y.txt"
    lines = relation.read_text().splitlines()
    lines[7] = "7:what"
    relation.write_text("\n".join(lines) + "\n")
    fails(capsys, ["train", "--data", data, *output], "test_X_Y.txt", "8")

    config = tmp_path / "config.toml"
    config.write_text("epochs = 3\nloss = \n")
    fails(capsys, ["train", "--config", config, "--print-config"], config, "line 2")
    config.write_text("epoch = 3\n")
    fails(capsys, ["train", "--config", config, "--print-config"], "'epoch'", "epochs")

    fails(capsys, ["data", "pricerunner", tmp_path / "no.csv", "--output", tmp_path / "d"],
          tmp_path / "no.csv")  # fmt: skip
    table = tmp_path / "some.csv"
    table.write_text("1,title,1,1,label,1,category\n2,short row\n")
    fails(capsys, ["data", "pricerunner", table, "--output", tmp_path / "d"], table, "2")


def test_run_folders_that_are_none(capsys, tmp_path):
    fails(capsys, ["evaluate", tmp_path / "none"], "no such run folder")
    fails(capsys, ["evaluate", tmp_path], "not a run of alc train")
    fails(capsys, ["evaluate", tmp_path, "--label-shards", "2"], "no effect without --data")
    (tmp_path / "config.toml").write_text("")
    fails(capsys, ["compare", tmp_path], "did not finish")
    fails(capsys, ["evaluate", tmp_path, "--data", tmp_path], "checkpoint")

    run = tmp_path / "run"
    write_run(run, make_scored())
    whole = (run / "predictions.npz").read_bytes()
    (run / "predictions.npz").write_bytes(whole[: len(whole) // 2])
    fails(capsys, ["evaluate", run], run / "predictions.npz")
    (run / "predictions.npz").write_bytes(whole)
    (run / "metrics.json").write_text("{")
    fails(capsys, ["evaluate", run], run / "metrics.json", "not valid JSON")


def test_runs_that_cannot_be_compared(capsys, tmp_path):
    one = write_run(tmp_path / "one", make_scored("one"))
    two = write_run(tmp_path / "two", make_scored("two", dataset=make_dataset(seed=1)))
    fails(capsys, ["compare", one, two], "one was scored on toy", "different data")
    folders = [tmp_path / "data0", tmp_path / "data1"]
    for seed, folder in enumerate(folders):
        save_dataset(make_dataset(seed=seed), folder)
        write_run(tmp_path / f"run{seed}", make_scored("r", 0.6, load_dataset(folder)))
    words = ["compare", tmp_path / "run0", tmp_path / "run1"]
    rescore = (
        f"alc evaluate {tmp_path / 'run1'} --data {folders[0]} scores run1 on the data of run0"
    )
    fails(capsys, words, *(f"toy <data> ({folder})" for folder in folders), rescore)
    fails(capsys, ["compare", one, one], "given twice")
    fails(capsys, ["compare", one, "--output", tmp_path], "is a folder")
    fails(capsys, ["compare", one, "--output", tmp_path / "page.txt"], ".html or .htm")
    fails(
        capsys,
        ["compare", one, "--output", tmp_path / "one" / "report.html"],
        "is a file of the run",
    )
    below = tmp_path / "one" / "metrics.json" / "p.html"
    fails(capsys, ["compare", one, "--output", below], "metrics.json: is a file, expected a folder")
    other = tmp_path / "data"
    save_dataset(make_dataset(seed=1), other)
    fails(capsys, ["compare", one, "--data", other], "not the data")


def test_folders_in_use_are_left_alone(capsys, tmp_path):
    data = tmp_path / "data"
    save_dataset(make_dataset(), data)
    run = write_run(tmp_path / "run", make_scored())
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    fails(capsys, ["train", "--data", data, "--output", run], "already holds a run", "--overwrite")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before
    fails(capsys, ["data", "generate", "--output", data], "is not empty")
    fails(capsys, ["demo", "--small", "--output", data], "holds something that is no demo")
    fails(capsys, ["demo", "--output", data / "labels.txt"], "is a file")
    fails(capsys, ["train", "--data", data, "--output", data / "labels.txt"], "is a file")


def test_a_missing_extra_is_named(capsys, tmp_path, monkeypatch):
    data = tmp_path / "data"
    save_dataset(make_dataset(), data)
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "safetensors":
            raise ModuleNotFoundError("No module named 'safetensors'", name="safetensors")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    from alc_kernels.cli import judge

    def run(arguments):
        import safetensors  # noqa: F401

    monkeypatch.setattr(judge, "run_evaluate", run)
    fails(capsys, ["evaluate", data], "safetensors", "alc-kernels[trainer]")


def test_errors_of_the_program_are_told_from_the_users(capsys, tmp_path, monkeypatch):
    from alc_kernels.cli import bench

    def broken(arguments):
        raise RuntimeError("wires\ncrossed")

    monkeypatch.setattr(bench, "run_info", broken)
    fails(capsys, ["info"], "internal error, RuntimeError: wires crossed", "--debug", code=1)
    assert main(["info", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err

    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run_info", stopped)
    fails(capsys, ["info"], "interrupted", code=130)


def test_debug_shows_the_traceback_of_bad_input(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path / "none"), "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("no such run folder\n")


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    data = tmp_path / "data"
    save_dataset(make_dataset(), data)
    blocked = tmp_path / "file"
    shutil.copy(data / "labels.txt", blocked)
    fails(capsys, ["train", "--data", data, "--output", blocked / "run"], blocked)
