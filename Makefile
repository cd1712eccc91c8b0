# make run        install, obtain `tiny`, execute both notebooks
# make test       install, then every check and every test
# make check      its quick part: lint, spelling, unit tests, the notebooks' hygiene; about a minute
# make fire       random kills, eight processes at once, a flip in every file: for the night
# make lab        install, obtain `tiny`, open JupyterLab on the notebooks
# make notebooks  execute the notebooks in place and keep the new outputs
# make pins       write requirements.txt anew from the ranges in pyproject.toml (UPDATE=--upgrade for newer versions)
# make conda-environment  what conda would make of environment.yml, tried in a temporary folder
# make first-hour  installs in bad places, again and again: no network, a full disk, interrupted; some twenty minutes
# make learner    write handout/learner, a folder to hand out: no solutions, no outputs, no tests
# make solutions  write handout/solutions, the notebooks with the exercises solved
# make clean      remove what runs left
#
# TORCH=cuda make run takes PyPI's build of torch instead of the CPU build.

# A finished environment is used again, so PYTHON= is needed once.
PYTHON ?= $(shell test -x .venv/bin/python && test -e .venv/phi3kit-installed && echo .venv/bin/python || echo python3)
BIN := .venv/bin

.PHONY: run lint check test test-library test-notebooks fire lab notebooks pins conda-environment first-hour learner solutions clean install

run: install
	$(BIN)/phi3kit weights fetch tiny
	$(BIN)/phi3kit run
	@echo 'Next: `make lab` opens the notebooks; `source $(BIN)/activate` lets you type phi3kit.'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell

check: lint
	$(BIN)/pytest tests/unit tests/notebooks/test_hygiene.py

# For all tests but those that need the package index, the network is cut. The notebooks run beside the others; what
# they print follows when they are done.
OFFLINE := $(BIN)/python tests/cut_off.py $(BIN)/pytest -m "not online and not night" --durations=20
HALF := runs/test-notebooks.log

test: lint
	$(BIN)/phi3kit weights fetch tiny
	@$(MAKE) --no-print-directory --keep-going --jobs=2 test-notebooks test-library

test-library:
	$(BIN)/pytest -m online --durations=5
	$(OFFLINE) tests/unit tests/integration

test-notebooks:
	@mkdir -p runs
	@$(OFFLINE) tests/notebooks tests/browser >$(HALF) 2>&1; status=$$?; cat $(HALF); exit $$status

fire: install
	$(BIN)/phi3kit weights fetch tiny
	$(BIN)/pytest -m online tests/integration/test_under_fire.py
	$(BIN)/pytest tests/fire --durations=20
	$(BIN)/pytest -m night

# Without `tiny`, JupyterLab opens all the same. The folder .jupyter answers its question whether it may fetch news: no.
lab: install
	-$(BIN)/phi3kit weights fetch tiny
	JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
		$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: install
	$(BIN)/phi3kit refresh

# Versions already pinned stay unless a range forbids them: UPDATE="--upgrade-package mlflow" moves one. Then each of
# them is looked for as a wheel, for every system and Python that we name.
pins: install
	UV_CUSTOM_COMPILE_COMMAND="make pins" $(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal \
		--python-version 3.11 --no-annotate $(UPDATE) --output-file requirements.txt
	@for platform in x86_64-manylinux_2_31 aarch64-manylinux_2_31 aarch64-apple-darwin x86_64-pc-windows-msvc; do \
		for version in 3.11 3.12 3.13; do \
			echo "Wheels for $$platform, Python $$version"; \
			MACOSX_DEPLOYMENT_TARGET=14.0 $(BIN)/uv pip compile pyproject.toml --quiet --all-extras --no-annotate \
				--constraint requirements.txt --only-binary :all: --python-platform $$platform \
				--python-version $$version >/dev/null || exit 1; \
		done; \
	done

conda-environment: install
	$(BIN)/python tests/conda_environment.py

first-hour: install
	$(BIN)/pytest tests/first_hour.py

learner: install
	$(BIN)/python -m phi3kit.workbook.exercises.handout learner

solutions: install
	$(BIN)/python -m phi3kit.workbook.exercises.handout solutions

# Needs no environment: the module behind it imports nothing but Python's own library.
clean:
	@$(PYTHON) -m phi3kit.workbook.running.clean

install:
	@command -v $(PYTHON) >/dev/null || { echo "This needs Python 3.11, 3.12 or 3.13, and there is no $(PYTHON): get one\
 from your system's packages or https://www.python.org/downloads/, then type \`make run PYTHON=python3.11\`."; exit 1; }
	@$(PYTHON) install.py
