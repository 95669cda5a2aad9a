"""
OpenAI's `clip` module with LexMotion as its text encoder.

`lexmotion encode-captions` writes a copy of this file as `clip.py` beside a table of encoded captions. The copy needs
numpy, torch >= 1.7 and Python >= 3.6 but not LexMotion, so that it runs in the environment of a generator:

    PYTHONPATH=FOLDER python -m train.train_mdm ...     `import clip` finds this file
    python FOLDER/clip.py train.train_mdm ...           the same; `python FOLDER/clip.py --help` shows the options

Inside LexMotion, `install_clip_shim` puts a model in place of the table. Only the models named in REPLACED are
replaced; others, and all other names of `clip`, are those of OpenAI's package if it is installed.
"""

import argparse
import copy
import importlib.machinery
import importlib.util
import os
import re
import runpy
import sys
import types

import numpy as np
import torch
from torch import nn

FORMAT = "lexmotion captions 1"
TABLE = "captions.npz"  # in the folder of this file
REPLACED = ("ViT-B/32",)  # which MDM, T2M-GPT, MoMask and MARDM generate with
CONTEXT_LENGTH = 77
MODULES = ("clip", "clip.model")
OPENAI = "pip install git+https://github.com/openai/CLIP.git"
CLIP_NAME = re.compile(r"(RN|ViT-)[\w@/-]+")  # other names are names of transformers
# Parts of CLIP that programs reach into.
CLIP_PARTS = (
    "token_embedding",
    "positional_embedding",
    "transformer",
    "ln_final",
    "logit_scale",
    "attn_mask",
    "visual",
    "encode_image",
)


def normalise(caption):
    """Return a caption as it stands in a table: with single spaces and no byte order mark."""
    return " ".join(caption.replace("\ufeff", " ").split())


def cut(row, longest):
    """Cut token ids to `longest`; the last one, [SEP], stays."""
    return row if len(row) <= longest else row[: longest - 1] + row[-1:]


def missing_part(name):
    """Return the error for a part of CLIP that LexMotion does not have."""
    return AttributeError(
        f"clip_model.{name}: LexMotion replaces encode_text of CLIP only; a program that reads other parts must "
        f"load a model that is not replaced (--replace names those that are; the others need `{OPENAI}`)"
    )


class Shared(dict):
    """A dictionary that copies of a model share."""

    def __deepcopy__(self, memo):
        return self


