"""The data sets that the repository draws itself."""
