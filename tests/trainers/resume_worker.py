"""One training of nnU-Net's own command, repeatable, and on request killed on its way.

Usage: python resume_worker.py DATASET CONFIGURATION TRAINER KILL_EPOCH

nnU-Net sets no seeds, so every epoch gets its own here; KILL_EPOCH (or `never`) ends the process by SIGKILL in the
middle of that epoch. A training that has a checkpoint is continued.
"""

from __future__ import annotations

import os
import random
import signal
import sys

import numpy as np
import torch
from nnunetv2.run.run_training import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def main(dataset: str, configuration: str, trainer: str, kill_epoch: str) -> None:
    """Train."""
    start, step = nnUNetTrainer.on_epoch_start, nnUNetTrainer.train_step
    steps = 0

    def on_epoch_start(self):
        nonlocal steps
        steps = 0
        self.save_every = 1
        random.seed(self.current_epoch)
        np.random.seed(self.current_epoch)  # noqa: NPY002 - what nnU-Net draws from
        torch.manual_seed(self.current_epoch)
        start(self)

    def train_step(self, batch):
        nonlocal steps
        if str(self.current_epoch) == kill_epoch and steps == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return step(self, batch)

    nnUNetTrainer.on_epoch_start, nnUNetTrainer.train_step = on_epoch_start, train_step
    torch.manual_seed(0)
    run_training(dataset, configuration, 0, trainer, continue_training=True, device=torch.device("cpu"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