class Fields(dict):
    """A dictionary whose values are also attributes, like the outputs of transformers."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(f"{name}: LexMotion returns {', '.join(self)} only")
        return self[name]

    def to(self, device):
        """Return the tensors on another device."""
        return Fields({name: value.to(device) for name, value in self.items()})


# --------------------------------------------------------------------------------------------------------- the table


class CaptionTable(nn.Module):
    """
    Text encoder that looks captions up in a file written by `lexmotion encode-captions`.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a caption table.
    """

    def __init__(self, path):
        super().__init__()
        path = os.path.abspath(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: no such table; `lexmotion encode-captions` writes it beside clip.py")
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file.files or str(file["format"]) != FORMAT:
                raise ValueError(f"{path}: not a caption table of this version; run `lexmotion encode-captions` again")
            data = Shared((name, file[name]) for name in file.files)
        self.path, self.data = path, data
        self.longest = int(data["longest"])
        dim, token_dim = data["vectors"].shape[1], data["tokens"].shape[1] if "tokens" in data else None
        self.config = types.SimpleNamespace(dim=dim, token_dim=token_dim)
        captions = data.pop("captions").tobytes().decode("utf-8").split("\n")
        data["places"] = {caption: place for place, caption in enumerate(captions)}
        data["rows"] = {row: place for place, row in enumerate(self._rows())}
        self.translated = Shared()
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells the device and the precision

    def _rows(self):
        ids, ends = self.data["ids"].tolist(), self.data["ends"].tolist()
        return [tuple(ids[start:end]) for start, end in zip([0] + ends[:-1], ends)]

    def __getattr__(self, name):
        if name in CLIP_PARTS:
            raise missing_part(name)
        return super().__getattr__(name)

    @property
    def captions(self):
        """Captions of the table, in its order."""
        return list(self.data["places"])

    @property
    def device(self):
        """Device of the vectors that are returned."""
        return self.place.device

    @property
    def dtype(self):
        """Precision of the vectors that are returned."""
        return self.place.dtype

    def token_rows(self, texts):
        """Return for each caption its token ids, at most `longest`, and the number of all its tokens."""
        found = []
        for text in texts:
            place = self.data["places"].get(normalise(text))
            if place is None:
                raise ValueError(
                    f"caption {text!r}: not in {self.path}; add it to a text file, one caption per line, and run "
                    f"`lexmotion encode-captions --model {self.data['model']} --captions FILE --output "
                    f"{os.path.basename(self.path)}`, which adds it to the table"
                )
            row = int(self.data["row_of"][place])
            start = int(self.data["ends"][row - 1]) if row else 0
            ids = self.data["ids"][start : int(self.data["ends"][row])]
            found.append((tuple(ids.tolist()), int(self.data["lengths"][place])))
        return found

    def _places(self, ids):
        places = []
        for row in ids.tolist():
            while len(row) > 1 and row[-1] == 0:
                row.pop()
            row = tuple(row)
            row = self.translated.get(row, row)
            if row not in self.data["rows"]:
                raise ValueError(
                    f"token ids: a row of {len(row)} is not in {self.path}; create ids with clip.tokenize, or, if the "
                    "program truncates them, pass its length to `lexmotion encode-captions --context-length`"
                )
            places.append(self.data["rows"][row])
        return np.array(places, dtype=np.int64)

    def encode_text(self, ids):
        """Return vectors (B, D) for token ids (B, L) of `clip.tokenize`."""
        return torch.from_numpy(self.data["vectors"][self._places(ids)]).to(self.device, self.dtype)

    def encode_tokens(self, ids):
        """Return token states (B, T, D), zero in the padding, and their mask (B, T), True = token."""
        if "tokens" not in self.data:
            raise ValueError(
                f"{self.path}: contains no token states; add them with `lexmotion encode-captions --tokens`"
            )
        ends, rows = self.data["ends"], []
        for place in self._places(ids):
            start = int(ends[place - 1]) if place else 0
            rows.append(torch.from_numpy(self.data["tokens"][start : int(ends[place])].astype(np.float32)))
        states = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(states.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        return states.to(self.device, self.dtype), mask.to(self.device)


# --------------------------------------------------------------------------------------------------- the clip module


def _no_images(*_):
    raise NotImplementedError(
        "clip: replaced by LexMotion's text encoder, which does not encode images; use OpenAI's clip"
    )


class Clip(types.ModuleType):
    """
    A module with the interface of `clip`.

    Args:
        model: text encoder, a `CaptionTable` or LexMotion's conditioner; `load` returns copies of it.
        replaced: names of the models to replace, as passed to `clip.load`, or to `AutoModel` and `AutoTokenizer` of
            transformers (`"distilbert/distilbert-base-uncased"`).
        own_lengths: allow a `LengthEstimator`; set it if the estimator was trained on LexMotion's vectors.
    """

    def __init__(self, model, replaced=REPLACED, own_lengths=False):
        super().__init__("clip", __doc__)
        self._encoder, self._replaced, self._own_lengths = model, tuple(replaced), own_lengths
        self._openai, self._both, self._translated = None, False, Shared()
        self._hidden, self._undo = None, []
        self.loaded = set()  # of the names that are replaced
        self.model = ClipModel(self)
        for module, name in zip((self, self.model), MODULES):
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=name == "clip")

    @property
    def __path__(self):
        """Folder of OpenAI's package, if it is installed, for `import clip.simple_tokenizer`."""
        folder = openai_folder()
        return [] if folder is None else [folder]

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"module 'clip' has no attribute {name!r}")
        return getattr(self._real(f"clip.{name}", AttributeError), name)

    def _real(self, wanted, error):
        """Return OpenAI's module, imported under another name."""
        if self._openai is None:
            folder = openai_folder()
            if folder is None:
                raise error(
                    f"{wanted}: LexMotion replaces the text encoder of {', '.join(self._replaced)} only, and OpenAI's "
                    f"clip is not installed for the rest; install it (`{OPENAI}`), or name the model with --replace"
                )
            name = "openai_clip_behind_lexmotion"
            file = os.path.join(folder, "__init__.py")
            spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[folder])
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
            self._openai = module
        return self._openai

    def available_models(self):
        """Return the names that `load` replaces, then those of OpenAI's package if it is installed."""
        others = self._real("clip", RuntimeError).available_models() if openai_folder() else []
        return list(self._replaced) + [name for name in others if name not in self._replaced]

    def load(self, name=REPLACED[0], device=None, jit=False, download_root=None):
        """
        Return a new copy of the text encoder, and an image preprocessor that always raises.

        Args:
            name: a replaced name. Others load a model of OpenAI's package, and `tokenize` then returns its ids, which
                the copies read as well.
            device: of the model; None is a GPU if available, as in clip.
            jit, download_root: for OpenAI's package.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if name not in self._replaced:
            options = {} if download_root is None else {"download_root": download_root}
            loaded = self._real(f"clip.load({name!r})", RuntimeError).load(name, device=device, jit=jit, **options)
            self._both = True
            return loaded
        self.loaded.add(name)
        self._guard_lengths()
        return self.new_encoder().to(device), _no_images

    def new_encoder(self):
        """Return a copy of the text encoder that reads what `tokenize` has returned."""
        model = copy.deepcopy(self._encoder)
        model.translated = self._translated
        return model

    def tokenize(self, texts, context_length=CONTEXT_LENGTH, truncate=False):
        """
        Tokenize captions to (B, C) int32 token ids, 0 = padding.

        Args:
            texts: B captions.
            context_length: C, including [CLS] and [SEP].
            truncate: whether to truncate longer captions.

        Raises:
            RuntimeError: if a caption is longer and `truncate` is off (same error type as clip).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        longest = min(context_length, self._encoder.longest)
        table = torch.zeros(len(texts), context_length, dtype=torch.int32)
        rows = []
        for place, (row, length) in enumerate(self._encoder.token_rows(texts)):
            if length > longest and not truncate:
                raise RuntimeError(
                    f"{texts[place]!r}: {length} tokens exceed the context length of {longest}; pass truncate=True"
                )
            rows.append(cut(row, longest))
            table[place, : len(rows[-1])] = torch.tensor(rows[-1], dtype=torch.int32)
        if not self._both:
            return table
        theirs = self._real("clip.tokenize", RuntimeError).tokenize(texts, context_length, truncate)
        for row, ours in zip(theirs.tolist(), rows):
            while row and row[-1] == 0:
                row.pop()
            self._translated[tuple(row)] = ours
        return theirs

    def _guard_lengths(self):
        """Refuse length estimators that were trained on CLIP's vectors; otherwise they would be silently wrong."""
        for module in list(sys.modules.values()):
            found = getattr(module, "__dict__", {}).get("LengthEstimator")
            if not self._own_lengths and isinstance(found, type) and issubclass(found, nn.Module):
                self._guard(found)

    def _guard(self, estimator):
        original = estimator.forward
        if any(changed is estimator for changed, _, _ in self._undo):
            return

        def forward(network, *args, **kwargs):
            if not network.training:
                raise RuntimeError(
                    "LengthEstimator: the published one reads CLIP's vectors, not LexMotion's; pass the length of "
                    "each motion (MoMask, MARDM: --motion_length N, or lines CAPTION#N), or pass --own-lengths if "
                    "it was trained on LexMotion's vectors"
                )
            return original(network, *args, **kwargs)

        self._undo.append((estimator, "forward", original))
        estimator.forward = forward

    def install(self):
        """Make `import clip` return this module, in place of an installed clip."""
        if self._hidden is None:
            self._hidden = {name: sys.modules[name] for name in MODULES if name in sys.modules}
            names = [name for name in self._replaced if not CLIP_NAME.fullmatch(name)]
            if names:
                self._replace_in_transformers(names)
        sys.modules.update(zip(MODULES, (self, self.model)))
        return self

    def _replace_in_transformers(self, names):
        import transformers

        for auto, kind in ((transformers.AutoTokenizer, NamedTokenizer), (transformers.AutoModel, NamedModel)):
            self._undo.append((auto, "from_pretrained", auto.from_pretrained))

            def from_pretrained(name, *args, kind=kind, original=auto.from_pretrained, **kwargs):
                if str(name) not in names:
                    return original(name, *args, **kwargs)
                self.loaded.add(str(name))
                return kind(self.new_encoder())

            auto.from_pretrained = staticmethod(from_pretrained)

    def unused(self):
        """Return the replaced names that nothing has loaded."""
        return [name for name in self._replaced if name not in self.loaded]

    def remove(self):
        """Undo `install`."""
        if self._hidden is None:
            return
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(self._hidden)
        self._hidden = None
        while self._undo:
            setattr(*self._undo.pop())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


