"""Progress: a bar in a terminal, lines elsewhere, and time left that follows from the pace."""

import io
import re

from rich.console import Console

from alc_kernels.cli.train import BarProgress, LineProgress

RECORD = {"epoch": 1.0, "loss": 1.25, "validation_coverage_90": 0.5}


def run(progress, steps):
    progress.start(epochs=2, steps_per_epoch=2)
    for step in range(1, steps + 1):
        progress.step(step=step, epoch=1, loss=1.5)
    progress.epoch(RECORD)
    progress.finish()


def test_bar_shows_loss_validation_and_time_left():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    progress = BarProgress("Training with ALC", console)
    run(progress, 2)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "Training with ALC" in shown and "50 %" in shown and "left" in shown
    assert "validation C@.9 50.0 %" in shown and "loss 1.250" in shown


def test_lines_count_time_left_from_the_first_step_of_this_process(capsys):
    progress = LineProgress("ALC")
    progress.start(epochs=10, steps_per_epoch=10, first_step=50)
    progress.began -= 20.0  # twenty seconds for ten steps
    progress.step(step=60, epoch=6, loss=1.0)
    progress.epoch({"epoch": 6.0, "loss": 1.0})
    line = capsys.readouterr().err
    assert line == "ALC: epoch 6 of 10, loss 1.000, 20 s, 80 s left\n"
