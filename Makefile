# `make` lists what there is. Everything runs in .venv, which `make setup` builds from pip alone.

PYTHON ?= python3
BIN := .venv/bin
SUITES := model serving clients protos/contract tests
TORCH := 2.13.0
BUF := npx --yes @bufbuild/buf@1.75.0
MINUTES ?= 30
STEPS ?=
# Files of tests that run side by side; JOBS=0 runs all of them in one process, in order.
JOBS ?= 3
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

setup: .venv/ready  ## make .venv with everything in it

# torch comes first and by its exact version: a bare `torch` may bring gigabytes for GPUs (docs/INSTALL.md).
# Bars on a terminal, one line a step elsewhere.
QUIET := $(if $(MAKE_TERMOUT),,--quiet)
.venv/ready: pyproject.toml
	@echo 'setup 1 of 3: an empty environment in .venv, some seconds'
	@$(PYTHON) -m venv .venv
	@echo 'setup 2 of 3: torch $(TORCH), the largest part; about half a minute and its download'
	@$(BIN)/pip install $(QUIET) torch==$(TORCH)
	@echo 'setup 3 of 3: rosacea, all that it can use and all that it is tested with; about a minute and the download'
	@$(BIN)/pip install $(QUIET) --editable '.[dev]'
	@touch $@

# Other people's programs that tests compare with. Without them those tests skip.
tools:  ## install the programs that some tests compare with: Debian or Ubuntu, as root
	apt-get update -qq
	apt-get install -qq --no-install-recommends bubblewrap haproxy libimage-exiftool-perl nginx-light prometheus

demo: setup  ## draw sixteen faces through the whole system and print the path of their contact sheet
	$(BIN)/rosacea demo --out build/demo

serve: setup  ## serve the demo model on 127.0.0.1:7433 until Ctrl-C
	$(BIN)/rosacea serve

demo-model: setup  ## make the demo model anew from nothing, which takes hours
	model/runs/demo-64.sh

demo-report: setup  ## measure the demo model against its training set: report, card and pictures, ten minutes
	mkdir -p build
	test -f build/demo-train.zip || $(BIN)/rosacea data phantom --count 6000 --resolution 64 --seed 0 --labels severity \
		--no-confounders --out build/demo-train.zip
	$(BIN)/rosacea report model/rosacea_model/demo --data build/demo-train.zip --samples 1000 --out docs/demo-model/report

test: setup  ## run every test but those that take minutes each
	$(PYTEST)

FILE ?=
test-one: setup  ## run one file of tests: FILE=tests/contract/test_spec.py, or one test of it: FILE=...::test_name
	@test -n '$(FILE)' || { echo 'test-one needs FILE, such as FILE=tests/contract/test_spec.py' >&2; exit 2; }
	$(BIN)/pytest $(FILE)

test-fast: setup  ## run the tests that take no more than seconds
	$(PYTEST) -m 'not slow'

test-long: setup  ## run the tests that take minutes each: the same properties in larger numbers
	$(BIN)/pytest --long -m long

lint: setup  ## check style, and the protos where node is at hand
	$(BIN)/ruff check $(SUITES) locks docs/website
	$(BIN)/ruff format --check $(SUITES) locks docs/website
	@if command -v npx >/dev/null; then $(MAKE) --no-print-directory lint-protos; \
	else echo 'protos not linted: no node here (buf comes from npm); tests/protos still compares the API'; fi

format: setup  ## format the code
	$(BIN)/ruff format $(SUITES) locks docs/website

hooks: setup  ## have git check each commit and push, by .pre-commit-config.yaml
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

lint-protos:
	$(BUF) lint protos
	$(BUF) breaking protos --against protos/api.binpb

typecheck: setup  ## check types
	$(BIN)/mypy

# Stubs made with these versions import under protobuf 6.31 to 7; newer ones would force protobuf 7 on clients.
proto: .venv-proto/ready  ## generate protos/gen anew
	rm -rf protos/gen/rosacea
	cd protos && PATH="$(CURDIR)/.venv-proto/bin:$$PATH" ../.venv-proto/bin/python -m grpc_tools.protoc -I . \
		--python_out=gen --mypy_out=gen $$(find rosacea -name '*.proto' | sort)
	cd protos && PATH="$(CURDIR)/.venv-proto/bin:$$PATH" ../.venv-proto/bin/python -m grpc_tools.protoc -I . \
		--grpc_python_out=gen --mypy_grpc_out=gen rosacea/v1/faces.proto

proto-freeze: setup  ## promise the API as it is now, unless that breaks what was promised
	$(BIN)/python -m tests.protos.compatibility --freeze

.venv-proto/ready:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install --quiet grpcio-tools==1.75.1 mypy-protobuf==5.1.0 protobuf==6.33.6
	touch $@

