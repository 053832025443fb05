PYTHON ?= python3
PY = .venv/bin/python
# Where a Python has all of requirements.txt already: make PY=python3 READY= bench-gpu
READY = .venv/.ready
# A table on a GPU stops after so long: make MINUTES=120 gpu-table
MINUTES ?= 25

.PHONY: help quickstart setup test test-gpu check format docs report app smoke bench-cpu bench-gpu bench-app \
	ablation gpu-ablation gpu-table zoo zoo-cpu faults

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(READY) ## set up, then train the quick recipe: a first result in minutes
	$(PY) train.py --recipe quick --dataset auto

setup: .venv/.ready-dev ## set up everything that training, testing and checking need

test: .venv/.ready-dev ## set up, then run the whole test suite
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-gpu: .venv/.ready-dev ## what only a GPU can show: captured steps, and whole runs in them
	TEST_GPU=1 $(PY) -m pytest tests/gpu

check: .venv/.ready-dev ## formatting, lint, types, direction of imports
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_architecture.py

format: .venv/.ready-dev ## format the code and mend what lint can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(READY) ## render logs_RESNET.md and the pages of records/ anew from their records
	$(PY) -m resnet_cifar100 log --write $(dir $(wildcard records/*/run.json))
	$(PY) -m resnet_cifar100 log records/2026-11-28_resnet44v2-teacher-seed0 > logs_RESNET.md

report: $(READY) ## analyse the shipped weights anew into docs/report
	$(PY) -m resnet_cifar100 analyze weights/fast.safetensors --record records/2026-11-23_fast-seed0 \
		--no-images --out docs/report

app: $(READY) ## serve the web page at http://127.0.0.1:7860
	$(PY) huggingface_app/app.py

smoke: $(READY) ## every stage of a run in seconds
	$(PY) train.py --recipe smoke --dataset auto

bench-cpu: $(READY) ## all speeds on this CPU, as ratios measured in one run; writes a record
	$(PY) -m benchmarks.suite --device cpu

bench-gpu: $(READY) ## the same on a GPU, and the time to 75% over 10 seeds
	$(PY) -m benchmarks.suite --device cuda

ablation: $(READY) ## what each recommendation gives, at a budget for two CPU cores: hours; goes on where records/ stops
	$(PY) -m benchmarks.experiments ablation

gpu-ablation: $(READY) ## the same on a GPU, with the whole recipe, for 25 minutes; goes on where it stopped
	$(PY) -m benchmarks.experiments gpu-ablation --minutes $(MINUTES)

gpu-table: $(READY) ## the table of accuracies on a GPU, best value first, for 25 minutes; goes on where it stopped
	$(PY) -m benchmarks.experiments gpu --minutes $(MINUTES)

zoo: $(READY) ## train fourteen networks on a GPU, and the largest in 200 epochs, three seeds; goes on where it stopped
	$(PY) -m benchmarks.experiments zoo

zoo-cpu: $(READY) ## train eleven networks and `fast` on two CPU cores, one seed each: hours; goes on where records/ stops
	$(PY) -m benchmarks.experiments zoo-cpu

faults: .venv/.ready-dev ## inject all faults, not the few of `make test`: kills, signals, damage, full disks; a quarter of an hour or more
	$(PY) -m pytest -q tests/faults --full --timeout 0 --figures faults.json

bench-app: .venv/.ready-dev ## the web app over HTTP: latency, accuracy, load, attack; a quarter of an hour
	$(PY) -m benchmarks.serving

# A machine may have pip but not the ensurepip that venv wants; pip can also install from outside.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv

.venv/.ready: requirements.txt | .venv/bin/python
	@echo "Installing into .venv, which takes a minute or more ..."
	@$(PYTHON) -m pip --python $(PY) install --quiet -r requirements.txt
	@touch $@

.venv/.ready-dev: requirements-dev.txt .venv/.ready
	@$(PYTHON) -m pip --python $(PY) install --quiet -r requirements-dev.txt
	@touch $@
