"""The `lexmotion` command: quick help, every option explained by example, mistakes told in one line."""

import dataclasses
import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lexmotion import LexMotionIndex, cli, shipped
from lexmotion.cli import base
from lexmotion.cli.options import PREPARE, READING
from lexmotion.processing.corpora.options import PrepareOptions
from lexmotion.processing.recordings.options import ReadingOptions

COMMAND = typer.main.get_command(cli.app)
COMMON_OPTIONS = {"help", "debug", "version", "install_completion", "show_completion"}


def leaves(command, path=()):
    """(words, command) of every command that does something."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, command


LEAVES = list(leaves(COMMAND))


def run(*words, **environment):
    """The command in a process of its own, as a user starts it."""
    program = Path(sys.executable).with_name("lexmotion")
    return subprocess.run(
        [program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
    )


def test_the_promised_verbs_are_there():
    verbs = {" ".join(path) for path, _ in LEAVES}
    named = "quickstart, prepare, train, compare, inspect, explain, report figures, encode, encode-captions, demo, "
    named += "benchmark, samples"
    sharing = "card, compact, push, export sentence-transformers"
    measures = "evaluate retrieval, evaluate ridge-floor, evaluate order, evaluate probe"
    searching = "search, index build, index add, index delete, index info"
    assert {*named.split(", "), *measures.split(", "), *searching.split(", "), *sharing.split(", ")} == verbs


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_every_option_is_explained_with_an_example(path, command):
    assert "Example: " in command.help and f"lexmotion {' '.join(path)}" in command.help
    for parameter in command.params:
        if parameter.name in COMMON_OPTIONS or parameter.param_type_name == "argument":
            continue
        assert f"Example: {parameter.opts[0]}" in parameter.help, f"{path} {parameter.name}: {parameter.help}"


def test_the_id_of_a_file_is_its_name_unless_the_index_has_the_stem(tmp_path, monkeypatch):
    from lexmotion.evaluation.search import add_files

    with LexMotionIndex.build(np.ones((1, 3)), ids=["kick"], folder=tmp_path / "index") as index:
        monkeypatch.setattr(index, "encode", lambda motion, fps: np.ones((len(motion), 3)))
        files, motions = (
            [tmp_path / "kick.bvh", tmp_path / "jump.bvh"],
            [(SimpleNamespace(model_input=None), 20.0)] * 2,
        )
        assert add_files(index, files, motions, True, [ReadingOptions()] * 2) == ["kick", "jump.bvh"]
        assert len(index) == 2


@pytest.mark.parametrize("path", [(), *[path for path, _ in LEAVES]], ids=" ".join)
def test_help_is_shown(path):
    result = CliRunner().invoke(cli.app, [*path, "--help"], prog_name="lexmotion")
    assert result.exit_code == 0 and "Usage:" in result.output


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_help_shows_every_option_and_extra_in_80_columns(path, command):
    shown = CliRunner().invoke(cli.app, [*path, "--help"], prog_name="lexmotion", env={"COLUMNS": "80"}).output
    words = shown.split()
    assert [one.opts[0] for one in command.params if one.opts[0].startswith("--") and one.opts[0] not in words] == []
    written = " ".join([command.help or "", *(getattr(one, "help", None) or "" for one in command.params)])
    extras = re.findall(r"lexmotion\\?\[[a-z]+\]", written)
    assert all(extra.replace("\\", "") in shown for extra in extras)


@pytest.mark.parametrize(
    ("command", "text", "shown"),
    [
        ("index add", "id 'a' is in the index; pass replace=True", "id 'a' is in the index; pass --replace"),
        ("index delete", "nothing was deleted; pass missing_ok=True", "nothing was deleted; pass --missing-ok"),
        ("search", "model 'x': gone; pass model=... instead", "model 'x': gone; pass --model instead"),
        ("prepare", "max_frames: got 3; pass min_frames=2", "--max-frames: got 3; pass min_frames=2"),
        ("index build", "uri: got 'x'; pass engine='milvus'", "--uri: got 'x'; pass --engine milvus"),
        ("index build", "index: all are copied; leave out splits=...", "--index: all are copied; leave out --split"),
        ("inspect", "joints are unknown; pass mapping='rig.json'", "joints are unknown; pass --mapping rig.json"),
        ("inspect", 'left out (fps=...); remove key="it\'s"', "left out (--fps); remove --key 'it'\"'\"'s'"),
        ("prepare", "no test; pass splits={'test': 'my ids.txt'}", "no test; pass --split 'test=my ids.txt'"),
        ("prepare", "pass shard='1/2' and overwrite=True", "pass --shard 1/2 and --overwrite"),
        ("train", "id 'replace=1' and a.replace=True: kept", "id 'replace=1' and a.replace=True: kept"),
    ],
)
def test_errors_name_options_for_arguments(command, text, shown):
    assert base.with_flags(text, base.flags_of([*command.split(), "INDEX"])) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(errno.ENOTDIR, "not a directory; a file is in the way"), (errno.EIO, "check the path")]
)
def test_errors_of_the_operating_system_name_the_file_and_a_remedy(number, shown):
    text = base.plain(OSError(number, "Not a directory", "taken/data"))
    assert text.startswith("taken/data: ") and shown in text and "Errno" not in text
    assert base.plain(OSError("shard 3: damaged; write it again")) == "shard 3: damaged; write it again"


def test_an_item_that_exists_is_replaced_with_an_option(tmp_path, capsys):
    with LexMotionIndex.build(np.ones((1, 3)), ids=["kick"], folder=tmp_path / "index"):
        pass
    with pytest.raises(SystemExit):
        cli.main(["index", "delete", str(tmp_path / "index"), "jump"])
    assert "'jump'" in (error := capsys.readouterr().err) and "--missing-ok" in error and "=True" not in error


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["--help"], {"torch", "transformers", "datasets", "numpy"}),
        (["inspect", "kick.npy"], {"torch", "transformers", "datasets", "scipy"}),
        (["index", "info", "nowhere"], {"torch", "transformers", "datasets"}),
    ],
)
def test_a_verb_loads_no_heavy_library_that_it_does_not_use(words, unused, tmp_path):
    np.save(tmp_path / "kick.npy", np.zeros((30, 22, 3), dtype=np.float32) + np.arange(22)[:, None] / 20)
    code = (
        f"import sys; sys.argv = {['lexmotion', *words]}\n"
        "from lexmotion.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {unused} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_version():
    result = run("--version")
    assert result.returncode == 0 and result.stdout.startswith("lexmotion 0.")


MISTAKES = [
    (["train", "--dataset", "nowhere", "--output-dir", "out", "--set", "seed"], "--set ... NAME=VALUE ... 'seed'"),
    (["prepare", "nowhere", "--output-dir", "out"], "nowhere"),
    (["prepare", "nowhere", "--output-dir", "out", "--split", "train"], "--split ... NAME=VALUE ... 'train'"),
    (["train", "--dataset", "d", "--output-dir", "out", "--set", "a=1", "--set", "a=2"], "--set a ... '1' ... '2'"),
    (["evaluate", "probe", "--model", "./nowhere", "--dataset", "nowhere"], "'./nowhere' ... cmmm"),
    (["train", "--recipe", "tiny", "--dataset", "nowhere", "--output-dir", "out"], "nowhere"),
    (["train", "--dataset", "nowhere", "--output-dir", "out", "--recipe", "giant"], "giant"),
    (["evaluate", "retrieval", "--model", "./nowhere", "--dataset", "nowhere"], "nowhere"),
    (["explain", "--model", "./nowhere", "--motion", "kick.npy"], "kick.npy"),
    (["encode", "--model", "./nowhere", "--dataset", "nowhere", "--output-dir", "out"], "'./nowhere'"),
    (["search", "./nowhere", "a person kicks"], "'nowhere' ... manifest.json"),
    (["search", "./nowhere", "a person kicks", "--boost", "left"], "--boost ... NAME=VALUE ... 'left'"),
    (["search", "./nowhere", "a person kicks", "--boost", "left=much"], "--boost ... WORD=NUMBER ... left=much"),
    (["search", "./nowhere", "a person kicks", "--motion", "kick.bvh"], "text ... --motion"),
    (["search", "./nowhere", "--motion", "kick.bvh"], "'kick.bvh'"),
    (["search", "./nowhere", "a person kicks", "--dataset", "absent"], "'absent' ... lexmotion prepare"),
    (["explain"], "lexmotion explain kick.bvh"),
    (["explain", "kick.bvh", "--motion", "jump.bvh"], "pass one file"),
    (["explain", "kick.bvh"], "'kick.bvh'"),
    (["index", "build", "out"], "motion files ... --vectors ... --dataset ... --index"),
    (["index", "build", "out", "--dataset", "nowhere"], "'nowhere' ... lexmotion prepare"),
    (["index", "build", "out", "nowhere"], "nowhere ... not found"),
    (["index", "build", "out", "nowhere", "--dataset", "nowhere"], "--vectors ... --dataset"),
    (["index", "build", "out", "nowhere", "--split", "test"], "files have no splits ... --split"),
    (["compact", "./nowhere", "out"], "'./nowhere' ... lexmotion train"),
    (["index", "build", "out", "--vectors", "nowhere"], "nowhere ... lexmotion encode"),
    (["index", "add", "out"], "motion files ... --vectors DIR"),
    (["index", "add", "out", "kick.bvh"], "'kick.bvh'"),
    (["index", "delete", "out", "kick"], "'out' ... lexmotion index build"),
    (["index", "info", "out"], "'out' ... lexmotion index build"),
    (["push", "nowhere", "user/name"], "nowhere ... config.json ... report.json ... lexmotion train"),
    (["push", "nowhere", "name"], "USER/NAME ... 'name'"),
    (["card", "nowhere"], "nowhere ... config.json"),
    (
        ["evaluate", "retrieval", "--model", "m/m", "--dataset", "d", "--dissimilar-ids", "no.txt"],
        "no.txt: no such file",
    ),
    (["index", "build", "out", "--index", "old", "--split", "test"], "--index ... --split"),
    (["demo", "./nowhere"], "'./nowhere' ... lexmotion quickstart"),
    (["demo", "./nowhere", "--dataset", "nowhere"], "'./nowhere'"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words[:2]) for words, _ in MISTAKES])
def test_a_mistake_ends_in_one_clear_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert (
        all(part in error.replace("\n", " ") for part in message.split(" ... "))
        and error.startswith("error: ")
        and "Traceback" not in error
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["explain", "kick.bvh"], ["index", "build", "out", "."], ["compact", "small", "out"], ["demo"]],
    ids=lambda words: words[0],
)
def test_without_weights_a_command_asks_for_a_model(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "none")
    (tmp_path / "kick.bvh").write_bytes((shipped.SAMPLES / "kick.bvh").read_bytes())
    with pytest.raises(SystemExit, match="1"):
        cli.main(words)
    error = capsys.readouterr().err
    assert "'small': this lexmotion was built without weights; pass a model folder" in error.replace("\n", " ")
    assert [file.name for file in tmp_path.iterdir()] == ["kick.bvh"]


def test_debug_keeps_the_traceback(monkeypatch):
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(ValueError, match="NAME=VALUE.*'seed'"):
        cli.main(["train", "--dataset", "x", "--output-dir", "y", "--set", "seed"])


def test_the_debug_flag_sets_the_variable(monkeypatch):
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "")
    with pytest.raises(ValueError, match="NAME=VALUE.*'seed'"):
        cli.main(["--debug", "train", "--dataset", "x", "--output-dir", "y", "--set", "seed"])


def test_a_defect_is_not_hidden(monkeypatch):
    monkeypatch.setattr(base, "app", lambda **_: {}["defect"])
    with pytest.raises(KeyError):
        cli.main([])


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "app", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 130 and "lexmotion train" in capsys.readouterr().err


def test_an_unknown_option_is_refused():
    result = CliRunner().invoke(cli.app, ["train", "--learning-speed", "3"])
    assert result.exit_code == 2


def test_pairs():
    assert cli.training.parse_pairs(["a=1", "b=x=y"], "--set", "a=1") == {"a": "1", "b": "x=y"}
    assert cli.training.parse_pairs([], "--set", "a=1") == {}
    assert cli.data.parse_lists(["a=1", "b=2", "a=3"], "--split", "a=1") == {"a": ["1", "3"], "b": ["2"]}


@pytest.mark.parametrize(
    ("words", "options", "offered"), [("prepare", PrepareOptions, PREPARE), ("inspect", ReadingOptions, READING)]
)
def test_options_of_a_dataclass_are_those_of_the_command(words, options, offered):
    command = dict(LEAVES)[(words,)]
    shown = {parameter.name: parameter for parameter in command.params}
    for field in dataclasses.fields(options):
        assert f"    {field.name}: " in options.__doc__
        if field.name in offered:
            assert shown[field.name].default == (field.default or None)
            assert len(shown[field.name].help.split(" Example: ")[0]) > 10
