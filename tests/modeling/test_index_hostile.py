"""An index is untrusted input: nothing outside of it is touched and nothing crashes, whatever its files say."""

import json
import os
import resource
import shutil
import time

import numpy as np
import pytest

from lexmotion import LexMotionIndex
from lexmotion.index import segments as index_storage
from lexmotion.index.segments import IndexDamagedError, map_tensors, tensor_parts, write_file

V = 12
DEEP = json.loads("[" * 400 + "]" * 400)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An index of texts with metadata, of which two are deleted."""
    place = tmp_path_factory.mktemp("hostile") / "index"
    vectors = np.random.default_rng(0).random((9, V))
    with LexMotionIndex.build(
        vectors, [{"n": n} for n in range(9)], [f"é{n}" for n in range(9)], folder=place
    ) as index:
        index.delete(["é1", "é4"])
    return place


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it beside a file of someone else."""
    (tmp_path / "victim").write_text("precious")
    shutil.copytree(original, tmp_path / "index")
    return tmp_path / "index"


def sign(folder, change):
    """Change the manifest and give it the right checksum, as its author can."""
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("sha256")
    content = change(content) or content
    text = json.dumps(content | {"sha256": index_storage._checksum(content)})
    (folder / "manifest.json").write_text(text)


def refused(folder, **options):
    """The error of opening an index, of one line, soon and without much memory."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IndexDamagedError) as caught:
        LexMotionIndex.from_pretrained(folder, **options)
    assert time.perf_counter() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and "build" in str(caught.value)
    assert (folder.parent / "victim").read_text() == "precious"
    return str(caught.value)


def of_segment(**values):
    return lambda content: content["segments"][0].update(values)


def of_files(rename):
    def change(content):
        files = content["segments"][0]["files"]
        content["segments"][0]["files"] = {rename(name): entry for name, entry in files.items()}

    return change


FILE = {"bytes": 8, "sha256": "0" * 64}
MANIFESTS = {
    "missing segments": lambda content: content.pop("segments"),
    "missing vocab_size": lambda content: content.pop("vocab_size"),
    "missing processor_files": lambda content: content.pop("processor_files"),
    "unknown key": lambda content: content.update(extra=1),
    "vocab_size is a text": lambda content: content.update(vocab_size="12"),
    "vocab_size is true": lambda content: content.update(vocab_size=True),
    "vocab_size is negative": lambda content: content.update(vocab_size=-1),
    "vocab_size is a fraction": lambda content: content.update(vocab_size=12.5),
    "vocab_size is huge": lambda content: content.update(vocab_size=10**15),
    "vocab_size is too small": lambda content: content.update(vocab_size=3),
    "vocab_size is infinite": lambda content: content.update(vocab_size=float("inf")),
    "id_kind is another": lambda content: content.update(id_kind="int"),
    "id_kind is unknown": lambda content: content.update(id_kind="float"),
    "id_kind is a list": lambda content: content.update(id_kind=["str"]),
    "id_kind is none": lambda content: content.update(id_kind=None),
    "next_number is a text": lambda content: content.update(next_number="1"),
    "next_number is huge": lambda content: content.update(next_number=10**400),
    "generation is none": lambda content: content.update(generation=None),
    "score is another": lambda content: content.update(score="dot"),
    "model is a list": lambda content: content.update(model=["a"]),
    "model with NUL": lambda content: content.update(model="a\0b"),
    "segments is a dictionary": lambda content: content.update(segments={}),
    "segments is a number": lambda content: content.update(segments=3),
    "segments is deep": lambda content: content.update(segments=DEEP),
    "a segment is none": lambda content: content.update(segments=[None]),
    "a segment twice": lambda content: content.update(segments=content["segments"] * 2),
    "many segments of a large vocabulary": lambda content: content.update(
        vocab_size=1 << 24,
        segments=[content["segments"][0] | {"name": f"{n}", "files": {f"{n}.safetensors": FILE}} for n in range(1000)],
    ),
    "name of a segment leads out": of_segment(name="../../victim"),
    "name of a segment is absolute": of_segment(name="/etc/passwd"),
    "name of a segment is empty": of_segment(name=""),
    "name of a segment is a number": of_segment(name=7),
    "rows are more": of_segment(rows=10**9),
    "rows are negative": of_segment(rows=-9),
    "entries are less": of_segment(entries=1),
    "ascending is a number": of_segment(ascending=1),
    "deleted is a list": of_segment(deleted=[1]),
    "deleted is huge": of_segment(deleted="0-99999999999999999999"),
    "deleted is beyond the rows": of_segment(deleted="9"),
    "deleted is billions": of_segment(deleted="0-2147483000"),
    "deleted is negative": of_segment(deleted="-3"),
    "deleted goes back": of_segment(deleted="4 1"),
    "deleted is words": of_segment(deleted="one two"),
    "deleted is long": of_segment(deleted="1 " * 10**6),
    "files is a list": of_segment(files=["a"]),
    "files is empty": of_segment(files={}),
    "a file leads out": of_files(lambda name: f"../../{name}"),
    "a file is the victim": of_files(lambda name: "../../victim"),
    "a file is absolute": of_files(lambda name: f"/tmp/{name}"),
    "a file with NUL": of_files(lambda name: f"{name}\0"),
    "a file with a line break": of_files(lambda name: f"{name}\n"),
    "a file of another name": of_files(lambda name: "0" + name),
    "a file without a size": lambda content: [one.pop("bytes") for one in content["segments"][0]["files"].values()],
    "a file with a negative size": lambda content: [
        one.update(bytes=-1) for one in content["segments"][0]["files"].values()
    ],
    "a file with a long checksum": lambda content: [
        one.update(sha256="0" * 10**6) for one in content["segments"][0]["files"].values()
    ],
    "processor leads out": lambda content: content.update(processor="../../.."),
    "processor is absolute": lambda content: content.update(processor="/etc"),
    "processor leads out behind its prefix": lambda content: content.update(processor="processor-/../../.."),
    "processor does not exist": lambda content: content.update(processor="processor-0"),
    "processor is a list": lambda content: content.update(processor=["processor-0"]),
    "processor_files lead out": lambda content: content.update(processor_files={"../victim": FILE}),
    "processor_files is none": lambda content: content.update(processor_files=None),
    "engine is a text": lambda content: content.update(engine="postgres"),
    "engine without a table": lambda content: content.update(engine={"engine": "postgres", "uri": "host=a"}),
    "table with a quote": lambda content: content.update(
        engine={"engine": "postgres", "uri": "host=a", "table": 'a"; DROP TABLE users; --'}
    ),
    "a list": lambda content: [1, 2],
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused(folder, name):
    def change(content):
        found = MANIFESTS[name](content)
        return found if name == "a list" else None

    if name == "a list":
        (folder / "manifest.json").write_text("[1, 2]")
    else:
        sign(folder, change)
    refused(folder)
    refused(folder, verify=False)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b'{"sha256": "a"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b"[]," * 3_000_000 + b"[]]",
        b"9" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_manifest_that_is_no_object_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text)
    refused(folder)


def test_a_manifest_larger_than_any_is_not_read(folder):
    with open(folder / "manifest.json", "ab") as file:
        file.truncate(1 << 40)
    refused(folder)


ARRAYS = {
    "documents beyond the rows": lambda arrays: arrays["documents"].__setitem__(3, 10**6),
    "documents are negative": lambda arrays: arrays["documents"].__setitem__(0, -5),
    "documents are too few": lambda arrays: arrays.update(documents=arrays["documents"][:-1]),
    "documents of another type": lambda arrays: arrays.update(documents=arrays["documents"].astype(np.int64)),
    "word_counts are huge": lambda arrays: arrays["word_counts"].__setitem__(0, 2**31 - 1),
    "word_counts are negative": lambda arrays: arrays["word_counts"].__setitem__(0, -9),
    "word_counts cancel out": lambda arrays: (
        arrays["word_counts"].__setitem__(0, arrays["word_counts"][0] + 20),
        arrays["word_counts"].__setitem__(1, arrays["word_counts"][1] - 20),
    ),
    "words beyond the vocabulary": lambda arrays: arrays["words"].__setitem__(-1, V),
    "words are negative": lambda arrays: arrays["words"].__setitem__(0, -1),
    "words are repeated": lambda arrays: arrays["words"].__setitem__(1, arrays["words"][0]),
    "weights are NaN": lambda arrays: arrays["weights"].__setitem__(0, np.nan),
    "weights are infinite": lambda arrays: arrays["weights"].__setitem__(0, np.inf),
    "weights are negative": lambda arrays: arrays["weights"].__setitem__(0, -0.5),
    "weights are missing": lambda arrays: arrays.pop("weights"),
    "columns are missing": lambda arrays: arrays.pop("columns"),
    "columns are narrow": lambda arrays: arrays.update(columns=arrays["columns"][:, :9].copy()),
    "columns are flat": lambda arrays: arrays.update(columns=arrays["columns"].ravel()),
    "common beyond the vocabulary": lambda arrays: arrays.update(
        common=np.array([V], np.int32), columns=np.zeros((1, 1024), np.float32)
    ),
    "keys are unsorted": lambda arrays: arrays.update(keys=arrays["keys"][::-1].copy()),
    "keys are few": lambda arrays: arrays.update(keys=arrays["keys"][1:].copy()),
    "key_rows beyond the rows": lambda arrays: arrays["key_rows"].__setitem__(0, 9),
    "key_rows are negative": lambda arrays: arrays["key_rows"].__setitem__(0, -1),
    "key_rows are repeated": lambda arrays: arrays["key_rows"].__setitem__(0, arrays["key_rows"][1]),
    "no rows": lambda arrays: arrays.update(key_rows=np.zeros(0, np.int32), keys=np.zeros(0, np.uint64)),
    "id_ends beyond the texts": lambda arrays: arrays["id_ends"].__setitem__(-1, 10**12),
    "id_ends go back": lambda arrays: arrays["id_ends"].__setitem__(2, 0),
    "id_ends are negative": lambda arrays: arrays["id_ends"].__setitem__(0, -3),
    "id_ends within a character": lambda arrays: arrays["id_ends"].__setitem__(0, 1),
    "id_text is no text": lambda arrays: arrays["id_text"].__setitem__(0, 255),
    "metadata_ends beyond the file": lambda arrays: arrays["metadata_ends"].__setitem__(-1, 10**12),
    "metadata_ends go back": lambda arrays: arrays["metadata_ends"].__setitem__(3, 0),
    "metadata_ends are missing": lambda arrays: arrays.pop("metadata_ends"),
    "ids of both kinds": lambda arrays: arrays.update(id_numbers=np.arange(9)),
    "an unknown array": lambda arrays: arrays.update(extra=np.zeros(3, np.int32)),
}


def rewrite(folder, parts):
    (path,) = (folder / "segments").glob("*.safetensors")
    entry = write_file(path, parts)
    sign(folder, lambda content: content["segments"][0]["files"].update({path.name: entry}))


@pytest.mark.parametrize("name", ARRAYS)
def test_hostile_arrays_are_refused(folder, name):
    (path,) = (folder / "segments").glob("*.safetensors")
    arrays = {key: np.array(value) for key, value in map_tensors(path).items()}
    ARRAYS[name](arrays)
    rewrite(folder, list(tensor_parts(arrays)))
    refused(folder)
    refused(folder, verify=False)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 50_000,
        b'{"documents": 3}',
        b'{"documents": {"dtype": "I32", "shape": [2], "data_offsets": [-8, 0]}}',
        b'{"documents": {"dtype": "I32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}',
        b'{"documents": {"dtype": "I32", "shape": [-1], "data_offsets": [0, 8]}}',
        b'{"documents": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"documents": {"dtype": ["I32"], "shape": [1], "data_offsets": [0, 8]}}',
        b'{"documents": {"dtype": "I32", "shape": "x", "data_offsets": [0.5, 8]}}',
    ],
)
def test_a_hostile_header_is_refused(folder, header):
    rewrite(folder, [len(header).to_bytes(8, "little") + header + bytes(8)])
    refused(folder)
    rewrite(folder, [(2**63).to_bytes(8, "little") + header])
    refused(folder)


@pytest.mark.parametrize("line", [b"[1]", b"nul", b"[" * 100_000, b"\xff"])
def test_hostile_metadata_is_named_when_it_is_read(folder, line):
    (path,) = (folder / "segments").glob("*.safetensors")
    arrays = {key: np.array(value) for key, value in map_tensors(path).items()}
    arrays["metadata_ends"] = np.full(9, len(line))
    lines = write_file(path.with_suffix(".jsonl"), [line])
    rewrite(folder, list(tensor_parts(arrays)))
    sign(folder, lambda content: content["segments"][0]["files"].update({path.with_suffix(".jsonl").name: lines}))
    index = LexMotionIndex.from_pretrained(folder)
    with pytest.raises(IndexDamagedError, match="'é0'.*build"):
        index.metadata("é0")


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_links_out_of_the_index_are_refused(folder, tmp_path):
    (path,) = (folder / "segments").glob("*.safetensors")
    outside = tmp_path / "outside"
    shutil.copytree(folder / "segments", outside)
    path.unlink()
    path.symlink_to(outside / path.name)
    assert "link" in refused(folder)
    shutil.rmtree(folder / "segments")
    (folder / "segments").symlink_to(outside)
    assert "link" in refused(folder)
    (folder / "segments").unlink()
    (folder / "segments").symlink_to(folder / "segments")
    refused(folder)
    (folder / "segments").unlink()
    (folder / "segments").mkdir()
    os.mkfifo(path)
    refused(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_a_processor_does_not_lead_out_of_the_index(folder, tmp_path):
    (folder / "processor-0").mkdir()
    (folder / "processor-0" / "tokenizer.json").symlink_to(tmp_path / "victim")
    sign(folder, lambda content: content.update(processor="processor-0"))
    assert "link" in refused(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_a_snapshot_of_the_hub_links_to_its_blobs(folder, tmp_path):
    """As `snapshot_download` lays it out."""
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert len(LexMotionIndex.from_pretrained(snapshot)) == 7


# ---------------------------------------------------------------------------------------------------------------------
# What is removed
# ---------------------------------------------------------------------------------------------------------------------


def owned(folder):
    """Files of someone else in a folder, with the names of files of an index."""
    names = ["segments/notes.txt", "segments/0123456789abcdef.safetensors", "processor-mine/tokenizer.json"]
    names += ["rows-1.db", "rows-0a.db/part", "processor-0a/vocab.txt", "manifest.json.bak"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return lambda: all((folder / name).read_text() == "precious" for name in names)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_index_is_refused_and_keeps_its_files(tmp_path, overwrite):
    kept = owned(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for build in (
        lambda: LexMotionIndex.build(np.eye(V), folder=tmp_path, overwrite=overwrite),
        lambda: LexMotionIndex.build(np.eye(V)).save_pretrained(tmp_path),
    ):
        with pytest.raises(ValueError, match=f"{tmp_path}.*another folder"):
            build()
    assert kept() and sorted(tmp_path.rglob("*")) == before
    (tmp_path / "manifest.json").write_text('{"name": "a web application"}')
    with pytest.raises(ValueError, match="manifest.json.*another folder"):
        LexMotionIndex.build(np.eye(V), folder=tmp_path, overwrite=overwrite)
    assert kept() and "web" in (tmp_path / "manifest.json").read_text()


def test_files_beside_those_of_an_index_stay(folder):
    kept = owned(folder)
    first = {path.name for path in (folder / "segments").iterdir()}
    with LexMotionIndex.from_pretrained(folder) as index:
        index.add(np.eye(V)[:1], ids=["new"])
        index.merge()
    assert kept()
    LexMotionIndex.build(np.eye(V), folder=folder, overwrite=True).close()
    LexMotionIndex.build(np.eye(V)[:3]).save_pretrained(folder)
    assert kept() and len(LexMotionIndex.from_pretrained(folder)) == 3
    left = {path.name for path in (folder / "segments").iterdir()} - {"notes.txt", "0123456789abcdef.safetensors"}
    assert len(left) == 1 and not left & first


def test_a_replaced_index_leaves_nothing(tmp_path, tiny_tokenizer):
    place = tmp_path / "index"
    vectors = np.eye(len(tiny_tokenizer))[:3]
    for _ in range(2):
        LexMotionIndex.build(vectors, [{"a": 1}] * 3, folder=place, processor=tiny_tokenizer, overwrite=True).close()
        assert len(list((place / "segments").iterdir())) == 2 and len(list(place.glob("processor-*"))) == 1


def test_a_damaged_index_is_replaced_and_its_files_stay(folder):
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:300])
    before = set((folder / "segments").iterdir())
    LexMotionIndex.build(np.eye(V), folder=folder, overwrite=True).close()
    assert before < set((folder / "segments").iterdir()) and len(LexMotionIndex.from_pretrained(folder)) == V


def test_a_build_that_was_killed_is_repeated(tmp_path):
    """What it noted is removed; names that an index does not give are not, nor what lies behind a link."""
    (tmp_path / "victim").write_text("precious")
    place = tmp_path / "index"
    for name in ("segments/0a.safetensors", "processor-0a/vocab.txt", "rows-0a.db/part"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("left over")
    names = [
        "segments/0a.safetensors",
        "processor-0a",
        "rows-0a.db",
        "../victim",
        "segments/../../victim",
        "segments/0b.",
    ]
    (place / "writer.files").write_text("\n".join(names))
    LexMotionIndex.build(np.eye(V), folder=place).close()
    assert {path.name for path in place.iterdir()} == {"segments", "manifest.json", "writer.lock", "writer.pid"}
    assert len(list((place / "segments").iterdir())) == 1 and (tmp_path / "victim").read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
@pytest.mark.parametrize("name", ["writer.pid", "writer.lock", "writer.files", "manifest.json.tmp"])
def test_nothing_is_written_through_a_link(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / "victim")
    with pytest.raises(IndexDamagedError, match=f"{name}.*link"):
        LexMotionIndex.from_pretrained(folder).delete("é0")
    assert (folder.parent / "victim").read_text() == "precious"
