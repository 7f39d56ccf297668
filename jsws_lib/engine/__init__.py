"""What surrounds the method when it runs.

| files                   | what they do                                              |
| ----------------------- | --------------------------------------------------------- |
| runs                    | a training as a value: what identifies it, where it lives |
| loop, devices           | processes, precision, tracking around `training.train`    |
| resume, checkpoints     | nothing lost; one file with weights and their story       |
| look, film              | a look at validation images while a network trains        |
| labelling, evaluation   | a whole set labelled, or measured                         |
| cam                     | labels alone, read as class activation maps               |
| export, doctor          | networks for other programs; what is wrong on a machine   |
"""
