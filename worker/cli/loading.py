"""The configuration of a subcommand: the files of ``--config``, and the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.config import Config


def load_config(context: click.Context) -> Config:
    """Raises ConfigError with a line for every problem."""
    from worker.config import config_paths, load

    files: tuple[Path, ...] = context.obj or ()
    return load(config_paths(files, os.environ), os.environ)
