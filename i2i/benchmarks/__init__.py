"""Mode-coverage benchmarks: the literature's tests of mode collapse, and tables of methods that take them."""
