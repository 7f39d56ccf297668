"""Everything that touches data sets: formats, loaders and the embedded drawings."""