train-smoke: setup  ## train on 300 phantoms for minutes on one CPU thread; fails unless samples become faces
	$(BIN)/python tests/bench/train_smoke.py --out build/train-smoke

fuzz: setup  ## fuzz the requests for ten minutes; what is found lands in build/fuzz
	mkdir -p build/fuzz/corpus
	$(BIN)/python -m tests.fuzz.fuzz_requests -max_total_time=600 -artifact_prefix=build/fuzz/ build/fuzz/corpus

# The mixed load takes MINUTES and some five more. STEPS are any of mixed memory oom network
# forks streams maps; oom and network need root.
soak: setup  ## try the service for hours: mixed load, kills, swaps, memory, network, forks; STEPS=memory runs one
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(STEPS)

lock: .venv-lock/ready  ## pin anew what the images install, by SHA-256
	.venv-lock/bin/python locks/make.py $(TORCH)

.venv-lock/ready:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv==0.13.9
	touch $@

rules: setup  ## make the Prometheus operator's object of Prometheus's rules anew
	$(BIN)/python serving/deploy/kubernetes/prometheusrule.py > serving/deploy/kubernetes/prometheusrule.yaml

sbom: setup  ## list what is installed, as CycloneDX, in build/sbom.cdx.json
	mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --of JSON -o build/sbom.cdx.json $(BIN)/python

settings: setup  ## make docs/SETTINGS.md anew
	$(BIN)/python -m rosacea_serving.settings_doc > docs/SETTINGS.md

docs: setup .venv-docs/ready  ## build the documentation site in build/site
	$(BIN)/python docs/website/stage.py build/docs
	.venv-docs/bin/zensical build --strict --clean

.venv-docs/ready:
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet zensical==0.0.73 mkdocstrings-python==2.0.11 ruff==0.17.6
	touch $@

dashboard: setup  ## make the Grafana dashboard anew
	$(BIN)/python serving/deploy/grafana/make_dashboard.py > serving/deploy/grafana/dashboard.json

dashboard-picture: setup  ## draw the dashboard's panels from a real service and a real Prometheus, in five minutes
	$(BIN)/python -m tests.deploy.draw_dashboard

bench: bench-engine bench-naive bench-gateway bench-calls bench-coding bench-e2e bench-train  ## measure everything that is measured

bench-engine: setup  ## measure the engine against onnxruntime, OpenVINO and plain eager code
	$(BIN)/python -m tests.bench.bench_engine

bench-naive: setup  ## measure the service against a TorchServe handler that somebody would write
	$(BIN)/python -m tests.bench.bench_naive

bench-gpu: setup  ## measure the engine on a GPU in ten minutes; writes build/bench-gpu.json
	$(BIN)/python -m tests.bench.bench_gpu

bench-gateway: setup  ## measure what the gateway costs over a bare call of TorchServe
	$(BIN)/python tests/bench/bench_gateway.py

bench-calls: setup  ## measure the gateway's CPU time for an image by unary calls
	$(BIN)/python -m tests.bench.bench_calls

bench-coding: setup  ## measure coding, marked and bare, beside Pillow's fastest PNG
	$(BIN)/python -m tests.bench.bench_coding

bench-e2e: setup  ## measure the service against the bare engine
	$(BIN)/python tests/bench/bench_e2e.py

bench-train: setup  ## measure training against the same training written plainly
	$(BIN)/python -m tests.bench.bench_train

FACES ?=
bench-bars: setup  ## count the bars over eyes that are found on phantoms, and in FACES=FOLDER with a bars.csv
	$(BIN)/python -m tests.bench.bench_bars $(FACES)

bench-people: setup  ## whether pictures of one person are grouped, on phantoms; needs the extra faces
	$(BIN)/python -m tests.bench.bench_people

bench-audit: setup  ## planted copies that the audit finds, and generators that it flags, on phantoms, and in FACES=FOLDER
	$(BIN)/python -m tests.bench.bench_audit $(if $(FACES),--faces $(FACES))

bench-degradations: setup  ## whether worse phantoms rank worse under every metric; writes docs/degradations.md
	$(BIN)/python -m tests.bench.bench_degradations --out docs/degradations.md

bench-evaluate: setup  ## what measuring costs beside drawing, and its memory, for ten thousand images of 128 px
	$(BIN)/python -m tests.bench.bench_evaluate

clean:  ## remove everything that was made here
	rm -rf .venv .venv-proto .venv-lock .venv-docs .cache build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup tools demo serve demo-model demo-report test test-one test-fast test-long lint format hooks lint-protos typecheck proto proto-freeze train-smoke \
	settings docs dashboard dashboard-picture lock rules sbom fuzz soak bench bench-engine bench-gpu bench-naive bench-gateway bench-calls bench-coding bench-e2e bench-train bench-bars bench-people bench-audit bench-degradations bench-evaluate clean
