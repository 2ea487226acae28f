"""The command line: one thin command each; what it does is in the rooms.

Exit codes: 0 all done; 1 an error of the program; 2 wrong use or input; 3 done in part (some inputs rejected, listed).
"""

# The order is that of the commands in --help.
from medglip.cli import sources, looking, converting, collecting, private, labels, datasets, splitting, arranging, exporting  # isort: skip
from medglip.cli import training, teaching, judging, models  # isort: skip
from medglip.cli.frame import app, main

__all__ = [
    "app",
    "arranging",
    "collecting",
    "converting",
    "datasets",
    "exporting",
    "judging",
    "labels",
    "looking",
    "main",
    "models",
    "private",
    "sources",
    "splitting",
    "teaching",
    "training",
]
