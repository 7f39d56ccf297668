"""Measures of saliency maps that came after the paper: S, E and weighted F.

The paper has none of them, newer tables have all. PySODMetrics computes them (`pip install
pysodmetrics`); here its values are summed, so that any number of maps fits in memory.
"""

from typing import NamedTuple

import numpy as np

from data_utils.errors import JswsError
from jsws_lib.metrics import SaliencyMeasure


class StructureScores(NamedTuple):
    """Result of `StructureMeasure.compute`, fractions of 1.

    ``e_curve`` is (256,), the E-measure per threshold k/255, averaged over the images.
    """

    s_measure: float
    max_e: float
    mean_e: float
    adaptive_e: float
    weighted_f: float
    e_curve: np.ndarray
    count: int

    def __str__(self) -> str:
        return (
            f"S {self.s_measure:.4f}, E max {self.max_e:.4f} mean {self.mean_e:.4f} "
            f"adaptive {self.adaptive_e:.4f}, weighted F {self.weighted_f:.4f} "
            f"({self.count} images)"
        )


class StructureMeasure:
    """S-measure (Fan et al. 2017), E-measure (Fan et al. 2018), weighted F (Margolin et
    al. 2014) of saliency maps.

    Map and mask are prepared as under the protocol ``pysod`` of `metrics.PROTOCOLS`: a
    mask is salient above 128, a map is stretched to [0, 1], a constant one left as it is.
    S weighs region and object alike (alpha = .5); weighted F has beta = 1 and is 0 where
    the mask is all background; the adaptive threshold is min(2 * mean, 1).

    Raises JswsError when PySODMetrics is not installed.
    """

    def __init__(self):
        try:
            import py_sod_metrics  # noqa: F401
        except ImportError as error:
            raise JswsError(
                f"S, E and weighted F need PySODMetrics ({error}): pip install pysodmetrics"
            ) from None
        self.sums, self.e_curve, self.count = np.zeros(3), np.zeros(256), 0

    def update(self, sal_map, mask) -> None:
        """Add one image; arguments and errors as for `SaliencyMeasure.update`."""
        from py_sod_metrics import Emeasure, Smeasure, WeightedFmeasure

        sal_map, mask = SaliencyMeasure("pysod").prepare(sal_map, mask)
        sal_map = sal_map / (255 if sal_map.dtype == np.uint8 else 1.0)
        low, high = sal_map.min(), sal_map.max()
        if low < high:
            sal_map = (sal_map - low) / (high - low)
        results = {}
        for one in (Smeasure(), Emeasure(), WeightedFmeasure()):
            one.step(sal_map.astype(np.float64), mask, normalize=False)
            results |= one.get_results()
        values = np.array([results["sm"], results["em"]["adp"], results["wfm"]])
        curve = results["em"]["curve"]
        if not (np.abs([*values, *curve]) < 2).all():  # E is n / (n - 1) at most; or nan
            raise JswsError("S, E or weighted F is no fraction; is the map but a pixel?")
        self.sums += values
        self.e_curve += curve
        self.count += 1

    def __iadd__(self, other: "StructureMeasure") -> "StructureMeasure":
        """Merge the sums of another measure."""
        self.sums += other.sums
        self.e_curve += other.e_curve
        self.count += other.count
        return self

    def compute(self) -> StructureScores:
        """Scores so far; JswsError if no image was added."""
        if not self.count:
            raise JswsError("no saliency map was added: nothing to score")
        s, adaptive, weighted_f = (self.sums / self.count).tolist()
        curve = self.e_curve / self.count
        e = (float(curve.max()), float(curve.mean()), adaptive)
        return StructureScores(s, *e, weighted_f, curve, self.count)
