"""The zoo's schemes and oracles, for tests beside test_zoo."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from zoo import SCHEMES, Scheme

__all__ = ["SCHEMES", "Scheme"]
