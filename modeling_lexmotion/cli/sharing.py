"""Commands for sharing a model: `card`, `compact`, `push`, `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lexmotion.common.text import counted
from lexmotion.evaluation.loading import load_model

from .base import app, export_app, terminal
from .loading import begin
from .options import SPLIT_NAMES

if TYPE_CHECKING:
    from lexmotion.hub_cards.push import Parcel


@app.command()
def card(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder of a trained model.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name on the Hub; if unset, from the existing card or the folder. Example: --name user/model"
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Result file of `lexmotion evaluate ... --output`, repeatable; if unset, results near the model or "
            "on the existing card. Example: --results results.json"
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Prepared corpus to draw from; if unset, the training corpus. Example: --dataset prepared"),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the motions to show. Example: --split test")] = "test",
    picture: Annotated[
        bool, typer.Option("--picture/--no-picture", help="Draw three motions and their words. Example: --picture")
    ] = True,
    corpus: Annotated[
        str | None, typer.Option(help="Name of the corpus; if unset, as recorded. Example: --corpus HumanML3D")
    ] = None,
    corpus_license: Annotated[
        str | None,
        typer.Option(help='Corpus licence in words; if unset, as known. Example: --corpus-license "own recordings"'),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence id of the weights; if unset, from the corpus. Example: --license apache-2.0"),
    ] = None,
) -> None:
    """Rewrite the model card from the run record and results: README.md, card.json and recipe.yaml.

    The same record and results give the same card. It shows three held-out motions with the words the model predicts.
    Manual changes to README.md are lost; use the options instead.

    Example: [bold]lexmotion card runs/small/model --name user/small --results results.json[/]
    """
    begin()
    from lexmotion.hub_cards.model_card import ModelCard, corpus_folder, load_evaluation

    earlier = ModelCard.of_folder(model)
    evaluations = [load_evaluation(file) for file in results or ()]
    named = {"corpus": corpus, "corpus_license": corpus_license, "license": license}
    choices = {option: value for option, value in named.items() if value is not None}
    card_name = name or (model.resolve().name if earlier is None else earlier.name)
    made = ModelCard.collect(model, card_name, evaluations, **choices)
    console = terminal(highlight=False)
    shown = (dataset or corpus_folder(model)) if picture else None
    if picture and shown is None:
        console.print("[yellow]no motions to show:[/] the training corpus was not found; pass it with --dataset")
    elif shown is not None:
        made.picture, made.words = draw_held_out(model, shown, SPLIT_NAMES.get(split, split))
    console.print(f"card: {escape(str(made.save(model)))}", soft_wrap=True)


def draw_held_out(model: Path, dataset: Path, split: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """Draw three motions of a split and save the picture in the model folder.

    Returns:
        The name of the picture, and the caption and predicted words of each motion.
    """
    from lexmotion.evaluation.figures.examples import draw_examples
    from lexmotion.processing.corpora.prepare import load_prepared

    rows = load_prepared(dataset, splits=[split])[split]
    examples = draw_examples(*load_model(str(model), "cpu"), rows, model / "words.png")
    return "words.png", [(example["caption"], [word for word, _ in example["words"]]) for example in examples]


@app.command()
def compact(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Trained model: folder or Hub name.", show_default=False),
    ],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder to write, new or empty.", show_default=False)
    ],
    vocabulary: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tokens to keep; those of captions and active words always are, and 0 keeps all. "
            "Example: --vocabulary 8192",
        ),
    ] = 8192,
    megabytes: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Size of the weights up to which matrices have 16 bits instead of 8, the most important ones first. "
            "Example: --megabytes 20",
        ),
    ] = 25.0,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Captions whose tokens are kept: folder of text files, text file or prepared corpus. Repeatable. "
            "Example: --captions prepared/humanml3d",
        ),
    ] = None,
) -> None:
    """Save a trained model in a quarter of its size, and measure what is lost.

    Tokens that occur in no caption are removed, and matrices have 8 or 16 bits. Every command reads the folder like
    that of the model; `lexmotion.pretrained(OUTPUT_DIR)` returns it for AutoModel. Indexes have to be built anew.

    Example: [bold]lexmotion compact runs/small/model compact/small --vocabulary 8192[/]
    """
    begin()
    from lexmotion.evaluation.encoding.captions import read_captions
    from lexmotion.export.compact import compact as run
    from lexmotion.processing.recordings.reading import load_motion
    from lexmotion.shipped import samples

    texts = [text for source in captions or () for text in read_captions(source)]
    loaded, processor = load_model(model, "cpu")
    extractor = getattr(processor, "feature_extractor", None)
    fits = getattr(extractor, "skeleton", None) == "humanml3d"
    motions = [load_motion(sample.path) for sample in samples()] if fits else []
    report = run(loaded, processor, output_dir, vocabulary or None, texts, motions, round(1e6 * megabytes))
    console = terminal(highlight=False, soft_wrap=True)
    console.print(escape(report.summary()))
    console.print(f"written: {escape(str(output_dir))}")


@app.command()
def push(
    folder: Annotated[
        Path,
        typer.Argument(metavar="MODEL_DIR", help="Trained model, or prepared corpus.", show_default=False),
    ],
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository.", show_default=False)],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private. Example: --private")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, created if missing; if unset, main. Example: --revision v1")
    ] = None,
    include_code: Annotated[
        bool,
        typer.Option(
            "--include-code",
            help="Add the code, so that it loads with trust_remote_code=True without lexmotion installed. "
            "Example: --include-code",
        ),
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(help="Licence id; if unset, from the card or the corpus. Example: --license apache-2.0"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files without uploading them. Example: --dry-run")
    ] = False,
) -> None:
    """Upload a model or a prepared corpus to the Hub in one commit.

    A model is uploaded with its processor, lexicon and card. Unchanged files are not uploaded again; to resume an
    interrupted upload, push again. Log in with `hf auth login` or set HF_TOKEN first.

    Example: [bold]lexmotion push runs/small/model user/small --private --include-code[/]
    """
    begin()
    from lexmotion.hub_cards.push import check_repo_id, pack, would_delete
    from lexmotion.hub_cards.push import push as run

    check_repo_id(repo_id)
    parcel = pack(folder, repo_id, include_code, license)
    console = terminal(highlight=False, soft_wrap=True)
    list_files(console, parcel)
    if dry_run:
        stale = would_delete(parcel, repo_id, revision)
        if stale is None:
            console.print("[dim]the Hub cannot be reached to list files that would be deleted[/]")
        for path in stale or ():
            console.print(f"[yellow]{'to be deleted':>14}  {escape(path)}[/]")
        console.print("nothing was uploaded (--dry-run)")
        return
    sent = run(parcel, repo_id, private=private or None, revision=revision)
    for path in sent.deleted:
        console.print(f"[yellow]{'deleted':>14}  {escape(path)}[/]")
    state = "pushed" if sent.changed else "already up to date"
    console.print(f"{state}: {escape(sent.url)} (commit {sent.commit[:12]})")


def list_files(console: Console, parcel: "Parcel") -> None:
    """Print the files to upload, the files left out, and hints for the user."""
    sizes = parcel.sizes
    for path, size in sizes.items():
        console.print(f"{size:>14,}  {escape(path)}")
    console.print(f"{sum(sizes.values()):>14,}  bytes in {counted(len(sizes), 'file')}, as a {parcel.repo_type}")
    for path in parcel.left:
        console.print(f"[dim]{'not uploaded':>14}  {escape(path)}[/]")
    for note in [*parcel.notes, *([parcel.restricted] if parcel.restricted else [])]:
        console.print(f"[yellow]{escape(note)}[/]")


@export_app.command("sentence-transformers")
def export_sentence_transformers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model: folder or Hub name.", show_default=False)],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder to write, new or empty.", show_default=False)
    ],
    drop_minimum: Annotated[
        bool,
        typer.Option(
            "--drop-minimum",
            help="Drop the minimum number of words per vector, which SparseEncoder does not support. "
            "Example: --drop-minimum",
        ),
    ] = False,
) -> None:
    """Export the text tower for `sentence_transformers.SparseEncoder(OUTPUT_DIR)`, which gives the same vectors.

    Requires sentence-transformers. The vectors of both are compared before the folder is written.

    Example: [bold]lexmotion export sentence-transformers runs/small/model exported/text[/]
    """
    begin()
    from lexmotion.export.sparse_encoder import save_sparse_encoder

    loaded, processor = load_model(model, "cpu")
    text_model = getattr(loaded, "text_model", loaded)
    if not hasattr(text_model, "lexical_head"):
        raise ValueError(
            f"{model}: a {type(loaded).__name__} has no lexical text tower; pass a model of phase iii or iv"
        )
    tokenizer = getattr(processor, "tokenizer", processor)
    difference = save_sparse_encoder(text_model, tokenizer, output_dir, drop_minimum)
    console = terminal(highlight=False)
    console.print(f"written: {escape(str(output_dir))}; word weights differ by {difference:.1g} at most")
    parts = {"num_segments": "segments", "dense_size": "the dense vector"}
    if text_model.lexical_head.min_words:
        console.print(f"A caption may have fewer than {text_model.lexical_head.min_words} words above zero.")
    left = [part for name, part in parts.items() if (getattr(loaded.config, name, None) or 0) > 1]
    if left:
        console.print(f"Only word vectors are exported; the score of the model also uses {' and '.join(left)}.")
