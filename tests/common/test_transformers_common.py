"""How the common tests are obtained."""

import io
import tarfile

import pytest
import transformers_common


def archive(folder, stated, names):
    """A source distribution of version 9.9 that says it is `stated`."""
    path = folder / "transformers-9.9.tar.gz"
    with tarfile.open(path, "w:gz") as content:
        files = {"PKG-INFO": f"Name: transformers\nVersion: {stated}\n"} | {f"tests/{name}.py": name for name in names}
        for name, text in files.items():
            entry = tarfile.TarInfo(f"transformers-9.9/{name}")
            entry.size = len(text)
            content.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_test_files_and_stubs_are_written(tmp_path):
    transformers_common.extract(archive(tmp_path, "9.9", transformers_common.FILES), "9.9", tmp_path / "out")
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py")}
    package = transformers_common.PACKAGE
    assert written == {*transformers_common.STUBS, *(f"{package}/{name}.py" for name in transformers_common.FILES)}


@pytest.mark.parametrize(
    ("stated", "names", "message"),
    [
        ("9.8", transformers_common.FILES, r"'Version: 9\.8'.*\b9\.9\b"),
        ("9.9", ["test_other"], r"transformers-9\.9/tests/test_configuration_common\.py"),
    ],
)
def test_another_version_or_layout_is_refused(tmp_path, stated, names, message):
    with pytest.raises(ValueError, match=message):
        transformers_common.extract(archive(tmp_path, stated, names), "9.9", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_registry_the_tests_are_skipped_with_its_words(tmp_path, monkeypatch):
    monkeypatch.setenv("LEXMOTION_CACHE", str(tmp_path))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(pytest.skip.Exception, match="ERROR: No matching distribution"):
        transformers_common.common_tests.__wrapped__()
    assert not transformers_common.cache_folder().exists()
