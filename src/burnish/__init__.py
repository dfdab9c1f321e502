"""burnish: supervised fine-tuning that proves what it grades."""
