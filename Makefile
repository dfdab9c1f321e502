# burnish, for people who have just cloned it:  make demo
# VENV=/somewhere/else uses another virtual environment; PYTHON=python3.12 another interpreter to make it with.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

# Where the trainers that burnish is measured against are installed: they never share an environment with it.
PEERS ?= benchmarks/.venv-peers
BENCH := $(BIN)/python benchmarks/run.py --peers $(PEERS)/bin/python

.PHONY: demo test test-slow check bench bench-long bench-135m bench-memory bench-tune bench-step bench-gpu bench-weights \
	bench-curation \
	marble thesis docs preview clean

demo: $(VENV)/.ready
	$(BIN)/burnish demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m "slow and not gpu"

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# side by side with TRL and plain transformers: docs/benchmarks.md is rewritten; under a quarter of an hour
bench: $(VENV)/.ready $(PEERS)/.ready
	$(BENCH) --write

bench-long: $(VENV)/.ready $(PEERS)/.ready
	$(BENCH) --long --write

bench-135m: $(VENV)/.ready $(PEERS)/.ready
	$(BENCH) --shape 135m --write

bench-memory: $(VENV)/.ready
	$(BENCH) --memory --write

# the peers' best settings on this machine, found by trying them: benchmarks/tuned.json
bench-tune: $(VENV)/.ready $(PEERS)/.ready
	$(BENCH) --tune

# one step against a padded loop, without the peers
bench-step: $(VENV)/.ready
	$(BIN)/python benchmarks/step.py

# planted repeats found, unlike rows merged, rows per second: 100,000 rows, two minutes
bench-curation: $(VENV)/.ready
	$(BIN)/python benchmarks/curation.py

# every method at equal tuning effort: docs/weights.md; hours, in pieces: --budget SECONDS
bench-weights: $(VENV)/.ready
	$(BIN)/python benchmarks/weights.py

bench-gpu: $(VENV)/.ready
	$(BIN)/python benchmarks/gpu/train_8b.py

# how the embedded base model was made; half an hour on two cores
marble: $(VENV)/.ready
	$(BIN)/python -m burnish.marble.make corpus build/marble
	$(BIN)/burnish pretrain recipes/marble.yaml
	$(BIN)/python -m burnish.marble.make install build/marble/runs/marble

# base, few-shot and tuned on unseen entities, the curve, sharpening, forgetting, LoRA: docs/thesis.md and its plot are
# rewritten; three seeds take about 25 minutes of one core. Killed, it goes on where it was
thesis: $(VENV)/.ready
	$(BIN)/python -m burnish.experiments.thesis build/thesis --write docs

docs: $(VENV)/.ready
	$(BIN)/python -m burnish.recipe.describe > docs/recipe.md

# the picture at the top of README.md; needs chromium
preview: $(VENV)/.ready
	mkdir -p build
	$(BIN)/burnish preview recipes/preview.jsonl --model marble --chat-template recipes/preview.jinja \
		--html build/preview.html max_length=384 on_too_long=cut_answer
	chromium --headless --no-sandbox --hide-scrollbars --force-device-scale-factor=1.5 --window-size=1280,900 \
		--screenshot=docs/preview.png file://$(CURDIR)/build/preview.html

# torch comes first and alone: where a CPU build is on offer it is taken, and nothing later replaces it
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(PEERS)/.ready: benchmarks/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet torch==2.13.0
	$(PEERS)/bin/pip install --quiet -r benchmarks/peers.txt
	touch $@

clean:
	rm -rf .venv benchmarks/.venv-peers
