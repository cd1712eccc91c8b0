# make run        install, obtain `tiny`, execute both notebooks
# make test       install, then every check and every test
# make lab        open JupyterLab on the notebooks
# make notebooks  execute the notebooks in place and keep the new outputs
# make pins       write requirements.txt anew from the ranges in pyproject.toml (UPDATE=--upgrade for newer versions)
# make clean      remove what runs left
#
# TORCH=cuda make run takes PyPI's build of torch instead of the CPU build.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lab notebooks pins clean install

run: install
	$(BIN)/phi3kit weights fetch tiny
	$(BIN)/phi3kit run

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/phi3kit weights fetch tiny
	$(BIN)/pytest

lab: install
	$(BIN)/jupyter lab --notebook-dir=notebooks \
		--LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

notebooks: install
	$(BIN)/phi3kit refresh

# Versions already pinned stay unless a range forbids them: UPDATE="--upgrade-package mlflow" moves one.
pins: install
	UV_CUSTOM_COMPILE_COMMAND="make pins" $(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal \
		--python-version 3.11 --no-annotate $(UPDATE) --output-file requirements.txt

# Needs no environment: the module behind it imports nothing but Python's own library.
clean:
	@$(PYTHON) -m phi3kit.workbook.clean

install:
	@command -v $(PYTHON) >/dev/null || { echo "This needs Python 3.11 or newer; there is no $(PYTHON)."; exit 1; }
	@$(PYTHON) install.py
