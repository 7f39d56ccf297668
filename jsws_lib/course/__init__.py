"""What the notebooks import: `start`, figures, controls, exercises and their checks."""
