"""SSNet: joint learning of saliency and weakly supervised segmentation. In reading order:

| file                   | what it says                          | paper        | notebook |
| ---------------------- | ------------------------------------- | ------------ | -------- |
| data_utils/datasets.py | D_c, with labels; D_s, with masks     | 4.1          | 01       |
| backbones.py           | features at stride 8, by dilation     | 3.2          | 02       |
| sam.py                 | scores v, and S = the sum of v H      | 3.3, Eq. 1   | 03       |
| ssnet.py               | SSNet-1, SSNet-2: maps H, scores v, S | 3.1          | 03       |
| losses.py              | L_c, L_s1 and L_s2, on logs           | Eq. 2 to 4   | 04       |
| config.py              | readings, sizes, the six settings     | Table 5      | 05       |
| training.py            | one loop, whichever losses it gets    | 4.1          | 05       |
| stage1.py              | SSNet-1 from labels and masks         | 3.4          | 05       |
| crf.py                 | maps snapped to a picture's edges     | 3.4          | 06       |
| pseudo_labels.py       | SSNet-1's maps, refined into labels   | 3.4          | 06       |
| stage2.py              | SSNet-2 from pseudo labels            | 3.4, Table 5 | 07       |
| inference.py           | pictures of any size                  | 4.1          | 08       |
| metrics.py             | mIoU, MAE, protocols of the F-measure | 4.2 to 4.4   | 08       |

Behind the method: engine/ runs it, course/ and experiments/ use it, cli/ is the command
`jsws`.
"""

import os

# PyTorch's CPU threads wait for each other by spinning, which on a machine that also does
# something else can cost more than the work. On an idle machine, falling asleep at once is
# just as costly. So: spin for some microseconds, then sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
