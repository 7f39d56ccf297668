"""The figures of the notebooks.

All take `fig`, an empty figure or subfigure, or `ax` to draw on; `title` stands above, and
`image` is (H, W, 3) uint8.
"""
