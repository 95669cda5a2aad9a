"""A sample of `mutations.py`: damaged files of every format are read, or refused in one line, within seconds."""

import time

import pytest
from mutations import attempt, mutated
from written import files, walking

COUNT = 225


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return files(tmp_path_factory.mktemp("valid"), walking(24))


@pytest.mark.parametrize("part", range(3))
def test_damaged_files_are_read_or_refused(part, originals, tmp_path):
    outcomes = set()
    for seed in range(part * COUNT // 3, (part + 1) * COUNT // 3):
        start = time.process_time()
        outcomes.add(attempt(mutated(originals, seed, tmp_path)))
        assert time.process_time() - start < 5, seed
    assert outcomes == {"read", "refused"}


def test_the_files_are_valid(originals):
    assert {path.name for path in originals if attempt(path) != "read"} == {"skeleton.asf"}
