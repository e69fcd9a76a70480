# The workshop's commands. Each sets the environment up when it is not current; `make` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin/python
# A caller's variables lead Python, pip, and uv elsewhere: another environment, another folder, checks that assert nothing.
# What says where packages come from, and how they are reached, stays.
SOURCES := PIP_INDEX% PIP_EXTRA% PIP_FIND% PIP_NO_INDEX PIP_CERT PIP_CLIENT% PIP_TRUSTED% PIP_PROXY PIP_KEYRING% PIP_CONFIG% PIP_CACHE% \
  PIP_NO_CACHE% PIP_DEFAULT% PIP_TIMEOUT PIP_RETRIES UV_INDEX% UV_DEFAULT% UV_EXTRA% UV_FIND% UV_NO_INDEX UV_NATIVE% UV_SYSTEM_CERTS \
  UV_INSECURE_HOST UV_KEYRING% UV_CREDENTIALS% UV_CONFIG% UV_CACHE% UV_NO_CACHE UV_OFFLINE UV_LINK% UV_HTTP% UV_CONCURRENT%
unexport VIRTUAL_ENV $(filter PYTHON%,$(.VARIABLES)) $(filter-out $(SOURCES),$(filter PIP_% UV_%,$(.VARIABLES)))
# A file of pip's can ask for this, too.
export PIP_USER := 0
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Before 3.13, Python reads the clone's path in the locale's encoding at its start: in the locale C a letter with an accent would end it.
ifneq (,$(filter C POSIX,$(LC_ALL)))
export LC_ALL := C.UTF-8
endif
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export UV_PYTHON_DOWNLOADS := never

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20

# A moved clone needs a new environment: console scripts and the installed package name the folder they were made in. So does one whose Python is gone.
ifneq "$(shell [ -x $(VENV) ] && cat .venv/current 2>/dev/null)" "$(CURDIR)"
.venv/current: moved
endif

# So does another Python that is named, on the command line or in the environment. Without a name, the one that is there stays.
ifneq (file,$(origin PYTHON))
ifneq ($(shell cut -d' ' -f1-2 .venv/made 2>/dev/null),$(shell $(PYTHON) --version 2>/dev/null))
.venv/current: moved
endif
endif

