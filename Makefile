# make lab        installs into .venv and opens JupyterLab at the first notebook
# make test       installs likewise and runs everything that CI runs
# make notebooks  re-executes and cleans every notebook
# make format     formats the code and the notebooks
# make preflight  checks this machine; student, gather FROM=folder, slides, archive: see workshop/README.md
# make benchmark  a short form of every benchmark, which saves nothing; make benchmark-full is hours
#
# PYTHON=/path/to/python chooses the Python that .venv is made with.
# TORCH=cpu asks for PyTorch's small CPU build, TORCH=default for what pip finds (on Linux: several
# GB of CUDA). Left alone, a Linux machine without an NVIDIA driver gets the CPU build.

SHELL := /bin/sh
PYTHON ?=
TORCH ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && echo cpu || echo default)
# Treadmill wants torchvision too; these two are a matching pair.
TORCH_CPU := --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0 torchvision==0.28.0

VENV := .venv
RUN := $(VENV)/bin/python
# Two workers with one thread each: with more, they fight for the same cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
SOURCES := s2s_helpers tests $(wildcard benchmarks) notebooks workshop
# A screen is there on a Mac, and on Linux where one of these two is set.
LAB_FLAGS := $(shell [ "$$(uname -s)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || echo --no-browser) \
	$(shell [ "$$(id -u)" != 0 ] || echo --allow-root)

# A notebook runs in its own folder, so relative paths to the corpora have to be made absolute.
ifdef S2S_DATA_DIR
override S2S_DATA_DIR := $(shell echo "$(S2S_DATA_DIR)" | tr : '\n' | while read -r folder; do \
	(cd "$$folder" 2>/dev/null && pwd) || echo "$$folder"; done | paste -s -d : -)
export S2S_DATA_DIR
endif

# JupyterLab would ask about news, over the text of the first notebook.
LAB_SETTINGS := $(VENV)/share/jupyter/lab/settings
NO_NEWS := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}

.PHONY: lab test notebooks benchmark benchmark-full format preflight student gather slides archive install

lab: install
	$(RUN) -m jupyterlab $(LAB_FLAGS) --LabApp.default_url=/lab/tree/notebooks/01_data.ipynb

test: install
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m mypy
	$(ONE_THREAD) $(RUN) -m pytest -q -n 2 tests --ignore=tests/browser
	$(ONE_THREAD) $(RUN) tests/plant_faults.py
	$(ONE_THREAD) $(RUN) -m pytest -q -n 2 --dist loadfile --nbval --nbval-current-env \
		--nbval-cell-timeout=300 --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks
	$(ONE_THREAD) $(RUN) -m pytest -q -rs -s tests/browser

notebooks: install
	$(ONE_THREAD) $(RUN) notebooks/refresh.py

# Who is not installed is left out; pip install -e '.[benchmarks]' brings the others to compare with.
benchmark: install
	$(RUN) benchmarks/quality.py phrasebook --quick
	$(RUN) benchmarks/multi30k.py train --quick
	$(RUN) benchmarks/training_speed.py --quick
	$(RUN) benchmarks/decoding.py --quick
	$(RUN) benchmarks/scale.py --quick
	$(RUN) benchmarks/production.py --quick
	$(RUN) benchmarks/scaling.py --quick
	$(RUN) benchmarks/pretrained.py --quick
	$(RUN) benchmarks/pronunciation.py short --quick
	$(RUN) benchmarks/summarization.py --quick
	$(RUN) benchmarks/forecasting.py --quick

benchmark-full: install
	$(RUN) benchmarks/quality.py phrasebook
	$(RUN) benchmarks/quality.py multi30k
	for seed in 0 1 2; do \
		for run in "8 --model lstm-bahdanau" "8 --model lstm-luong" 5 8 15 20 24 60; do \
			$(RUN) benchmarks/multi30k.py train --passes $$run --seed $$seed || exit 1; \
		done; \
	done
	$(RUN) benchmarks/multi30k.py choices
	$(RUN) benchmarks/training_speed.py
	$(RUN) benchmarks/decoding.py --threads 1
	$(RUN) benchmarks/decoding.py --threads 2
	$(RUN) benchmarks/scale.py
	$(RUN) benchmarks/production.py
	$(RUN) benchmarks/scaling.py
	$(RUN) benchmarks/pretrained.py
	$(RUN) benchmarks/pronunciation.py short
	$(RUN) benchmarks/pronunciation.py long
	$(RUN) benchmarks/summarization.py
	$(RUN) benchmarks/forecasting.py
	$(RUN) benchmarks/quality.py readme

format: install
	$(RUN) -m ruff check --fix $(SOURCES)
	$(RUN) -m ruff format $(SOURCES)

# Without .venv, any Python answers.
preflight:
	@$(or $(wildcard $(RUN)),python3) workshop/preflight.py

student: install
	$(RUN) workshop/student.py

gather: install
	@[ -n "$(FROM)" ] || { echo "Name the folder: make gather FROM=returned"; exit 1; }
	$(RUN) workshop/gather.py "$(FROM)"

slides: install
	$(RUN) workshop/slides.py $(NUMBERS)

archive: install
	$(RUN) workshop/archive.py $(if $(ALSO),--also $(ALSO))

# The stamp .venv/installed is what was asked for at the last install that went through: the list of
# dependencies, this folder, this build of torch. While that is unchanged pip is not called at all.
install:
	@set -e; \
	case "$(TORCH)" in cpu|default) ;; *) \
		echo "TORCH is cpu or default, not '$(TORCH)'."; exit 1 ;; \
	esac; \
	wanted=$$(cat pyproject.toml; pwd; echo "$(TORCH)"); \
	if $(RUN) -c '' 2>/dev/null && [ "$$(cat $(VENV)/installed 2>/dev/null)" = "$$wanted" ]; then \
		exit 0; \
	fi; \
	found=; good=; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
		path=$$(command -v "$$python") || continue; \
		version=$$("$$path" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
		found="$${found:-found $$version at $$path}"; \
		if "$$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then good=$$path; break; fi; \
	done; \
	if [ -z "$$good" ]; then \
		echo "Python 3.11 or newer is needed; $${found:-found none$(if $(PYTHON), at $(PYTHON))};" \
			"set PYTHON=/path/to/python"; \
		exit 1; \
	fi; \
	before=$$(tail -n 1 $(VENV)/installed 2>/dev/null || true); \
	[ "$${before:-$(TORCH)}" = "$(TORCH)" ] \
		&& $(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		&& $(RUN) -m pip --version >/dev/null 2>&1 \
		|| "$$good" -m venv --clear $(VENV); \
	rm -f $(VENV)/installed; \
	if [ "$(TORCH)" = cpu ]; then \
		$(RUN) -m pip install --retries 1 --no-deps $(TORCH_CPU) \
			|| echo "No CPU build of PyTorch to be had for this Python: going on with the usual one."; \
	fi; \
	$(RUN) -m pip install -e '.[notebooks,advanced,test]'; \
	mkdir -p $(LAB_SETTINGS); \
	printf '%s\n' '$(NO_NEWS)' > $(LAB_SETTINGS)/overrides.json; \
	printf '%s\n' "$$wanted" > $(VENV)/installed
