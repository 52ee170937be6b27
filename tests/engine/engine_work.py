"""Work for the engines: a module of its own, which the processes of every engine can import."""

import os
import signal
import time
from pathlib import Path

import torch

from featlab.errors import InputError


def square(number):
    return number * number, os.getpid(), torch.get_num_threads()


def fails_on_three(number):
    if number == 3:
        raise InputError("three is no number for this")
    return number


def dies_on_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow_at_first(number):
    """Take a while for the number 0, as what loads something."""
    time.sleep(0.05 * (number == 0))
    return os.getpid()


def stays(folder):
    """Leave the process's number in a folder, and go on and on."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


class Gone:
    """Something that can be sent, and is not there any more where it arrives."""

    def __reduce__(self):
        return fails_on_three, (3,)
