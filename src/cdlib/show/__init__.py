"""Tables, figures, statement and report, from a run's tidy files; no torch."""
