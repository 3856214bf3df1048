"""How much of a distribution a generator covers: the literature's tests of mode collapse, and a table of
remedies that take them."""