class ClipModel(types.ModuleType):
    """The module `clip.model`."""

    def __init__(self, clip):
        super().__init__(MODULES[1])
        self._clip = clip

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"module 'clip.model' has no attribute {name!r}")
        return getattr(self._clip._real(f"clip.model.{name}", AttributeError).model, name)

    def convert_weights(self, model):
        """Halve the precision of CLIP's weights in place; LexMotion's stay as loaded."""
        if not hasattr(model, "token_rows"):
            self._clip._real("clip.model.convert_weights", RuntimeError).model.convert_weights(model)


def openai_folder():
    """Return the folder of OpenAI's package, None if it is not installed."""
    for place in sys.path:
        folder = os.path.join(place or os.getcwd(), "clip")
        if os.path.isfile(os.path.join(folder, "simple_tokenizer.py")):
            return folder
    return None


# --------------------------------------------------------------------------------- models that transformers would load


class NamedTokenizer:
    """What `AutoTokenizer.from_pretrained` returns for a replaced name; calls return tensors."""

    pad_token_id = 0

    def __init__(self, encoder):
        self.encoder = encoder
        self.model_max_length = encoder.longest

    def __call__(self, texts, padding=False, truncation=None, max_length=None, return_tensors="pt", **_):
        texts = [texts] if isinstance(texts, str) else list(texts)
        longest = min(max_length or self.model_max_length, self.model_max_length)
        rows = [cut(row, longest) for row, _ in self.encoder.token_rows(texts)]
        width = longest if padding == "max_length" else max([len(row) for row in rows] or [0])
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        return Fields(input_ids=ids, attention_mask=(torch.arange(width) < ids.ne(0).sum(1)[:, None]).long())


