"""Real data sets: fetched, checked, and your own pictures taken over."""
