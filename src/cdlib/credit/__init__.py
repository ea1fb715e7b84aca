"""Credit of each contributor, from measured coalitions and from images; no torch."""
