VENV := .venv
BIN := $(VENV)/bin
TESTS := -m pytest tests --ignore=tests/parity -n 2 --dist loadfile

.PHONY: demo test parity lint
# The README's two commands.
demo:
	python3 -m venv $(VENV) && $(BIN)/pip install -q -c constraints.txt -e . && $(BIN)/mindone-diffusers generate "a large red circle on a blue background" --seed 0 --output outputs/first_picture.png
test:
	python3 -m venv $(VENV) && $(BIN)/pip install -q -c constraints.txt -e '.[test]' && $(BIN)/python $(TESTS)
# The same with another MindSpore, in an environment of its own: `make test-2.10.0`.
test-%:
	python3 -m venv $(VENV)-$* && sed 's/^mindspore==.*/mindspore==$*/' constraints.txt > $(VENV)-$*/constraints.txt && \
		$(VENV)-$*/bin/pip install -q -c $(VENV)-$*/constraints.txt -e '.[test]' && $(VENV)-$*/bin/python $(TESTS)
# The comparison with PyTorch, side by side. torch is installed first, by its exact version, for a CPU build.
parity:
	$(BIN)/pip install -q torch==2.13.0 && $(BIN)/pip install -q -c constraints.txt -e '.[test,parity]' && $(BIN)/python -m pytest tests/parity -n 2 --dist loadfile
lint:
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
