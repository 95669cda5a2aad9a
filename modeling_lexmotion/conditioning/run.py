"""
Run a motion generator unedited, with LexMotion as its text encoder: `python -m lexmotion.conditioning.run`.

    python -m lexmotion.conditioning.run --model MODEL train.train_mdm --save_dir save/lexmotion

Run it in the generator's folder, with the module or script and its arguments as for Python. It restores names that
numpy and matplotlib have removed, replaces the text encoder that the generator loads, and starts the generator.
"""

import importlib
import sys
from collections.abc import Sequence

from ..shipped import DEFAULT
from .clip_shim import ClipShim
from .clip_table import REPLACED, find_program, program_parser, run_with
from .compat import restore_removed_names
from .text_conditioner import LexMotionTextConditioner
from .word_states import T2MTextEncoder

T2M_ENCODER = "TextEncoderBiGRU"  # T2M has no name of a model; this is its class


def replace_t2m_encoder(conditioner: LexMotionTextConditioner) -> None:
    """Replace the text encoder of T2M, in whose folder the program runs, and read its table of word vectors."""
    modules = importlib.import_module("networks.modules")
    words = importlib.import_module("utils.word_vectorizer").WordVectorizer("./glove", "our_vab").word2vec

    def encoder(word_size: int, pos_size: int, hidden_size: int, device: object = None) -> T2MTextEncoder:
        return T2MTextEncoder(conditioner, words, hidden_size)

    setattr(modules, T2M_ENCODER, encoder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a program.

    Args:
        argv: arguments after the name of this module; None reads `sys.argv`.
    """
    parser = program_parser(
        "python -m lexmotion.conditioning.run", "Run a motion generator with LexMotion's text encoder."
    )
    parser.add_argument(
        "--model",
        default=DEFAULT,
        help="LexMotionModel or saved conditioner: folder, Hub name, or one of the package (default: %(default)s)",
    )
    parser.add_argument("--dim", type=int, help="width of caption vectors (default: 512, as for CLIP ViT-B/32)")
    parser.epilog = f"For T2M, which does not load its text encoder by name, pass --replace {T2M_ENCODER}."
    options = parser.parse_args(argv)
    names = [name for name in options.replace or REPLACED if name != T2M_ENCODER]
    restore_removed_names()
    try:
        run = find_program(options.program, options.arguments)
        shim = ClipShim(options.model, names, options.own_lengths, dim=options.dim)
        if options.replace and T2M_ENCODER in options.replace:
            replace_t2m_encoder(shim.new_encoder())
    except (OSError, ValueError, ImportError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    run_with(shim, run)


if __name__ == "__main__":
    main()
