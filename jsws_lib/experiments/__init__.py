"""Many runs, and what is made of their figures: ablation, study, measures, tables."""
