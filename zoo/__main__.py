"""Lets `python -m zoo` and `torchrun -m zoo` be the command line; owns nothing else."""

from __future__ import annotations

from zoo.cli import main

if __name__ == "__main__":
    main()
