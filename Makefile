# make demo   pictures of the bundled models at once; then train, translate, evaluate on the bundled drawings (4 and a half minutes on two CPU cores, after the installation)
# make test   run the tests                make lint   ruff and mypy
# make docs   write the documentation as a site to site/, to be read without a network
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint wheel docs install install-dev install-docs

demo: install
	@$(BIN)/i2i translate personas-color personas-edges-64/test --half left --out $(DEMO)-bundled/colored
	@$(BIN)/i2i generate peeps --n 64 --out $(DEMO)-bundled/people
	@echo "look at $(DEMO)-bundled/: 188 outlines colored and 64 people from noise, by bundled models (i2i models); now one is trained here"
	@# A number of images, not --minutes: the same result on every machine.
	@$(BIN)/i2i train pix2pix-drawings generator.width=32 discriminator.width=32 train.images=10k train.checkpoint_every=2k --out $(DEMO)
	@$(BIN)/i2i translate $(DEMO)/best.safetensors personas-edges-64/test --half left --out $(DEMO)/translated
	@$(BIN)/i2i evaluate $(DEMO)/best.safetensors --sheet $(DEMO)/test.png --json $(DEMO)/test.json
	@echo "look at $(DEMO)/test.png (input, result, target), $(DEMO)/translated/ (188 drawings) and $(DEMO)/samples/ (progress)"

test: install-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

wheel: install-dev
	$(BIN)/python -m build --wheel

# The stamps hold the checkout's path: an environment that is shared by checkouts follows the newest one.
install: $(VENV)/.base
	@[ "$$(cat $(VENV)/.checkout 2>/dev/null)" = "$(CURDIR)" ] || { $(BIN)/pip install --quiet --no-deps -e . && echo "$(CURDIR)" > $(VENV)/.checkout; }

install-dev: $(VENV)/.dev
	@[ "$$(cat $(VENV)/.checkout 2>/dev/null)" = "$(CURDIR)" ] || { $(BIN)/pip install --quiet --no-deps -e . && echo "$(CURDIR)" > $(VENV)/.checkout; }

install-docs: install
	@$(BIN)/python -c 'import mkdocstrings_handlers.python, material' 2>/dev/null || $(BIN)/pip install -e '.[docs]'

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e .
	@echo "$(CURDIR)" > $(VENV)/.checkout && touch $@

$(VENV)/.dev: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	@echo "$(CURDIR)" > $(VENV)/.checkout && touch $@ $(VENV)/.base
