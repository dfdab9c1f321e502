"""The embedded base model: its facts, the text it was trained on, its tokenizer, its weights."""
