"""v(S): from a coalition to a number."""
