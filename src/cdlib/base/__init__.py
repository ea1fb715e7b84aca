"""What everything rests on: paths, parameters, names, files, errors."""
