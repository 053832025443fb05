"""All benchmarks with one command, written to one folder of records.

    python -m benchmarks.suite --device cpu|cuda [--out FOLDER] [--rounds N] [--only loader,...]

On a GPU whole trainings to 75% belong to it (--seeds 10, and flags of train.py); on a CPU only with
--only.
"""

from benchmarks import (
    inference,
    loader,
    processes,
    scaling,
    step_kernels,
    step_parts,
    time_to_accuracy,
    train_step,
)
from benchmarks.page import WHOLE, main

MAKERS = {
    WHOLE: time_to_accuracy.tables,  # first, where it is: it alone needs the data set
    time_to_accuracy.COMPILED: time_to_accuracy.compiled_tables,
    "train_step": train_step.tables,
    "step_parts": step_parts.tables,
    "step_kernels": step_kernels.tables,
    "loader": loader.tables,
    "scaling": scaling.tables,
    "processes": processes.tables,
    "inference": inference.tables,
}

if __name__ == "__main__":
    main(MAKERS)