class NamedModel(nn.Module):
    """What `AutoModel.from_pretrained` returns for a replaced name: the interface of BERT and of CLIP's text side."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        dim, token_dim = encoder.config.dim, encoder.config.token_dim
        text_config = types.SimpleNamespace(hidden_size=dim)
        self.config = types.SimpleNamespace(hidden_size=token_dim, projection_dim=dim, text_config=text_config)

    def train(self, mode=True):
        """Stay in evaluation mode."""
        return super().train(False)

    @property
    def text_model(self):
        return self

    @property
    def device(self):
        return self.encoder.device

    @property
    def dtype(self):
        return self.encoder.dtype

    def forward(self, input_ids, attention_mask=None, **_):
        """Return token states (B, L, D) as `last_hidden_state`, zero in the padding."""
        states = self.encoder.encode_tokens(input_ids)[0]
        return Fields(last_hidden_state=nn.functional.pad(states, (0, 0, 0, input_ids.shape[1] - states.shape[1])))

    def get_text_features(self, input_ids, attention_mask=None, **_):
        """Return one vector per caption (B, D)."""
        return self.encoder.encode_text(input_ids)


# -------------------------------------------------------------------------------------------------------- the launcher


def program_parser(prog, description):
    """Return a parser of the options of a launcher, which end with the program to run."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--replace",
        action="append",
        metavar="NAME",
        help="name of a model to replace, as the program passes it to clip.load or AutoModel.from_pretrained; "
        f"repeatable (default: {', '.join(REPLACED)})",
    )
    parser.add_argument(
        "--own-lengths", action="store_true", help="allow a LengthEstimator that was trained on LexMotion's vectors"
    )
    parser.add_argument("program", help="script, or module as for `python -m`")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def find_program(program, arguments):
    """
    Return a call that runs a script or a module as Python would, and put its folder first on `sys.path`.

    Raises:
        FileNotFoundError: if the script or module does not exist.
    """
    script = os.path.isfile(program) or program.endswith(".py") or os.sep in program
    sys.path[0] = os.path.dirname(os.path.abspath(program)) if script else os.getcwd()
    try:
        exists = os.path.isfile(program) if script else importlib.util.find_spec(program) is not None
    except ModuleNotFoundError:  # a package above it
        exists = False
    if not exists:
        kind = "script" if script else "module"
        raise FileNotFoundError(f"{program}: no such {kind} in {os.getcwd()}; run this in the generator's folder")

    def run():
        sys.argv[:] = [program] + list(arguments)
        if script:
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)

    return run


def run_with(clip, run):
    """Run a program with `clip` installed; afterwards, name the models that it never loaded."""
    clip.install()
    try:
        run()
    finally:
        for name in clip.unused():
            sys.stderr.write(f"lexmotion: {name} was never loaded, so it was not replaced\n")
        clip.remove()


def main(argv=None):
    """Run a program with the table beside this file."""
    options = program_parser("clip.py", "Run a motion generator with LexMotion's text encoder.").parse_args(argv)
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        table = CaptionTable(os.path.join(folder, TABLE))
        run = find_program(options.program, options.arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.path.insert(1, folder)  # of processes that do not inherit this module
    run_with(Clip(table, options.replace or REPLACED, options.own_lengths), run)


if __name__ == "clip":
    Clip(CaptionTable(os.path.join(os.path.dirname(os.path.abspath(__file__)), TABLE))).install()
elif __name__ == "__main__":
    main()