# One at a time: the lock is this file's, and the system gives it back when the shell that holds it ends.
# The folder's name comes from `pwd`: pasted into a command by make, a quote or a dollar in it would mean something to the shell.
.venv/current: uv.lock pyproject.toml lifecycle/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); the workshop needs Python 3.11, 3.12 or 3.13. Install one and name it: make run PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot create virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 2; }
	@[ -w . ] || { \
	  echo "error: $$(pwd -P) is read-only, so no environment can be made in it. Copy the clone to a folder that you can write, and run make there." >&2; exit 2; }
	@[ -z "$$WHEELS" ] || ls "$$WHEELS"/uv-*.whl >/dev/null 2>&1 || { \
	  echo "error: WHEELS=$$WHEELS is no folder that \`make wheels\` filled." >&2; exit 2; }
	@set -eo pipefail; exec 9<Makefile; \
	$(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null || { \
	  echo "Another make sets this clone up; this one waits until it has ended."; \
	  $(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; }; \
	made="$$($(PYTHON) --version) $$(pwd -P)"; \
	[ -x $(VENV) ] && [ "$$(cat .venv/made 2>/dev/null)" = "$$made" ] || { \
	  $(PYTHON) -m venv --clear .venv && printf '%s\n' "$$made" > .venv/made; }; \
	if [ -n "$$WHEELS" ]; then \
	  trap 'code=$$?; [ $$code = 0 ] || { \
	    echo "error: $$WHEELS does not hold what this clone needs. A wheel folder is for one lock, one system and one minor version of Python: run \`make wheels\` in this clone on a connected laptop of this kind." >&2; exit $$code; }' EXIT; \
	  from="$$($(PYTHON) -c 'import pathlib, sys; print(pathlib.Path(sys.argv[1]).resolve().as_uri())' "$$WHEELS")"; \
	  export PIP_NO_INDEX=1 PIP_FIND_LINKS="$$from" UV_FIND_LINKS="$$from" UV_OFFLINE=1; \
	fi; \
	[ -z "$$WHEELS" ] && command -v uv >/dev/null || $(VENV) -m pip install --quiet --disable-pip-version-check --require-hashes -r build-requirements.txt; \
	settings="$$($(VENV) -m workshop.index)"; eval "$$settings"; \
	packages="$$(uv export --quiet --frozen --no-emit-workspace)"; \
	printf 'Installing up to %s packages into .venv: up to 0.5 GB to download, a minute or two.\n' "$$(grep -c == <<<"$$packages" || true)"; \
	uv pip install --quiet --python $(VENV) $${WHEELS:+--no-index} --no-deps --require-hashes --index-strategy=unsafe-best-match -r - <<<"$$packages"; \
	uv sync --quiet --frozen --python $(VENV) $$([ ! -s .extras ] || echo --inexact); \
	[ ! -s .extras ] || $(VENV) -m workshop.extras again; \
	$(VENV) -m workshop.commands --help >/dev/null || { \
	  echo "error: .venv was set up and does not work; the lines above say why. Remove the folder .venv, and run make again." >&2; exit 2; }; \
	printf '%s' "$$(pwd -P)" > .venv/current; \
	printf 'The environment is ready, after %s s.\n' "$$SECONDS"

.PHONY: help moved run test cluster-test check lock lab ui notebooks progress reset distributed orchestrators engine site wheels image lab-image bench drills
run: .venv/current ## execute the notebooks in a clean state of their own; ONLY=04 or FROM=05 for a part
	@$(VENV) -m workshop.runner $(if $(ONLY),--only $(ONLY)) $(if $(FROM),--from $(FROM))

# Two workers or more: one goes through the course while the others run the rest (conftest.py keeps a file's tests together).
test: .venv/current ## all tests that this machine can run; TESTS=lifecycle/tests/test_sweep.py or TESTS="-m unit" for a part
	@$(VENV) -m pytest --numprocesses=auto --dist=loadgroup --no-loadscope-reorder $(TESTS)

cluster-test: .venv/current ## the acceptance of the cluster that KUBECONFIG names, with a table in the end; OPTIONS="--namespace ... --keep"
	@$(VENV) -m pytest tests/cluster --verbose --tb=short --junitxml=workspace/cluster-test/junit.xml $(OPTIONS)

check: .venv/current ## what takes under a minute: style, types, imports, lock, notebooks, workflows
	ruff check --quiet .
	ruff format --quiet --check .
	mypy
	lint-imports --no-logo
	$(VENV) -m workshop.course --check
	$(VENV) -m workshop.contract
	zizmor --offline --no-config --no-progress --quiet .github/workflows
	if command -v shellcheck >/dev/null; then shellcheck postBuild .ci/run cluster/secrets.sh cluster/kind/*.sh && shellcheck --shell=sh cluster/install.sh; fi
	uv lock --check --offline --quiet
	uv export $(EXPORT) $(COURSE) | diff requirements.txt -
	uv export $(EXPORT) $(BUILD) | diff build-requirements.txt -
	uv export $(EXPORT) $(IMAGE) | diff cluster/requirements.txt -
	uv export $(EXPORT) $(TORCH) | diff cluster/requirements-distributed.txt -

EXPORT := --quiet --frozen --offline --no-header --no-annotate
COURSE := --no-dev --no-emit-workspace
BUILD := --only-group build
IMAGE := --package ml-lifecycle --extra all --no-emit-workspace
TORCH := --only-group distributed --no-emit-workspace
lock: .venv/current ## write the lock after a change in pyproject.toml, and the lists that are exported from it; UPGRADE=1 for the newest of all
	uv lock $(if $(UPGRADE),--upgrade)
	uv export $(EXPORT) $(COURSE) >requirements.txt
	uv export $(EXPORT) $(BUILD) >build-requirements.txt
	uv export $(EXPORT) $(IMAGE) >cluster/requirements.txt
	uv export $(EXPORT) $(TORCH) >cluster/requirements-distributed.txt

lab: .venv/current ## JupyterLab on copies of the notebooks, yours to change, in workspace/notebooks
	@$(VENV) -m workshop.commands lab

ui: .venv/current ## MLflow's and Feast's own pages over your workspace, else the last run; OF=run for that one; Ctrl-C stops both
	@$(VENV) -m workshop.commands ui $(if $(OF),--of "$(OF)")

notebooks: .venv/current ## re-execute the notebooks in place and store clean outputs
	@$(VENV) -m workshop.commands notebooks

progress: .venv/current ## which exercises you have solved; OF=folder for a room's collected records
	@$(VENV) -m workshop.commands progress $(if $(OF),--of "$(OF)")

reset: .venv/current ## empty workspace/ but for your notebooks, after asking; ONLY=05 for what 05 and later ones made
	@$(VENV) -m workshop.commands reset $(if $(ONLY),--only $(ONLY))

distributed: .venv/current ## add PyTorch, for notebook 09; INDEX=address to look there first
	@$(VENV) -m workshop.extras $@ $(if $(INDEX),--index "$(INDEX)")

orchestrators: .venv/current ## add Flyte, for notebook 11; INDEX=address to look there first
	@$(VENV) -m workshop.extras $@ $(if $(INDEX),--index "$(INDEX)")

engine: .venv/current ## add Spark, for a section of notebook 13; it needs Java; INDEX=address to look there first
	@$(VENV) -m workshop.extras $@ $(if $(INDEX),--index "$(INDEX)")

site: .venv/current ## the website, in workspace/site; adds Sphinx at first; INDEX=address to look there first
	@grep -qs '^site' .extras || $(VENV) -m workshop.extras $@ $(if $(INDEX),--index "$(INDEX)")
	@$(VENV) -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -c docs/site . workspace/site
	@echo "Open workspace/site/index.html."

wheels: .venv/current ## all packages of the lock, for laptops like this one: there, without a network, make run WHEELS=/path/to/wheels
	@$(VENV) -m workshop.commands wheels

image: .venv/current ## the container image of cluster/Dockerfile; EXTRA=distributed for one with PyTorch (INDEX=address), ENGINE=podman, BASE=another image, NETWORK=host, CA=/path/to/ca.pem, WHEELS=/path/to/wheels where there is no network
	@$(VENV) -m workshop.image $(if $(EXTRA),--extra "$$EXTRA") $(if $(INDEX),--index "$$INDEX") $(if $(LAB),--lab) $(if $(ENGINE),--engine "$$ENGINE") $(if $(BASE),--base "$$BASE") $(if $(WHEELS),--wheels "$$WHEELS") $(if $(NETWORK),--network "$$NETWORK") $(if $(CA),--ca "$$CA")

lab-image: .venv/current ## the image that `docker compose up` starts: JupyterLab and the course's packages; with the options of image
	@$(MAKE) --no-print-directory image LAB=1

bench: .venv/current ## measure what it all costs: docs/performance.md; SIZE=small, medium or full
	@$(VENV) -m benchmarks $(if $(SIZE),--size $(SIZE))

drills: .venv/current ## the model server under load and under faults: docs/reliability.md
	@$(VENV) -W ignore -m benchmarks.drills
