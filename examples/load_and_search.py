"""Build a search index over a prepared corpus with a trained model, and search it by text.

The defaults use what `lexmotion quickstart` leaves in the folder `quickstart`:

    python examples/load_and_search.py "a person kicks with the left leg" --boost left=2
"""

import argparse
import sys

from lexmotion import LexMotionIndex
from lexmotion.evaluation.loading import load_model
from lexmotion.processing.corpora.prepare import load_prepared


def word_and_factor(text: str) -> tuple[str, float]:
    word, _, factor = text.partition("=")
    return word, float(factor)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="a person kicks", help="query (default: %(default)s)")
    parser.add_argument("--model", default="./quickstart/model", help="folder or Hub name (default: %(default)s)")
    parser.add_argument("--dataset", default="quickstart/prepared", help="prepared corpus (default: %(default)s)")
    parser.add_argument("--split", default="test", help="split to search (default: %(default)s)")
    parser.add_argument("--index", help="folder to keep the index in; without it, the index lives in memory")
    boost: dict = {"type": word_and_factor, "action": "append", "default": [], "metavar": "WORD=FACTOR"}
    parser.add_argument("--boost", help="weigh a word of the query differently; repeatable", **boost)
    parser.add_argument("-k", type=int, default=5, help="number of hits (default: %(default)s)")
    arguments = parser.parse_args(argv)

    model, processor = load_model(arguments.model, remedy="run `lexmotion quickstart`, or pass --model")
    clips = load_prepared(arguments.dataset, splits=[arguments.split])[arguments.split]
    index = LexMotionIndex.build(
        model.encode_motion(clips, processor=processor),
        metadata=[{"caption": captions[0]} for captions in clips["captions"]],
        ids=clips["id"],
        folder=arguments.index,
        processor=processor,
        model=model,
    )

    for hit in index.search(arguments.text, k=arguments.k, boost=dict(arguments.boost)):
        words = ", ".join(f"{word} {share:.2f}" for word, share in hit.words[:5])
        print(f"{hit.score:.3f}  {hit.id}  {hit.metadata['caption']}\n       {words}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # such as a missing folder
        sys.exit(f"error: {error}")
