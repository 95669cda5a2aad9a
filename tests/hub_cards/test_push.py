"""Pushing to a Hub of our own through the real client: one commit, repeatable, resumable, only what should go."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import _http
from loopback_hub import TOKEN

from lexmotion.hub_cards import push as room
from lexmotion.hub_cards.push import pack, push
from lexmotion.processing.corpora.report import sealed

NAME = "user/lexmotion-tiny"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(room, "PAUSE", 0.0)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)


def repository(hub, kind="model"):
    return hub.repositories[kind, NAME]


def test_a_parcel_holds_the_model_and_nothing_of_this_machine(model_dir):
    (model_dir / "notes.txt").write_text("mine")
    (model_dir / "optimizer.pt").write_bytes(b"\x80\x04")
    record = json.loads((model_dir.parent / "run.json").read_text())
    base = model_dir.parents[2]  # of all tests: the corpus and the first run lie in a folder beside this one
    record["recipe"]["text_model"] = str(base / "encoders" / "bert")
    record["recipe"]["phases"]["lexmlm"] = {"extra_captions": [str(base / "more.jsonl")], "num_steps": 2}
    (model_dir.parent / "run.json").write_text(json.dumps(record))
    parcel = pack(model_dir, NAME)
    assert b"text_model: bert" in parcel.files["recipe.yaml"] and b"- more.jsonl" in parcel.files["recipe.yaml"]
    named = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "README.md", "card.json"}
    assert named <= set(parcel.files) and sorted(parcel.left) == ["notes.txt", "optimizer.pt"]
    assert not [path for path in parcel.files if path.endswith((".py", ".pt"))]
    assert parcel.sizes["model.safetensors"] == (model_dir / "model.safetensors").stat().st_size
    for path, content in parcel.files.items():
        text = content if isinstance(content, bytes) else content.read_bytes()
        assert str(base).encode() not in text and b"_name_or_path" not in text, path


def test_code_is_flat_and_named_in_both_configurations(model_dir):
    parcel = pack(model_dir, NAME, include_code=True)
    code = {path for path in parcel.files if path.endswith(".py")}
    assert {"modeling_lexmotion.py", "processing_lexmotion.py", "skeletons.py"} <= code and "__init__.py" not in code
    config, processor = (json.loads(parcel.files[name]) for name in ("config.json", "processor_config.json"))
    assert config["auto_map"]["AutoModel"] == "modeling_lexmotion.LexMotionModel"
    assert config["text_config"]["auto_map"]["AutoModel"] == "modeling_lexmotion.LexMotionTextModel"
    tasks = {task: entry["impl"] for task, entry in config["custom_pipelines"].items()}
    assert tasks["zero-shot-motion-classification"] == "pipelines_lexmotion.ZeroShotMotionClassificationPipeline"
    assert "pipelines_lexmotion.py" in code
    assert processor["auto_map"] == {"AutoProcessor": "processing_lexmotion.LexMotionProcessor"}
    assert "trust_remote_code=True" in parcel.files["README.md"].decode()
    assert "auto_map" not in json.loads(pack(model_dir, NAME).files["config.json"])


def test_the_head_of_a_phase_travels_with_its_file(model_dir):
    path = model_dir / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": ["LexMotionForContrastiveAlignment"]}))
    (model_dir / "checksums.json").unlink()
    parcel = pack(model_dir, NAME, include_code=True)
    reference = json.loads(parcel.files["config.json"])["auto_map"]["AutoModelForPreTraining"]
    assert reference == "pretraining_lexmotion.LexMotionForContrastiveAlignment"
    assert {"pretraining_lexmotion.py", "layers_lexmotion.py"} <= set(parcel.files)


def test_without_its_code_a_model_names_none(model_dir):
    whole = pack(model_dir, NAME, include_code=True)
    for name in ("config.json", "processor_config.json", "checksums.json"):
        (model_dir / name).write_bytes(whole.files[name])  # as it is after a download
    parcel = pack(model_dir, NAME)
    files = [content if isinstance(content, bytes) else content.read_bytes() for content in parcel.files.values()]
    assert not any(b"auto_map" in content or b"custom_pipelines" in content for content in files)
    assert any("--include-code" in note for note in parcel.notes)


def test_one_commit_then_none(model_dir, hub, api):
    sent = push(pack(model_dir, NAME), NAME, api=api)
    assert sent.changed and repository(hub).messages == ["initial commit", "Upload model"]
    files = repository(hub).commits[sent.commit]
    assert files["model.safetensors"] == (model_dir / "model.safetensors").read_bytes()
    again = push(pack(model_dir, NAME), NAME, api=api)
    assert (again.commit, again.changed) == (sent.commit, False)
    assert hub.asked_for("POST", "/commit/") == 1 and hub.asked_for("PUT", "/lfs/") == 1


def test_a_changed_card_does_not_send_the_weights_again(model_dir, hub, api):
    push(pack(model_dir, NAME), NAME, api=api)
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\n# by hand\n")
    parcel = pack(model_dir, NAME)
    assert "README.md" in parcel.notes[0] and pack(model_dir, NAME, license="mit").notes == parcel.notes
    assert "--license apache-2.0" in pack(model_dir, NAME, license="apache-2.0").notes[1]
    sent = push(parcel, NAME, api=api)
    assert sent.changed and hub.asked_for("PUT", "/lfs/") == 1
    assert repository(hub).commits[sent.commit]["README.md"].endswith(b"# by hand\n")


def test_weights_of_an_earlier_push_do_not_stay_beside_new_ones(model_dir, hub, api):
    shutil.copy(model_dir / "model.safetensors", model_dir / "model-00001-of-00001.safetensors")
    push(pack(model_dir, NAME), NAME, api=api)
    (model_dir / "model-00001-of-00001.safetensors").unlink()
    sent = push(pack(model_dir, NAME), NAME, api=api)
    kept = repository(hub).commits[sent.commit]
    assert "model-00001-of-00001.safetensors" not in kept and {"model.safetensors", ".gitattributes"} <= set(kept)


def test_other_weights_of_the_repository_stay(model_dir, hub, api):
    parcel = pack(model_dir, NAME)
    push(parcel, NAME, api=api)
    others = [
        "onnx/weights.safetensors",
        "adapters/de/model.safetensors",
        "motions.safetensors",
        "model.fp16.safetensors",
    ]
    files = repository(hub).commits[repository(hub).branches["main"]]
    files |= dict.fromkeys([*others, "model-00001-of-00002.safetensors"], b"others")
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\nnew\n")
    parcel = pack(model_dir, NAME)
    told = room.would_delete(parcel, NAME, "not-there-yet", api=api)
    sent = push(parcel, NAME, api=api)
    assert told == list(sent.deleted) == ["model-00001-of-00002.safetensors"]
    assert set(others) <= set(repository(hub).commits[sent.commit])
    assert room.would_delete(parcel, "user/nothing", api=api) == []


def test_a_branch_and_a_tag(model_dir, hub, api, tmp_path):
    first = push(pack(model_dir, NAME), NAME, api=api)
    api.create_tag(NAME, tag="v1")
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\nnew\n")
    second = push(pack(model_dir, NAME), NAME, revision="next", api=api)
    assert second.url.endswith("/tree/next") and repository(hub).branches["main"] == first.commit
    for revision, text in (("v1", "lexmotion-tiny"), ("next", "new")):
        path = Path(api.hf_hub_download(NAME, "README.md", revision=revision, cache_dir=tmp_path))
        assert text in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("where", ["upload", "commit"])
def test_a_connection_that_breaks_is_taken_up_again(model_dir, hub, api, where):
    hub.drop[where] = 1
    sent = push(pack(model_dir, NAME), NAME, api=api)
    assert repository(hub).branches["main"] == sent.commit and len(repository(hub).messages) == 2
    assert "model.safetensors" in repository(hub).commits[sent.commit]


def test_a_push_that_failed_goes_on_with_what_is_missing(model_dir, hub, api):
    (model_dir / "words.png").write_bytes(b"a picture")  # goes as a large file too
    hub.drop["upload"] = 10**6
    with pytest.raises(ConnectionError, match=r"\b3\b.*\bpush\b"):
        push(pack(model_dir, NAME), NAME, api=api)
    assert repository(hub).messages == ["initial commit"]
    hub.drop["upload"] = 0
    arrived = hashlib.sha256(b"a picture").hexdigest()
    hub.objects[arrived] = b"a picture"
    hub.asked.clear()
    assert push(pack(model_dir, NAME), NAME, api=api).changed
    assert hub.asked_for("PUT", arrived) == 0 and hub.asked_for("PUT", "/lfs/") == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("place", ["/api/repos/create", "/api/models/", "/preupload/", "/lfs/", "/commit/"])
def test_a_busy_hub_is_asked_again(model_dir, hub, api, place, status, monkeypatch):
    pauses = []
    monkeypatch.setattr(room.time, "sleep", pauses.append)
    # The client itself sends a large file six times.
    hub.refuse = [(place, status, {"Retry-After": "20"})] * (8 if place == "/lfs/" else 1)
    sent = push(pack(model_dir, NAME), NAME, api=api)
    assert repository(hub).branches["main"] == sent.commit and len(repository(hub).messages) == 2
    assert all(pause <= 30 for pause in pauses)


@pytest.mark.parametrize("place", ["/api/repos/create", "/lfs/", "/commit/"])
def test_a_hub_that_stays_busy_ends_in_one_line(model_dir, hub, place, monkeypatch, capsys):
    from lexmotion import cli

    parcel = pack(model_dir, NAME)
    monkeypatch.setattr(room, "HfApi", lambda: HfApi(endpoint=hub.url, token=TOKEN))
    hub.refuse = [(place, 503, {})] * 100
    with pytest.raises(ConnectionError, match=r"503 3 times; push again"):
        push(parcel, NAME)
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit, match="1"):
        cli.main(["push", str(model_dir), NAME])
    assert "error: the Hub answered with status 503" in capsys.readouterr().err


def test_another_refusal_of_a_large_file_is_one_line(model_dir, hub, api):
    hub.refuse = [("/lfs/", 400, {})]
    with pytest.raises(OSError, match=f"'{NAME}'.*400.*not now"):
        push(pack(model_dir, NAME), NAME, api=api)


@pytest.mark.parametrize("name", ["LICENSE", "model-2.safetensors", "README.md"])
def test_a_link_out_of_the_folder_is_not_followed(model_dir, tmp_path, name):
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    (model_dir / name).symlink_to(secret)
    with pytest.raises(ValueError, match=rf"{name}: .*secret\.txt.*copy"):
        pack(model_dir, NAME)


def test_links_inside_the_folder_and_of_files_that_stay_are_no_matter(model_dir, tmp_path):
    (tmp_path / "secret.txt").write_text("mine")
    (model_dir / "notes.txt").symlink_to(tmp_path / "secret.txt")
    (model_dir / "elsewhere").symlink_to(tmp_path)
    (model_dir / "LICENSE").write_text("terms")
    (model_dir / "LICENSE.txt").symlink_to("LICENSE")
    (model_dir / ".model.99.partial.safetensors").write_bytes(b"half")
    parcel = pack(model_dir, NAME)
    assert {"LICENSE", "LICENSE.txt"} <= set(parcel.files) and "notes.txt" in parcel.left
    assert not any("partial" in path or "secret" in path for path in parcel.files)


def test_no_configuration_carries_a_local_path(model_dir, tmp_path):
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((model_dir / name).read_text())
        places = {"_name_or_path": str(tmp_path), "name_or_path": str(tmp_path)}
        (model_dir / name).write_text(json.dumps(content | places | {"tokenizer_file": str(tmp_path / "t.json")}))
    (model_dir / "checksums.json").unlink()  # written by an older version
    for path, content in pack(model_dir, NAME, include_code=True).files.items():
        text = content if isinstance(content, bytes) else content.read_bytes()
        assert str(tmp_path).encode() not in text, path
        assert path.endswith(".py") or b"name_or_path" not in text, path


@pytest.mark.parametrize("token", ["hf_wrong", False])
def test_whoever_is_not_logged_in_is_told_how(model_dir, hub, token):
    with pytest.raises(PermissionError, match="hf auth login"):
        push(pack(model_dir, NAME), NAME, api=HfApi(endpoint=hub.url, token=token))
    assert hub.repositories == {}


def test_a_repository_that_is_not_there(api):
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("user/nothing")


def test_private_is_private(model_dir, hub, api):
    push(pack(model_dir, NAME), NAME, private=True, api=api)
    assert repository(hub).private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).model_info(NAME)


def test_private_does_not_publish_in_a_repository_that_is_public(model_dir, hub, api):
    push(pack(model_dir, NAME), NAME, api=api)
    before = dict(repository(hub).branches)
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\nsecret\n")
    with pytest.raises(ValueError, match="'user/lexmotion-tiny'.*--private.*settings"):
        push(pack(model_dir, NAME), NAME, private=True, revision="next", api=api)
    assert repository(hub).branches == before


def damage(folder, case):
    if case == "no weights":
        (folder / "model.safetensors").unlink()
    elif case == "pickled weights":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif case == "cut weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif case == "no processor":
        (folder / "processor_config.json").unlink()
    else:
        content = json.loads((folder / "config.json").read_text())
        content["motion_config"]["statistics_hash"] = "0" * 64
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "checksums.json").unlink()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no weights", r"weights.*save_pretrained.*model\.safetensors"),
        ("pickled weights", r"pytorch_model\.bin.*save_pretrained.*model\.safetensors"),
        ("cut weights", r"/model\.safetensors\b"),
        ("no processor", r"processor\.save_pretrained"),
        ("another processor", r"statistics.*\b000000000000\b"),
    ],
)
def test_what_would_be_no_use_is_not_packed(model_dir, case, message):
    damage(model_dir, case)
    with pytest.raises(ValueError, match=message):
        pack(model_dir, NAME)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json.*report\.json.*lexmotion train"):
        pack(tmp_path, NAME)


def test_the_command_lists_without_a_network(model_dir, monkeypatch, capsys):
    from lexmotion import cli

    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main(["push", str(model_dir), NAME, "--dry-run", "--include-code"])
    printed = capsys.readouterr().out
    size = (model_dir / "model.safetensors").stat().st_size
    assert stop.value.code == 0 and f"{size:,}  model.safetensors" in printed and "--dry-run" in printed
    assert "modeling_lexmotion.py" in printed and not (model_dir / "README.md").exists()


@pytest.mark.parametrize("name", ["/x", "user/", "user/bad name!", "user/a/b", "user--x/y", "name"])
def test_a_wrong_name_fails_before_anything_is_sent(name, model_dir, capsys):
    from lexmotion import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(["push", str(model_dir), name, "--dry-run"])
    assert stop.value.code and repr(name) in "".join(capsys.readouterr())


# ----------------------------------------------------------------------------------------------------------- datasets


def test_a_prepared_corpus_goes_and_comes_back(trained, hub, api, tmp_path):
    from lexmotion.processing.corpora.prepare import load_prepared

    parcel = pack(trained / "prepared", NAME)
    assert parcel.restricted is None and not [path for path in parcel.files if path.startswith("cache/")]
    sent = push(parcel, NAME, api=api)
    assert sent.url.endswith(f"/datasets/{NAME}") and not push(pack(trained / "prepared", NAME), NAME, api=api).changed
    api.snapshot_download(NAME, repo_type="dataset", local_dir=tmp_path / "back")
    ours, theirs = load_prepared(trained / "prepared"), load_prepared(tmp_path / "back", cache_dir=tmp_path / "cache")
    assert ours["test"][0] == theirs["test"][0] and set(theirs) == {"train", "validation", "test"}


def test_a_corpus_under_somebody_elses_terms_is_not_published(trained, hub, api, tmp_path):
    folder = tmp_path / "prepared"
    shutil.copytree(trained / "prepared", folder, ignore=shutil.ignore_patterns("cache"))
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(sealed(report | {"source": "humanml3d"})))
    with pytest.raises(ValueError, match="'user/lexmotion-tiny'.*--private.*--license"):
        push(pack(folder, NAME), NAME, api=api)
    assert hub.repositories == {}
    assert push(pack(folder, NAME), NAME, private=True, api=api).changed
    repository(hub, "dataset").private = False
    with pytest.raises(ValueError, match="'user/lexmotion-tiny'.*AMASS.*settings"):
        push(pack(folder, NAME), NAME, private=True, api=api)
    assert pack(folder, NAME, license="cc-by-4.0").restricted is None
    (folder / "README.md").write_text("---\nlicense: other\n---\nresearch only\n")
    with pytest.raises(ValueError, match=r"README\.md.*'other'.*--license.*'cc-by-4\.0'"):
        pack(folder, NAME, license="cc-by-4.0")
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nours\n")
    assert pack(folder, NAME, license="cc-by-4.0").restricted is None
