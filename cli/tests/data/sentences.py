"""Computes sentences.safetensors from sentences.json: what sentence-transformers itself makes of the fifty texts.

    pip install sentence-transformers
    make model
    python cli/tests/data/sentences.py models/all-MiniLM-L6-v2

Used: sentence-transformers 6.2.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.15.0 on a CPU, in f32.
"""

import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

here = pathlib.Path(__file__).parent
texts = json.loads((here / "sentences.json").read_text(encoding="utf-8"))
model = SentenceTransformer(sys.argv[1], device="cpu")

# One text at a time, so that no padding is computed.
embeddings = numpy.concatenate([model.encode([text], convert_to_numpy=True) for text in texts])
tokens = [model.tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"] for text in texts]

save_file(
    {
        "embeddings": embeddings.astype(numpy.float32),
        "lengths": numpy.array([len(row) for row in tokens], numpy.int32),
    },
    here / "sentences.safetensors",
)
