"""Encode captions as sparse word vectors, print the words of each, and how similar they are.

python examples/encode_captions.py "a person walks forward" "someone strides ahead" "a man sits down"
"""

import argparse
import sys

import numpy as np

from lexmotion.evaluation.loading import load_model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="*", default=["a person walks forward", "someone kicks twice"])
    parser.add_argument("--model", default="./quickstart/model", help="folder or Hub name (default: %(default)s)")
    parser.add_argument("-k", type=int, default=8, help="words to print per caption (default: %(default)s)")
    arguments = parser.parse_args(argv)

    # AutoModel and AutoProcessor, with a remedy in the error if there is no such model.
    model, processor = load_model(arguments.model, remedy="run `lexmotion quickstart`, or pass --model")
    vectors = model.encode_text(arguments.captions, processor=processor)  # (N, V) scipy CSR matrix
    for caption, vector in zip(arguments.captions, vectors, strict=True):
        words = processor.lexicon.top_words(vector.toarray(), k=arguments.k)[0]
        print(f"{caption}\n    " + ", ".join(f"{word} {weight:.2f}" for word, weight in words))

    norms = np.sqrt(vectors.multiply(vectors).sum(axis=1))
    print(np.round((vectors @ vectors.T).toarray() / np.maximum(norms @ norms.T, 1e-12), 3))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # such as a missing folder
        sys.exit(f"error: {error}")
