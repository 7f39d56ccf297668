"""What the notebooks import.

| files                      | what they are                                              |
| -------------------------- | ---------------------------------------------------------- |
| bootstrap, notebook        | `start`, `show` and `report`, which every notebook calls   |
| figures/                   | what is drawn: a file a notebook; by several: `common`     |
| checks/                    | the checks of the exercises, a file a notebook             |
| widgets, frames            | pictures with controls, and their states without a kernel  |
| from_solutions, measured   | makes the exercises; numbers held to what is expected      |

Notebook 1 data, 2 backbone, 3 sam, 4 losses, 5 stage1, 6 pseudo_labels, 7 stage2,
8 evaluation: so are the files of figures/ and checks/ called.
"""
