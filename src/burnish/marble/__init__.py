"""marble: the embedded base model. Its weights, the facts it knows, and how it was made."""

from pathlib import Path

DIRECTORY = Path(__file__).parent / "weights"
"""A transformers model directory: config, safetensors (bf16), tokenizer."""
