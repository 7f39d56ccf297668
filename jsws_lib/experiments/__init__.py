"""Many runs, and what is made of their figures.

| files                         | what they are for                                    |
| ----------------------------- | ---------------------------------------------------- |
| ablation, dry_run             | Tables 5 and 6 again, and what that would cost       |
| results, claims, paper_tables | tables and charts, ours and beside the paper's       |
| studies/                      | a program for each question of docs/recipe_study.md  |
| bench, memory                 | how fast; and how many parts of a batch fit          |
| folders, submission           | predictions as files, measured, or packed for VOC    |
| predictions, pages            | predictions as pictures: overlays, the paper's pages |
| pretrain                      | the mini backbone's ImageNet: single drawings        |
"""
