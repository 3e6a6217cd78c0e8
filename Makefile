# For who has make: every target but the benchmarks calls run.py, which says what there is.
#
# make lab        installs into .venv and opens your own copy of the notebooks in JupyterLab
# make test       installs likewise and runs everything that CI runs; STAGES="style types": only these
# make reset PAGE=03   gives your copy of notebook 03 its first state back
# make notebooks  re-executes and cleans every notebook
# make format     formats the code and the notebooks
# make preflight  checks this machine; student, gather FROM=folder, slides, archive: see workshop/README.md
# make benchmark  a short form of every benchmark, which saves nothing; make benchmark-full is hours
#
# PYTHON=/path/to/python chooses the Python that .venv is made with.
# TORCH=cpu asks for PyTorch's small CPU build, TORCH=default for what pip finds (on Linux: several
# GB of CUDA). Left alone, a Linux machine without an NVIDIA driver gets the CPU build.

SHELL := /bin/sh
export PYTHON TORCH
RUN := $(or $(shell command -v python3),$(shell command -v python),$(PYTHON)) run.py
PYTHON_OF_VENV := .venv/bin/python

.PHONY: lab open test install notebooks format preflight reset student gather slides archive \
	benchmark benchmark-full

lab open install notebooks format preflight student:
	@$(RUN) $@

test:
	@$(RUN) test $(STAGES)

reset:
	@$(RUN) reset "$(PAGE)"

gather:
	@[ -n "$(FROM)" ] || { echo "Name the folder: make gather FROM=returned"; exit 1; }
	@$(RUN) gather "$(FROM)"

slides:
	@$(RUN) slides $(NUMBERS)

archive:
	@$(RUN) archive $(if $(ALSO),--also $(ALSO))

# Who is not installed is left out; pip install -e '.[benchmarks]' brings the others to compare with.
benchmark: install
	$(PYTHON_OF_VENV) benchmarks/quality.py phrasebook --quick
	$(PYTHON_OF_VENV) benchmarks/multi30k.py train --quick
	$(PYTHON_OF_VENV) benchmarks/speedrun.py run --quick
	$(PYTHON_OF_VENV) benchmarks/ladder.py run --quick
	$(PYTHON_OF_VENV) benchmarks/optimizers.py run --quick
	$(PYTHON_OF_VENV) benchmarks/training_speed.py --quick
	$(PYTHON_OF_VENV) benchmarks/decoding.py --quick
	$(PYTHON_OF_VENV) benchmarks/scale.py --quick
	$(PYTHON_OF_VENV) benchmarks/production.py --quick
	$(PYTHON_OF_VENV) benchmarks/scaling.py --quick
	$(PYTHON_OF_VENV) benchmarks/pretrained.py --quick
	$(PYTHON_OF_VENV) benchmarks/pronunciation.py short --quick
	$(PYTHON_OF_VENV) benchmarks/summarization.py --quick
	$(PYTHON_OF_VENV) benchmarks/forecasting.py --quick
	$(PYTHON_OF_VENV) benchmarks/endurance.py --quick

benchmark-full: install
	$(PYTHON_OF_VENV) benchmarks/quality.py phrasebook
	$(PYTHON_OF_VENV) benchmarks/quality.py multi30k
	for seed in 0 1 2; do \
		for run in "8 --model lstm-bahdanau" "8 --model lstm-luong" 5 8 15 20 24 60; do \
			$(PYTHON_OF_VENV) benchmarks/multi30k.py train --passes $$run --seed $$seed || exit 1; \
		done; \
	done
	$(PYTHON_OF_VENV) benchmarks/multi30k.py choices
	for seed in 0 1 2; do \
		for minutes in 5 15; do \
			$(PYTHON_OF_VENV) benchmarks/speedrun.py run --minutes $$minutes --seed $$seed || exit 1; \
		done; \
	done
	$(PYTHON_OF_VENV) benchmarks/ladder.py run
	$(PYTHON_OF_VENV) benchmarks/optimizers.py run
	$(PYTHON_OF_VENV) benchmarks/training_speed.py
	$(PYTHON_OF_VENV) benchmarks/decoding.py --threads 1
	$(PYTHON_OF_VENV) benchmarks/decoding.py --threads 2
	$(PYTHON_OF_VENV) benchmarks/scale.py
	$(PYTHON_OF_VENV) benchmarks/production.py
	$(PYTHON_OF_VENV) benchmarks/scaling.py
	$(PYTHON_OF_VENV) benchmarks/pretrained.py
	$(PYTHON_OF_VENV) benchmarks/pronunciation.py short
	$(PYTHON_OF_VENV) benchmarks/pronunciation.py long
	$(PYTHON_OF_VENV) benchmarks/summarization.py
	$(PYTHON_OF_VENV) benchmarks/forecasting.py
	$(PYTHON_OF_VENV) benchmarks/endurance.py
	$(PYTHON_OF_VENV) benchmarks/quality.py readme
