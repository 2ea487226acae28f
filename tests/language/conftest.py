import sys
from pathlib import Path

# The tests of this room share a small world (language_world.py); importlib mode does not put its folder on the path.
sys.path.insert(0, str(Path(__file__).parent))
