import sys
from pathlib import Path

# Cases by hand, which the tests of evaluation share with those of its pages.
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
