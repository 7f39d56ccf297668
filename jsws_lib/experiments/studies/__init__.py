"""One question a file, asked of the loss, of the SAM and of photographs.

| file           | question                                              | in results/    |
| -------------- | ----------------------------------------------------- | -------------- |
| objective      | which solution does each reading of Eq. 2 and 3 want? | objective      |
| stays          | does a right solution stay under it?                  | stays          |
| paper_schedule | where does the schedule of Section 4.1 end?           | paper_schedule |
| paper_size     | how fast may the SAM learn at the paper's size?       | paper_size     |
| one_change     | what of the default recipe matters? (`jsws study`)    | study_mini     |
| sam_trials     | what makes a SAM that suppresses?                     | sam_trials     |
| photographs    | what of it holds on photographs of six categories?    | photographs    |

`followed` is what those that measure a network while it learns have in common.
"""
