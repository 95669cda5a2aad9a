"""Makes `transformers_common` and the tiny configurations of the modelling tests importable."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "modeling")]

# Marks of the common tests of transformers; none of them selects anything here.
FOREIGN_MARKS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")


def pytest_configure(config):
    for mark in FOREIGN_MARKS:
        config.addinivalue_line("markers", f"{mark}: of transformers' own suite")
