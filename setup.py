"""Installs the `llm` package and, by extras, what its heavier parts need."""

import pathlib
import re
import shutil

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "llm/__init__.py").read_text(encoding="utf-8")
).group(1)


class BuildWithConfigs(build_py):
    """Puts configs/ into a wheel as llm/_configs/, where `llm/files.py` looks.

    An editable installation finds them in the checkout.
    """

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = pathlib.Path(self.build_lib, "llm", "_configs")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for path in sorted((HERE / "configs").glob("*.py")):
                shutil.copyfile(path, folder / path.name)


setup(
    name="llm-lifecycle",
    version=VERSION,
    description="The whole life cycle of a language model in JAX and Flax.",
    license="Apache-2.0",
    packages=find_namespace_packages(include=["llm", "llm.*"]),
    package_data={
        "llm.reports": ["templates/*"],
        "llm.serve": ["*.html", "*.css", "*.js"],
        "llm.sources": ["*.example.*", "*.example/*"],
        "llm.stages": ["*.example.*", "*.example/*"],
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["llm = llm.main:run"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.9",
        "flax>=0.12",
        "grain>=0.2.10",
        "jinja2>=3.1",
        "jax>=0.10",
        "markupsafe>=2.1",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "pygments>=2.18",
        "scipy>=1.14",
        "sentencepiece>=0.2.0",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        # What sources read and fetch with, and the languages of documents; each is
        # asked for where it is needed.
        "data": [
            "fastwarc>=2",
            "ftfy>=6.2",
            "lxml_html_clean>=0.4",
            "py3langid>=0.4",
            "pyarrow>=20",
            "resiliparse>=2",
            "scrapy>=2.19",
            "trafilatura>=2",
            "warcio>=1.7.5",
            "zstandard>=0.23",
        ],
        # Corpora on Apache Beam, in an environment of its own: it wants an older
        # protobuf than tensorflow-datasets takes. launch/test_beam.sh makes one.
        "beam": ["apache-beam>=2.60"],
        # A fastText model of one's own that identifies languages.
        "fasttext": ["fasttext-numpy2-wheel>=0.9.2"],
        "serve": [
            "fastapi>=0.120",
            "llguidance>=1.5",
            "prometheus-client>=0.22",
            "py3langid>=0.4",
            "pydantic>=2.10",
            "uvicorn>=0.35",
        ],
        "eval": [
            "jsonschema>=4.23",
            "lm-eval>=0.4.9",
            "rouge-score>=0.1.2",
            "sacrebleu>=2.5",
        ],
        # The Bayesian search of sweeps.
        "sweep": ["optuna>=4"],
        "wandb": ["wandb"],
        # notebooks/ and their test; Colab has most of it.
        "notebook": ["ipykernel>=6.29", "matplotlib>=3.9", "nbclient>=0.10"],
        # The pages of docs/ as a site: mkdocs.yml.
        "docs": ["mkdocs-material>=9.7"],
        "test": ["gguf>=0.17", "pytest>=8", "pytest-xdist>=3.6", "ruff>=0.6"],
        # Models and tokenizers of others: Hugging Face folders, GGUF files.
        "hf": ["gguf>=0.17", "tokenizers>=0.21"],
        # accelerate: transformers asks for it when it reads GGUF.
        "oracle": [
            "accelerate>=1.10",
            "datatrove>=0.10.1",
            "httpx>=0.28",
            "lm-eval[api]>=0.4.9",
            "openai>=2",
            "peft>=0.17",
            "schemathesis>=4",
            "tensorboard>=2.18",
            "torch==2.13.0",
            "transformers>=5",
        ],
    },
)
